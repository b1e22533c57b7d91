use std::sync::atomic::AtomicBool;

use nixl_connect::{
    AgentMetadata, Connection, Device, Encoding, MemoryKind, MemorySection, OperationKind, RdmaMetadata,
    SerializedDescriptor, encode_agent_metadata,
};

use super::*;
use crate::region::{Budget, HostMemory, Offer};

const SINCE: Time = Time { seconds: 7, nanoseconds: 0 };

fn key() -> RegionKey {
    ("ml".into(), "kv".into())
}

fn named(uid: &str) -> TaskMemory {
    TaskMemory { name: "kv".into(), uid: uid.into(), unverified: false }
}

fn host(budget: &Budget, bytes: u64) -> Memory {
    let share = budget.take(bytes).expect("room");
    Memory::Host(Arc::new(HostMemory::allocate(bytes, share, &AtomicBool::new(false)).unwrap()))
}

fn region(uid: &str, memory: Memory, whole: bool) -> Region {
    Region { uid: uid.into(), memory, whole, since: SINCE, holder: None }
}

fn because(reason: Reason) -> Failure {
    Failure::new(reason, "so")
}

fn refused<T: std::fmt::Debug>(result: Result<Option<T>, Failure>) -> Reason {
    result.expect_err("a refusal").reason
}

#[test]
fn what_is_not_complete_is_no_content() {
    let (regions, budget) = (Regions::default(), Budget::new(1 << 20));
    regions.put(key(), region("u", host(&budget, 100), false), because(Reason::IoError));
    let (read, write) =
        (|| regions.try_read("ml", &named("u"), "j"), || regions.try_write("ml", &named("u"), "j"));
    assert_eq!(refused(read()), Reason::RegionNotReady, "zeros are nobody's data");
    let writing = write().unwrap().expect("free");
    assert!(read().unwrap().is_none() && write().unwrap().is_none(), "one writer, and nobody beside it");
    writing.complete(60, "xxh3:0".into()).unwrap();
    assert!(read().unwrap().is_none(), "its worker may not be gone yet");
    drop(writing);
    let (one, other) = (read().unwrap().unwrap(), read().unwrap().unwrap());
    assert_eq!((one.bytes, one.since, other.bytes), (60, SINCE, 60), "as long as what was moved there");
    assert!(write().unwrap().is_none(), "readers are not written under");
    drop((one, other));
    assert_eq!(
        regions.shown(&key()).unwrap().content.map(|content| (content.bytes, content.job)),
        Some((60, "j".into()))
    );
    drop(write().unwrap().unwrap());
    assert_eq!(regions.shown(&key()).unwrap().content, None, "who began to write has ended what was there");
    assert_eq!(refused(read()), Reason::RegionNotReady);
}

#[tokio::test]
async fn who_uses_a_region_hears_of_its_end_and_memory_is_freed_after_the_last() {
    let (regions, budget) = (Regions::default(), Budget::new(100));
    regions.put(key(), region("u", host(&budget, 100), true), because(Reason::IoError));
    assert_eq!(refused(regions.try_read("ml", &named("other"), "j")), Reason::RegionNotFound);
    assert_eq!(refused(regions.try_read("x", &named("u"), "j")), Reason::RegionNotFound);
    let reading = regions.try_read("ml", &named("u"), "j").unwrap().unwrap();
    regions.end(&key(), "another", because(Reason::IoError));
    assert!(regions.shown(&key()).is_some(), "one of another UID is not meant");
    regions.end(&key(), "u", because(Reason::RegionNotFound));
    assert_eq!(reading.ended().await.reason, Reason::RegionNotFound);
    assert_eq!(refused(regions.try_read("ml", &named("u"), "j")), Reason::RegionNotFound);
    assert_eq!(budget.free(), 0, "a worker may still have it");
    drop(reading);
    assert_eq!(budget.free(), 100);
}

#[tokio::test]
async fn one_that_is_replaced_is_not_touched_by_who_used_the_one_before() {
    let (regions, budget) = (Regions::default(), Budget::new(1 << 20));
    regions.put(key(), region("u", host(&budget, 100), false), because(Reason::IoError));
    let before = regions.try_write("ml", &named("u"), "j").unwrap().unwrap();
    regions.put(key(), region("u", host(&budget, 50), false), because(Reason::RegionNotReady));
    assert_eq!(before.ended().await.reason, Reason::RegionNotReady);
    assert_eq!(before.complete(100, "xxh3:0".into()).unwrap_err().reason, Reason::RegionNotReady);
    let after = regions.try_write("ml", &named("u"), "j").unwrap().expect("free");
    drop(before);
    assert!(regions.try_write("ml", &named("u"), "j").unwrap().is_none(), "still written by the second");
    after.complete(50, "xxh3:1".into()).unwrap();
    assert_eq!(regions.shown(&key()).unwrap().content.unwrap().bytes, 50);
}

#[tokio::test]
async fn who_waits_to_read_is_woken_and_does_not_wait_for_ever() {
    let (regions, budget) = (Regions::default(), Budget::new(1 << 20));
    regions.put(key(), region("u", host(&budget, 100), false), because(Reason::IoError));
    let writing = regions.try_write("ml", &named("u"), "j").unwrap().unwrap();
    let memory = named("u");
    let short = regions.read("ml", &memory, "k", Duration::from_millis(10)).await;
    assert_eq!(short.unwrap_err().reason, Reason::RegionNotReady);
    writing.complete(9, "xxh3:0".into()).unwrap();
    let (read, ()) =
        tokio::join!(regions.read("ml", &memory, "k", Duration::from_secs(30)), async { drop(writing) });
    assert_eq!(read.unwrap().bytes, 9);
}

fn offer(kind: OperationKind) -> Memory {
    let metadata = AgentMetadata {
        agent: "worker".into(),
        connections: vec![Connection { backend: "UCX".into(), address: vec![7] }],
        sections: vec![MemorySection {
            backend: "UCX".into(),
            kind: MemoryKind::Dram,
            regions: vec![nixl_connect::Region { address: 0x1000, length: 4096, device: 0, key: vec![1] }],
        }],
    };
    let metadata = encode_agent_metadata(&metadata.to_bytes(), Encoding::Base64).unwrap();
    let descriptors =
        [100, 28].map(|size| SerializedDescriptor { device: Device::Cpu, ptr: 0x1000 + size, size });
    let offered = RdmaMetadata::new(descriptors.to_vec(), metadata, "key".into(), kind).unwrap();
    Memory::External(Arc::new(Offer::parse(&offered.to_json(), None).unwrap()))
}

#[test]
fn an_offer_of_a_workload_serves_one_in_the_role_that_it_has() {
    let regions = Regions::default();
    let read = || regions.try_read("ml", &named("u"), "j");
    regions.put(key(), region("u", offer(OperationKind::Write), true), because(Reason::IoError));
    assert_eq!(refused(read()), Reason::RegionNotReady, "it is offered to be written");
    assert_eq!(regions.shown(&key()).unwrap().bytes, 128);
    assert!(regions.try_write("ml", &named("u"), "j").unwrap().is_some());
    regions.put(key(), region("u", offer(OperationKind::Read), true), because(Reason::IoError));
    assert_eq!(refused(regions.try_write("ml", &named("u"), "j")), Reason::RegionNotReady);
    let reading = read().unwrap().expect("free");
    assert_eq!(reading.bytes, 128);
    assert!(read().unwrap().is_none(), "one reader");
    regions.retire(&key(), "u");
    assert_eq!(refused(read()), Reason::RegionNotReady, "it has served");
    drop(reading);
    regions.retire(&key(), "u");
    assert!(regions.shown(&key()).is_none());
}
