//! Passive operations of an agent that has registered other memory too.

use nixl_connect::{AgentMetadata, CheckedMetadata, RdmaMetadata, Region};

use crate::Outcome;
use crate::process::Process;

/// The metadata of all of them has more bytes than a peer would take.
const MANY: usize = 30_000;

#[test]
fn an_agent_with_many_ranges_offers_some_of_them_to_a_peer() -> Outcome {
    let [mut owner, mut peer] = Process::desks()?;
    owner.answers(&format!("memory many {} 1", vec!["1"; MANY].join(",")), "ok")?;
    owner.answers("register many", "ok")?;
    owner.answers("statistics", &format!("endpoints=0 regions={MANY} in_flight=0 foreign=0"))?;
    // There are too many for whoever wants all of them.
    owner.refuses("agent", "Session Local")?;
    let metadata = owner.offer("readable", "64,3")?;
    peer.begin("read", "64,3", &metadata)?;
    peer.completes("read")?;
    owner.completes("readable")?;
    owner.ends_well()?;
    peer.ends_well()
}

/// Byte for byte what the whole metadata says of them, in its order, so a peer sees no difference.
#[test]
fn metadata_of_some_ranges_is_that_part_of_the_whole() -> Outcome {
    let mut owner = Process::desk()?;
    owner.answers("memory other 100,200,300 1", "ok")?;
    owner.answers("register other", "ok")?;
    let offer = RdmaMetadata::parse(&owner.offer("readable", "4096,1,70000,64")?)?;
    let whole = CheckedMetadata::decode(&owner.tell("agent")?, None)?;
    let mut expected: AgentMetadata = whole.parsed().clone();
    assert_eq!(expected.sections.iter().map(|section| section.regions.len()).sum::<usize>(), 7);
    let is_offered = |region: &Region| {
        let places = offer.descriptors().iter().map(|descriptor| (descriptor.ptr, descriptor.size));
        places.into_iter().any(|place| place == (region.address, region.length))
    };
    expected.sections.iter_mut().for_each(|section| section.regions.retain(is_offered));
    assert_eq!(offer.agent().parsed().to_bytes(), expected.to_bytes());
    owner.ends_well()
}
