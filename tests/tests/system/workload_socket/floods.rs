//! Too many, too slow, or nothing that makes sense.

use std::{
    os::fd::AsFd,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nixl_transfer_client::shared_memory;
use nixl_transfer_tests::raw_client::RawClient;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use super::scene::{SOON, Scene, of_workload};

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_connections_keep_nobody_out() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    let (scene, mut good) = Scene::start().await?;
    let pid = scene.agent_pid()?;
    let mut idle: Vec<RawClient> =
        (0..1000).map(|_| RawClient::connect(&scene.socket())).collect::<Result<_>>()?;
    // Behind all of them.
    let began = Instant::now();
    let mut new = scene.good("new").await?;
    let waited = began.elapsed();
    scene.serves(&mut good).await?;
    scene.serves(&mut new).await?;
    ensure!(waited < Duration::from_secs(15), "{waited:?}");
    // Each hears why it was not kept: pushed out, or too late.
    for client in &mut idle {
        let found = client.refused()?;
        ensure!(["TooMany", "ProtocolError"].contains(&found.as_str()) && client.hear()?.is_none());
    }
    // Of one pod there are few.
    scene.cluster.make_pod("many", "a")?;
    let token = scene.cluster.token("many")?;
    let _few: Vec<RawClient> =
        (0..4).map(|_| RawClient::hello(&scene.socket(), &token)).collect::<Result<_>>()?;
    for _ in 0..20 {
        let mut more = RawClient::connect(&scene.socket())?;
        more.say(&json!({"type": "hello", "version": 1, "token": token}), &[])?;
        ensure!(more.refused()? == "TooMany");
    }
    drop((new, _few, idle));
    scene.unharmed(&mut good, pid).await
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_and_garbage_hold_up_nobody() -> Result<()> {
    let (scene, mut good) = Scene::start().await?;
    let pid = scene.agent_pid()?;
    let during = scene.begin(&mut good, json!({"bandwidthLimit": "256Ki"}))?;
    scene.cluster.wait_moving(&during, 1, SOON).await?;

    // Bytes that are no message.
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[0; 64], b"\0\0\0\x02{]", b"\0\0\0\x01\xff"]
    {
        let mut client = RawClient::connect(&scene.socket())?;
        client.send(garbage, &[])?;
        ensure!(client.refused()? == "ProtocolError" && client.hear()?.is_none());
    }
    // Strangers: one that begins and does not go on, and one that says nothing. Pods that are known: another one that does
    // not go on, and one that drips.
    let (mut known, mut drips) = (scene.pod("slow")?, scene.pod("drips")?);
    let mut begun = RawClient::connect(&scene.socket())?;
    let mut silent = RawClient::connect(&scene.socket())?;
    begun.send(&[0, 0, 1], &[])?;
    known.send(&[0, 0, 1, 0, b'{'], &[])?;
    let began = Instant::now();
    drips.send(&[0, 0, 1, 0], &[])?;
    // Until nobody takes it any more.
    while drips.send(b"x", &[]).is_ok() {
        ensure!(began.elapsed() < Duration::from_secs(15), "it may drip on and on");
        tokio::time::sleep(Duration::from_millis(100)).await; // the pace of the attack
    }
    for client in [&mut begun, &mut drips, &mut silent, &mut known] {
        ensure!(client.refused()? == "ProtocolError" && client.hear()?.is_none());
    }
    scene.arrived(&mut good, &during).await?;
    scene.unharmed(&mut good, pid).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_never_reads_loses_its_memory_and_nobody_waits_for_it() -> Result<()> {
    let (scene, mut good) = Scene::start().await?;
    let pid = scene.agent_pid()?;
    scene.cluster.apply(&of_workload("deaf", "a"))?;
    let mut deaf = scene.pod("deaf")?;
    let memory = shared_memory(8192)?;
    let offer = json!({"type": "offer", "region": "deaf", "size": 8192, "device": "cpu"});
    while deaf.say(&offer, &[memory.as_fd()]).is_ok() {
        let answer = deaf.hear()?.context("an answer")?;
        if answer["type"] == "accepted" {
            break;
        }
        ensure!(answer["reason"] == "RegionNotFound", "{answer}");
    }
    scene.cluster.wait_region_ready("deaf", SOON).await?;
    // Asks and does not listen, until the agent gives it up: every answer is as long as can be.
    let name = "x".repeat(253);
    let began = Instant::now();
    let asking = std::thread::spawn(move || {
        let withdraw = json!({"type": "withdraw", "region": name});
        while deaf.say(&withdraw, &[]).is_ok() {}
        deaf
    });
    scene.serves(&mut good).await?;
    scene.cluster.wait_region_unready("deaf", "RegionNotReady", SOON).await?;
    ensure!(began.elapsed() > Duration::from_secs(5), "it has some time");
    drop(asking.join());
    scene.unharmed(&mut good, pid).await
}
