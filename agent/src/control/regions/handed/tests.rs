use std::{sync::Arc, time::Duration};

use nixl_transfer_client::shared_memory;
use nixl_transfer_crds::MemoryRegion;
use rustix::fs::{SealFlags, fcntl_add_seals};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::{region::HostMemory, workload::Pod};

const BYTES: u64 = 8192;

/// What the keeper has, and one region.
struct Keeper {
    handed: Handed,
    known: HashMap<RegionKey, Known>,
    regions: Regions,
}

/// A connection as the session has it.
struct Connection {
    holder: Holder,
    events: mpsc::Receiver<FromAgent>,
}

fn connection(number: u64) -> Connection {
    let pod = Pod { namespace: "ml".into(), name: format!("pod-{number}"), uid: number.to_string() };
    let (holder, events, _) = Holder::new(number, pod, 8);
    Connection { holder, events }
}

fn memory(only_read: bool) -> Memory {
    // A sealed memfd takes no more seals, so one is made that has them all.
    let memory = if only_read {
        let flags = rustix::fs::MemfdFlags::ALLOW_SEALING;
        let memory = rustix::fs::memfd_create("test", flags).unwrap();
        rustix::io::write(&memory, &[0; BYTES as usize]).unwrap();
        fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE).unwrap();
        memory
    } else {
        shared_memory(BYTES).unwrap().into()
    };
    Memory::Host(Arc::new(HostMemory::adopt(memory, BYTES).unwrap().0))
}

fn key() -> RegionKey {
    ("ml".into(), "kv".into())
}

impl Keeper {
    fn new() -> Self {
        let (known, regions) = (HashMap::new(), Regions::default());
        Self { handed: Handed::default(), known, regions }
    }

    /// The object is seen.
    fn see(&mut self, uid: &str, access: &str) {
        let object: MemoryRegion = serde_json::from_value(json!({
            "apiVersion": "nixl-transfer.io/v1alpha1", "kind": "MemoryRegion",
            "metadata": {"name": "kv", "namespace": "ml", "uid": uid},
            "spec": {"node": {"name": "n"}, "access": access, "workload": {}},
        }))
        .unwrap();
        Known::see(&mut self.known, &self.regions, object);
        self.handed.give_back_unfit(&self.known, &self.regions);
    }

    fn offer(&mut self, by: &Connection, memory: Memory) -> Result<(), Refusal> {
        let (answer, mut answered) = oneshot::channel();
        let request = Request::Offer { holder: by.holder.clone(), region: "kv".into(), memory, answer };
        self.handed.serve(request, &self.known, &self.regions);
        answered.try_recv().unwrap()
    }

    fn holds(&self) -> Option<String> {
        Some(self.regions.shown(&key())?.pod?.name)
    }
}

#[test]
fn a_region_made_again_is_another_one_and_its_holder_hears_of_it() {
    let mut keeper = Keeper::new();
    let mut first = connection(1);
    assert_eq!(keeper.offer(&first, memory(false)).unwrap_err().reason, "RegionNotFound");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _runtime = runtime.enter();
    keeper.see("one", "ReadWrite");
    keeper.offer(&first, memory(false)).unwrap();
    assert_eq!(keeper.offer(&connection(2), memory(false)).unwrap_err().reason, "Taken");
    assert_eq!(keeper.offer(&first, memory(false)).unwrap_err().reason, "Taken");
    // Deleted and made again, between two looks.
    keeper.see("two", "ReadWrite");
    let told = first.events.try_recv().unwrap();
    assert!(matches!(&told, FromAgent::Ended { reason, .. } if reason == "RegionNotFound"), "{told:?}");
    assert_eq!(keeper.holds(), None);
    keeper.offer(&first, memory(false)).unwrap();
    assert_eq!(keeper.holds().as_deref(), Some("pod-1"));
    assert!(first.events.try_recv().is_err(), "told once");
}

#[test]
fn memory_that_cannot_be_written_is_no_region_that_may_be() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _runtime = runtime.enter();
    let (mut keeper, mut pod) = (Keeper::new(), connection(1));
    keeper.see("one", "ReadWrite");
    let why = keeper.offer(&pod, memory(true)).unwrap_err();
    assert!(why.reason == "MemoryUnfit" && why.message.contains("sealed against writing"), "{why:?}");
    keeper.see("one", "Readable");
    keeper.offer(&pod, memory(true)).unwrap();
    // What changes while it is held counts too.
    keeper.see("one", "Writable");
    let told = pod.events.try_recv().unwrap();
    assert!(matches!(&told, FromAgent::Ended { message, .. } if message.contains("spec.access")), "{told:?}");
    assert_eq!(keeper.holds(), None);
}

#[tokio::test]
async fn a_connection_that_ends_without_a_word_holds_nothing() {
    let mut keeper = Keeper::new();
    keeper.see("one", "ReadWrite");
    let first = connection(1);
    keeper.offer(&first, memory(false)).unwrap();
    // As when its task has panicked: nothing is said.
    let Connection { holder, events } = first;
    drop(events);
    let closed = tokio::time::timeout(Duration::from_secs(5), keeper.handed.closed()).await.unwrap();
    assert_eq!(closed, Some(1));
    keeper.handed.let_go_of(1, &keeper.regions);
    assert_eq!(keeper.holds(), None);
    drop(holder);
    let second = connection(2);
    keeper.offer(&second, memory(false)).unwrap();
    assert_eq!(keeper.holds().as_deref(), Some("pod-2"));
}

#[tokio::test]
async fn memory_whose_pod_does_not_wait_for_the_answer_is_given_back() {
    let mut keeper = Keeper::new();
    keeper.see("one", "ReadWrite");
    let late = connection(1);
    let (answer, answered) = oneshot::channel();
    drop(answered);
    let (holder, region) = (late.holder.clone(), "kv".to_owned());
    let request = Request::Offer { holder, region, memory: memory(false), answer };
    keeper.handed.serve(request, &keeper.known, &keeper.regions);
    assert_eq!(keeper.holds(), None);
    keeper.offer(&late, memory(false)).unwrap();
}
