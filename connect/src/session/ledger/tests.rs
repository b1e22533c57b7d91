//! The order in which request, memory and endpoint learn of an end, and what is kept without one.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::*;
use crate::memory::{InFlight, Memory};
use crate::metadata::{OperationKind, SerializedDescriptor};
use crate::session::{Backing, EndpointId, Local};

const REGION: RegionId = RegionId(7);

/// Stands for NIXL's request: writes down when it is dropped, and whether the memory was still held then.
struct FakeRequest {
    memory: Arc<Memory>,
    events: Rc<RefCell<Vec<&'static str>>>,
}

impl Drop for FakeRequest {
    fn drop(&mut self) {
        let event = if self.memory.is_in_flight() { "released with its memory" } else { "released too late" };
        self.events.borrow_mut().push(event);
    }
}

struct Scene {
    memory: Arc<Memory>,
    events: Rc<RefCell<Vec<&'static str>>>,
    ledger: Ledger<FakeRequest>,
}

impl Scene {
    fn new() -> Self {
        let memory = Arc::new(Memory::zeroed(64).unwrap());
        Self { memory, events: Rc::default(), ledger: Ledger::new() }
    }

    fn request(&self) -> FakeRequest {
        FakeRequest { memory: Arc::clone(&self.memory), events: Rc::clone(&self.events) }
    }

    fn transfer(&self) -> Box<Transfer> {
        let range = |memory: SerializedDescriptor| Local { region: REGION, memory };
        Box::new(Transfer {
            endpoint: EndpointId(1),
            token: 1,
            kind: OperationKind::Write,
            peer: "peer".into(),
            local: vec![range(self.memory.range())],
            remote: vec![self.memory.range()],
            message: None,
            in_flight: vec![InFlight::new(Arc::clone(&self.memory))],
        })
    }

    fn poll(&mut self, mut outcome: impl FnMut() -> Option<Outcome>) -> Vec<Outcome> {
        let Self { ledger, memory, events } = self;
        let mut outcomes = Vec::new();
        ledger.poll(
            |_| outcome(),
            |transfer, outcome| {
                assert!(!memory.is_in_flight() && transfer.in_flight.is_empty(), "told before it is true");
                events.borrow_mut().push("told");
                outcomes.push(outcome);
            },
        );
        outcomes
    }

    fn events(&self) -> Vec<&'static str> {
        self.events.borrow().clone()
    }
}

#[test]
fn the_request_goes_before_the_memory_and_the_endpoint_hears_last() {
    for end in [|| Outcome::Done, || Outcome::PeerFailed("gone".to_owned())] {
        let mut scene = Scene::new();
        scene.ledger.fly(scene.transfer(), scene.request());
        assert_eq!(scene.poll(|| None), []);
        assert!(scene.memory.is_in_flight() && scene.ledger.uses(REGION));
        assert_eq!((scene.ledger.in_flight(), scene.events()), (1, vec![]));
        assert_eq!(scene.poll(|| Some(end())), [end()]);
        assert_eq!(scene.events(), ["released with its memory", "told"]);
        assert!(scene.ledger.is_empty() && !scene.ledger.uses(REGION));
    }
    let scene = Scene::new();
    let transfer = Ledger::close(scene.transfer(), scene.request());
    assert!(transfer.in_flight.is_empty() && !scene.memory.is_in_flight());
    assert_eq!(scene.events(), ["released with its memory"]);
}

#[test]
fn each_that_ends_is_told_once_and_the_others_go_on() {
    let mut scene = Scene::new();
    for _ in 0..4 {
        scene.ledger.fly(scene.transfer(), scene.request());
    }
    let mut count = 0;
    let mut outcomes = Vec::new();
    scene.ledger.poll(
        |_| {
            count += 1;
            (count % 2 == 1).then_some(Outcome::Done)
        },
        |_, outcome| outcomes.push(outcome),
    );
    assert_eq!((count, outcomes, scene.ledger.in_flight()), (4, vec![Outcome::Done, Outcome::Done], 2));
}

#[test]
fn what_is_stuck_is_kept_for_good_with_its_request_and_memory() {
    let mut scene = Scene::new();
    scene.ledger.keep(scene.transfer(), scene.request());
    // Nobody asks for it, and it is no end that anybody could wait for.
    assert_eq!(scene.poll(|| Some(Outcome::Done)), []);
    assert_eq!(scene.ledger.in_flight(), 0);
    assert!(!scene.ledger.is_empty() && scene.ledger.uses(REGION));
    let Scene { memory, events, ledger } = scene;
    drop(ledger);
    assert!(events.borrow().is_empty(), "{events:?}");
    assert!(memory.is_in_flight());
}
