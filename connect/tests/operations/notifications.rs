//! Notifications are matched by key and sender, and consumed once. An agent that keeps no rules sends them.

use crate::Outcome;
use crate::process::Process;

struct Scene {
    owner: Process,
    rogue: Process,
    /// The owner, as an agent.
    agent: String,
    metadata: String,
}

impl Scene {
    /// An open Readable, and a rogue that knows it.
    fn open() -> Outcome<Self> {
        let (mut owner, mut rogue) = (Process::desk()?, Process::start("rogue", "tcp")?);
        let metadata = owner.offer("readable", "64")?;
        let agent = rogue.tell(&format!("load {metadata}"))?;
        Ok(Self { owner, rogue, agent, metadata })
    }

    fn notify(&mut self, message: &[u8]) -> Outcome {
        let hex: String = message.iter().map(|byte| format!("{byte:02x}")).collect();
        self.rogue.answers(&format!("notify {} {hex}", self.agent), "ok")
    }

    fn key(&self) -> Outcome<Vec<u8>> {
        let object: serde_json::Value = serde_json::from_str(&self.metadata)?;
        Ok(object["notification_key"].as_str().ok_or("no key")?.as_bytes().to_vec())
    }

    fn foreign(&mut self, endpoints: u32, count: u32) -> Outcome {
        let expected = format!("endpoints={endpoints} regions={endpoints} in_flight=0 foreign={count}");
        self.owner.comes_to("statistics", &expected)
    }
}

/// One that is no text breaks every passive operation of a `nixl_connect` agent for good.
#[test]
fn notifications_that_are_not_the_key_are_passed_over() -> Outcome {
    let mut scene = Scene::open()?;
    let key = scene.key()?;
    let longer = [key.as_slice(), b"x"].concat();
    let messages: [&[u8]; 5] = [b"another key", b"\xff\xfe\x00 no text", b"", &key[1..], &longer];
    for (count, message) in (1..).zip(messages) {
        scene.notify(message)?;
        scene.foreign(1, count)?;
        scene.owner.answers("status readable", "INIT")?;
    }
    let mut peer = Process::desk()?;
    peer.begin("read", "64", &scene.metadata)?;
    peer.completes("read")?;
    scene.owner.completes("readable")?;
    scene.owner.answers("peer readable", &peer.tell("name")?)?;
    scene.owner.ends_well()?;
    peer.ends_well()
}

#[test]
fn a_key_from_another_agent_than_the_expected_one_is_an_error() -> Outcome {
    let mut scene = Scene::open()?;
    let mut peer = Process::desk()?;
    scene.owner.answers(&format!("expect readable {}", peer.tell("agent")?), "ok")?;
    let key = scene.key()?;
    scene.notify(&key)?;
    let message = scene.owner.refuses("wait readable 30000", "Sender Retryable")?;
    let (expected, found) = (peer.tell("name")?, scene.rogue.tell("name")?);
    assert!(message.contains(&expected) && message.contains(&found), "{message}");
    scene.owner.answers("status readable", "ERR")?;
    // The expected one comes too late, and has what it was promised all the same.
    peer.begin("read", "64", &scene.metadata)?;
    peer.completes("read")?;
    scene.owner.answers("status readable", "ERR")?;
    scene.owner.answers("take readable readable", "kept")?;
    scene.owner.ends_well()?;
    peer.ends_well()
}

/// Whoever has the metadata can say that it is done; who it was is told.
#[test]
fn without_an_expected_agent_any_holder_of_the_key_completes_and_is_named() -> Outcome {
    let mut scene = Scene::open()?;
    let key = scene.key()?;
    scene.notify(&key)?;
    scene.owner.completes("readable")?;
    let rogue = scene.rogue.tell("name")?;
    scene.owner.answers("peer readable", &rogue)?;
    let mut peer = Process::desk()?;
    scene.owner.refuses(&format!("expect readable {}", peer.tell("agent")?), "Sender Retryable")?;
    scene.owner.answers("status readable", "DONE")?;
    scene.owner.ends_well()
}

#[test]
fn a_key_is_consumed_once() -> Outcome {
    let mut scene = Scene::open()?;
    let key = scene.key()?;
    scene.notify(&key)?;
    scene.owner.completes("readable")?;
    // From then on it is nobody's, though the operation is held: another one on the same memory does not take it for its own.
    scene.owner.answers("readable second readable", "ok")?;
    scene.notify(&key)?;
    scene.foreign(1, 1)?;
    scene.owner.completes("readable")?;
    scene.owner.answers("status second", "INIT")?;
    scene.owner.answers("drop readable", "ok")?;
    scene.notify(&key)?;
    scene.foreign(1, 2)?;
    scene.owner.answers("status second", "INIT")?;
    scene.owner.ends_well()
}
