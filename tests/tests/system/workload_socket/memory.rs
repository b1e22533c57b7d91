//! Memory that is not what it should be, or changes, or goes.

use std::{
    fs::File,
    io::Write,
    net::{TcpListener, TcpStream},
    os::fd::{AsFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nixl_transfer_client::{Event, shared_memory};
use nixl_transfer_tests::{
    data::write_file,
    raw_client::RawClient,
    regions::{file, held_by_agent, job, memory},
    workloads::Program,
};
use rustix::{
    fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create},
    io::Errno,
};
use serde_json::{Value, json};

use super::document::manifest;
use super::scene::{LENGTH, ORDINARY, SOON, Scene, of_workload};

const BYTES: u64 = 8192;

fn offer(region: &str, size: u64) -> Value {
    json!({"type": "offer", "region": region, "size": size, "device": "cpu"})
}

fn memfd(allocated: bool, seals: SealFlags) -> Result<OwnedFd> {
    let memory = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&memory, BYTES)?;
    if allocated {
        fallocate(&memory, FallocateFlags::empty(), 0, BYTES)?;
    }
    fcntl_add_seals(&memory, seals)?;
    Ok(memory)
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_is_not_as_it_must_be_is_refused_and_the_connection_goes_on() -> Result<()> {
    let (scene, mut good) = Scene::start().await?;
    let (cluster, pid) = (&scene.cluster, scene.agent_pid()?);
    cluster.apply(&of_workload("bad", "a"))?;
    cluster.apply(&held_by_agent("agents", "a", 1 << 20))?;
    cluster.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}}))?;
    let mut foreign = of_workload("foreign", "a");
    foreign["metadata"]["namespace"] = json!("other");
    cluster.apply(&foreign)?;
    cluster.apply(&of_workload("far", "b"))?;
    cluster.wait_region_unready("bad", "RegionNotReady", SOON).await?;
    cluster.wait_region_ready("agents", SOON).await?;

    let mut bad = scene.pod("bad")?;
    let sealed = SealFlags::SHRINK | SealFlags::GROW;
    let fine: OwnedFd = shared_memory(BYTES)?.into();
    let (unsealed, hollow) = (memfd(true, SealFlags::empty())?, memfd(false, sealed)?);
    let only_read = memfd(true, sealed | SealFlags::WRITE)?;
    let path = cluster.path("a", ORDINARY);
    write_file(&path, BYTES, 1)?;
    let ordinary: OwnedFd = File::open(path)?.into();
    let mut gpu = offer("bad", BYTES);
    gpu["device"] = json!("cuda:0");
    let withdraw = json!({"type": "withdraw", "region": "good"});
    for (what, message, descriptor, reason) in [
        ("no descriptor", offer("bad", BYTES), None, "DescriptorMissing"),
        ("too small a size", offer("bad", BYTES - 1), Some(&fine), "MemoryUnfit"),
        ("too large a size", offer("bad", u64::MAX), Some(&fine), "MemoryUnfit"),
        ("no seal", offer("bad", BYTES), Some(&unsealed), "MemoryUnfit"),
        ("not allocated", offer("bad", BYTES), Some(&hollow), "MemoryUnfit"),
        ("sealed against writing", offer("bad", BYTES), Some(&only_read), "MemoryUnfit"),
        ("an ordinary file", offer("bad", BYTES), Some(&ordinary), "MemoryUnfit"),
        ("memory of a GPU", gpu, Some(&fine), "NoSuchDevice"),
        ("another namespace's", offer("foreign", BYTES), Some(&fine), "RegionNotFound"),
        ("another node's", offer("far", BYTES), Some(&fine), "RegionNotFound"),
        ("the agent's", offer("agents", BYTES), Some(&fine), "InvalidSpec"),
        ("another pod's", offer("good", BYTES), Some(&fine), "Taken"),
        ("another pod's, back", withdraw, None, "NotHeld"),
    ] {
        let descriptor: Vec<_> = descriptor.iter().map(|it| it.as_fd()).collect();
        bad.say(&message, &descriptor)?;
        let found = bad.refused().with_context(|| what.to_owned())?;
        ensure!(found == reason, "{what}: {found}");
    }
    bad.say(&offer("bad", BYTES), &[fine.as_fd()])?;
    let answer = bad.hear()?.context("an answer")?;
    ensure!(answer == json!({"type": "accepted", "region": "bad"}), "after all that: {answer}");

    for (what, message, count) in [
        ("two descriptors", offer("bad", BYTES), 2),
        ("many descriptors", offer("bad", BYTES), 8),
        ("a descriptor to withdraw", json!({"type": "withdraw", "region": "bad"}), 1),
        ("a long name", offer(&"x".repeat(60_000), BYTES), 1),
        ("a hello", json!({"type": "hello", "version": 1, "token": ""}), 0),
        ("a negative size", json!({"type": "offer", "region": "bad", "size": -1, "device": "cpu"}), 1),
    ] {
        let mut bad = scene.pod("bad")?;
        bad.say(&message, &[fine.as_fd(); 8][..count])?;
        let found = bad.refused().with_context(|| what.to_owned())?;
        ensure!(found == "ProtocolError" && bad.hear()?.is_none(), "{what}: {found}");
    }
    drop(bad);
    cluster.delete_region("agents").await?;
    scene.unharmed(&mut good, pid).await
}

/// A socket whose last close waits for a peer that takes nothing.
fn lingering() -> Result<(OwnedFd, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut stream = TcpStream::connect(listener.local_addr()?)?;
    let peer = listener.accept()?.0;
    stream.set_nonblocking(true)?;
    while stream.write(&[0; 65536]).is_ok() {}
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::from_secs(600)))?;
    Ok((stream.into(), peer))
}

#[tokio::test(flavor = "multi_thread")]
async fn descriptors_that_cannot_be_closed_hold_up_nobody_but_their_pod() -> Result<()> {
    let (scene, mut good) = Scene::start().await?;
    let pid = scene.agent_pid()?;
    scene.cluster.make_pod("bad", "a")?;
    let token = scene.cluster.token("bad")?;
    let (mut peers, mut clients) = (Vec::new(), Vec::new());
    // As many as a pod may have, and strangers that do not go on: more than the agent has threads.
    for number in 0..12 {
        let (socket, peer) = lingering()?;
        let mut client = RawClient::connect(&scene.socket())?;
        if number < 4 {
            client = RawClient::hello(&scene.socket(), &token)?;
        }
        let body = offer("good", BYTES).to_string();
        client.send(&u32::try_from(body.len())?.to_be_bytes(), &[socket.as_fd()])?;
        // From now on the agent's close is the last one.
        drop(socket);
        if number < 4 {
            client.send(body.as_bytes(), &[])?;
        }
        peers.push(peer);
        clients.push(client);
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let expected = if number < 4 { "MemoryUnfit" } else { "ProtocolError" };
        let found = client.refused()?;
        ensure!(found == expected && client.hear()?.is_none(), "{number}: {found}");
    }
    drop(clients);
    // Its connections count until they are closed.
    let mut more = RawClient::connect(&scene.socket())?;
    more.say(&json!({"type": "hello", "version": 1, "token": token}), &[])?;
    ensure!(more.refused()? == "TooMany");
    let began = Instant::now();
    scene.serves(&mut good).await?;
    let mut other = scene.good("other").await?;
    scene.serves(&mut other).await?;
    ensure!(began.elapsed() < SOON);
    drop((peers, other));
    scene.unharmed(&mut good, pid).await
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_shrinks_is_punched_or_dies_harms_its_pod_only() -> Result<()> {
    let (scene, mut good) = Scene::start().await?;
    let (cluster, pid) = (&scene.cluster, scene.agent_pid()?);
    write_file(&cluster.path("b", "file"), LENGTH, 9)?;
    cluster.apply(&of_workload("bad", "a"))?;
    let mut bad = cluster.workload(&scene.sockets, "bad", "a")?;
    let lent = shared_memory(LENGTH)?;
    bad.hand_over("bad", &lent, LENGTH, SOON)?;
    ensure!(ftruncate(&lent, 1) == Err(Errno::PERM), "the kernel keeps its length");
    ensure!(ftruncate(&lent, LENGTH + 1) == Err(Errno::PERM));

    // Its pages go again and again, while a transfer writes and while one reads.
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            while !over.load(Ordering::Relaxed) && fallocate(&lent, punch, 0, LENGTH).is_ok() {
                std::thread::sleep(Duration::from_millis(1)); // the pace of the attack
            }
        });
        let moved = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                let mut into = job("into", file("b", "file"), &[memory("bad")]);
                into["spec"]["transport"] = json!({"bandwidthLimit": "1Mi"});
                cluster.apply(&into)?;
                // What was received is right; what is in the memory is the pod's own doing.
                let into = cluster.wait_complete("into", SOON).await?;
                cluster.apply(&job("out", memory("bad"), &[file("b", "copy")]))?;
                let out = cluster.wait_complete("out", SOON).await?;
                anyhow::Ok((into, out))
            })
        });
        over.store(true, Ordering::Relaxed);
        moved
    })?;
    // All of the file has the length of the memory, and the digest of what was read and sent.
    ensure!(std::fs::metadata(cluster.path("b", "copy"))?.len() == LENGTH);
    scene.serves(&mut good).await?;

    // Deleted and made again while it is held: its holder hears of it, and may hand over anew.
    while bad.next(Duration::from_millis(500)).is_ok() {}
    cluster.delete_region("bad").await?;
    cluster.apply(&of_workload("bad", "a"))?;
    match bad.next(SOON)? {
        Event::Ended { region, reason, .. } if region == "bad" && reason == "RegionNotFound" => {}
        other => anyhow::bail!("{other:?}"),
    }
    fallocate(&lent, FallocateFlags::empty(), 0, LENGTH)?;
    bad.hand_over("bad", &lent, LENGTH, SOON)?;
    cluster.wait_region_ready("bad", SOON).await?;
    bad.withdraw("bad", SOON)?;

    // The Rust example, killed.
    let token = scene.sockets.file("token", &cluster.token("bad")?)?;
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hand_over"));
    command.arg(scene.socket()).arg(&token).args(["bad", &LENGTH.to_string(), "some text"]);
    let mut program = Program::start(command)?;
    program.line_with("ready", SOON)?;
    cluster.wait_region_ready("bad", SOON).await?;
    program.kill()?;
    let why = cluster.wait_region_unready("bad", "RegionNotReady", SOON).await?;
    ensure!(why.contains("no pod"), "{why}");
    drop(bad);
    scene.unharmed(&mut good, pid).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_in_rust_lends_its_memory_and_takes_it_back() -> Result<()> {
    let (scene, mut good) = Scene::start().await?;
    let (cluster, pid) = (&scene.cluster, scene.agent_pid()?);
    // What the document shows can be applied.
    cluster.plane.apply_text(&manifest()?)?;
    cluster.make_pod("lender", "a")?;
    let token = scene.sockets.file("token", &cluster.token("lender")?)?;
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hand_over"));
    command.arg(scene.socket()).arg(&token).args(["lent", "4096", "some text"]);
    let program = Program::start(command)?;
    cluster.apply(&of_workload("lent", "a"))?;
    program.line_with("ready", SOON)?;
    cluster.apply(&job("out", memory("lent"), &[file("b", "copy")]))?;
    cluster.wait_complete("out", SOON).await?;
    ensure!(std::fs::read(cluster.path("b", "copy"))?.starts_with(b"some text\0"));
    let heard = program.line(SOON)?;
    ensure!(heard.contains("Finished") && heard.contains("\"out\""), "{heard}");
    ensure!(program.line(SOON)?.starts_with("some text\\x00"));
    program.wait(SOON)?;
    scene.unharmed(&mut good, pid).await
}
