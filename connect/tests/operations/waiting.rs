//! Operations that must wait until another one with the same peer has ended: what NIXL knows of the peer's memory has
//! changed, and can only be replaced when nothing is in flight.

use nixl_connect::{Encoding, RdmaMetadata, encode_agent_metadata};

use crate::Outcome;
use crate::process::Process;

/// More than the buffers of a socket hold.
const LARGE: &str = "16777216";

struct Scene {
    owner: Process,
    peer: Process,
    /// What the owner offers besides, which could begin at once.
    third: String,
}

impl Scene {
    /// A read is in flight with a stopped owner, and a second one of the same memory waits for its end: it has another
    /// key, as after a new registration on a fabric with real keys.
    fn second_waits_for_first() -> Outcome<Self> {
        let [mut owner, mut peer] = Process::desks()?;
        let first = owner.offer("readable", LARGE)?;
        owner.answers("readable second readable", "ok")?;
        let second = with_another_key(&owner.tell("metadata second")?)?;
        let third = owner.offer("writable", "64")?;
        owner.stop()?;
        peer.begin("read", LARGE, &first)?;
        peer.answers(&format!("memory second {LARGE} 0"), "ok")?;
        peer.answers(&format!("soon read second second {second}"), "ok")?;
        peer.answers("statistics", "endpoints=1 regions=1 in_flight=2 foreign=0")?;
        Ok(Self { owner, peer, third })
    }

    fn ends_well(mut self) -> Outcome {
        self.peer.holds_nothing()?;
        self.owner.ends_well()?;
        self.peer.ends_well()
    }
}

/// UCX reads a key as far as it understands it, so one that is longer is another key that works.
fn with_another_key(metadata: &str) -> Outcome<String> {
    let offer = RdmaMetadata::parse(metadata)?;
    let mut agent = offer.agent().parsed().clone();
    agent.sections.iter_mut().flat_map(|section| &mut section.regions).for_each(|region| region.key.push(0));
    let encoded = encode_agent_metadata(&agent.to_bytes(), Encoding::Base64)?;
    let (descriptors, key) = (offer.descriptors().to_vec(), offer.notification_key().to_owned());
    Ok(RdmaMetadata::new(descriptors, encoded, key, offer.operation_kind())?.to_json())
}

#[test]
fn an_operation_that_waits_for_another_begins_by_itself() -> Outcome {
    let mut scene = Scene::second_waits_for_first()?;
    scene.owner.go_on()?;
    scene.owner.completes("second")?;
    scene.peer.answers("start second", "ok")?;
    for operation in ["second", "read"] {
        scene.peer.completes(operation)?;
        scene.peer.answers(&format!("drop {operation}"), "ok")?;
    }
    scene.ends_well()
}

#[test]
fn an_operation_that_is_dropped_while_it_waits_never_begins() -> Outcome {
    let mut scene = Scene::second_waits_for_first()?;
    scene.peer.answers("drop second", "ok")?;
    scene.owner.go_on()?;
    scene.peer.completes("read")?;
    scene.owner.completes("readable")?;
    scene.peer.answers("drop read", "ok")?;
    scene.peer.holds_nothing()?;
    // A third one with the owner shows that the second has not moved: it would have come first.
    let third = scene.third.clone();
    scene.peer.begin("write", "64", &third)?;
    scene.peer.completes("write")?;
    scene.owner.completes("writable")?;
    scene.owner.answers("status second", "INIT")?;
    scene.peer.answers("drop write", "ok")?;
    scene.ends_well()
}

/// The owner is stopped all the time, so nothing else happens that the session could take notice of.
#[test]
fn an_operation_that_is_dropped_while_it_waits_lets_those_behind_it_begin() -> Outcome {
    let mut scene = Scene::second_waits_for_first()?;
    scene.peer.make("write", "64")?;
    scene.peer.answers(&format!("soon write write write {}", scene.third), "ok")?;
    scene.peer.answers("statistics", "endpoints=1 regions=1 in_flight=3 foreign=0")?;
    scene.peer.answers("drop second", "ok")?;
    scene.peer.answers("start write", "ok")?;
    scene.peer.answers("statistics", "endpoints=2 regions=2 in_flight=2 foreign=0")?;
    scene.owner.go_on()?;
    for operation in ["read", "write"] {
        scene.peer.completes(operation)?;
        scene.peer.answers(&format!("drop {operation}"), "ok")?;
    }
    scene.owner.completes("writable")?;
    scene.ends_well()
}

#[test]
fn an_operation_that_waits_for_another_fails_with_their_peer() -> Outcome {
    let mut scene = Scene::second_waits_for_first()?;
    scene.owner.kill()?;
    scene.peer.refuses("start second", "StalePeer StalePeer")?;
    scene.peer.answers("access second", "free")?;
    scene.peer.refuses("wait read 30000", "PeerLost Retryable")?;
    scene.peer.answers("drop read", "ok")?;
    scene.peer.holds_nothing()?;
    scene.peer.ends_well()
}
