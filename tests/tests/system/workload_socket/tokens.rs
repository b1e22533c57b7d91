//! Who is nobody, or somebody else.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use nixl_transfer_client::AUDIENCE;
use nixl_transfer_tests::{cluster::NAMESPACE, raw_client::RawClient};
use serde_json::{Value, json};

use super::scene::{SOON, Scene};

/// A token that says something else of itself; its signature is that of what it said before.
fn rewritten(token: &str, change: impl FnOnce(&mut Value)) -> Result<String> {
    let parts: Vec<&str> = token.split('.').collect();
    let [header, payload, signature] = parts.as_slice() else { anyhow::bail!("a token has three parts") };
    let mut claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload)?)?;
    change(&mut claims);
    Ok(format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(claims.to_string())))
}

fn hello(token: &str) -> Value {
    json!({"type": "hello", "version": 1, "token": token})
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_nobody_or_somebody_else_is_refused_and_a_pod_beside_is_served() -> Result<()> {
    let (scene, mut good) = Scene::start().await?;
    let (cluster, pid) = (&scene.cluster, scene.agent_pid()?);
    let during = scene.begin(&mut good, json!({"bandwidthLimit": "256Ki"}))?;
    cluster.wait_moving(&during, 1, SOON).await?;

    cluster.make_pod("bad", "a")?;
    cluster.make_pod("elsewhere", "b")?;
    let (token, elsewhere) = (cluster.token("bad")?, cluster.token("elsewhere")?);
    let (head, signature) = token.rsplit_once('.').context("a token")?;
    let first = if signature.starts_with('A') { 'B' } else { 'A' };
    let damaged = format!("{head}.{first}{}", &signature[1..]);
    let namespace = format!("--namespace={NAMESPACE}");
    let unbound =
        cluster.plane.kubectl(&["create", "token", "default", &namespace, "--audience", AUDIENCE])?;
    let mut version = hello(&token);
    version["version"] = json!(2);
    let mut more = hello(&token);
    more["node"] = json!("b");
    for (what, first, reason) in [
        ("no token", json!({"type": "hello", "version": 1}), "ProtocolError"),
        ("a field more", more, "ProtocolError"),
        ("an empty token", hello(""), "TokenMissing"),
        ("garbage", hello("garbage"), "TokenMalformed"),
        ("an expired token", hello(&rewritten(&token, |it| it["exp"] = json!(1))?), "TokenExpired"),
        ("a damaged signature", hello(&damaged), "TokenRejected"),
        (
            "a token made to last",
            hello(&rewritten(&token, |it| it["exp"] = json!(4_000_000_000u32))?),
            "TokenRejected",
        ),
        (
            "another audience",
            hello(&cluster.token_for("bad", "https://kubernetes.default.svc")?),
            "WrongAudience",
        ),
        ("a pod of another node", hello(&elsewhere), "WrongNode"),
        (
            "a pod that lies about its node",
            hello(&rewritten(&elsewhere, |it| it["kubernetes.io"]["node"]["name"] = json!("a"))?),
            "TokenRejected",
        ),
        ("a token of no pod", hello(unbound.trim()), "TokenNotBound"),
        ("another version", version, "WrongVersion"),
        (
            "an offer first",
            json!({"type": "offer", "region": "good", "size": 1, "device": "cpu"}),
            "ProtocolError",
        ),
        ("no message", json!([[[]]]), "ProtocolError"),
    ] {
        let mut client = RawClient::connect(&scene.socket())?;
        client.say(&first, &[])?;
        let found = client.refused().with_context(|| what.to_owned())?;
        ensure!(found == reason, "{what}: {found}");
        ensure!(client.hear()?.is_none(), "{what}: the connection is closed then");
    }
    // Its own token is good for the pod that could not lie, where it is.
    RawClient::hello(&scene.sockets.of("b"), &elsewhere)?;

    scene.arrived(&mut good, &during).await?;
    scene.unharmed(&mut good, pid).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_a_deleted_pod_is_good_for_nothing_soon_after() -> Result<()> {
    let (scene, mut good) = Scene::start().await?;
    let pid = scene.agent_pid()?;
    scene.cluster.make_pod("short", "a")?;
    let token = scene.cluster.token("short")?;
    RawClient::hello(&scene.socket(), &token)?;
    let namespace = format!("--namespace={NAMESPACE}");
    let words = ["delete", "pod", "short", &namespace, "--grace-period=0", "--force"];
    scene.cluster.plane.kubectl(&words)?;
    // The API server remembers a token for 10 s, and so does the agent.
    let deadline = Instant::now() + Duration::from_secs(25);
    loop {
        let mut client = RawClient::connect(&scene.socket())?;
        client.say(&hello(&token), &[])?;
        let answer = client.hear()?.context("an answer")?;
        if answer["reason"] == "TokenRejected" {
            break;
        }
        ensure!(answer["type"] == "welcome" && Instant::now() < deadline, "{answer}");
        tokio::time::sleep(Duration::from_millis(500)).await; // polls, with a deadline
    }
    scene.unharmed(&mut good, pid).await
}
