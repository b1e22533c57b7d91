//! Which endpoints stay open, and so keep the session's thread awake.

use std::sync::Mutex;

use super::*;
use crate::metadata::OperationKind;

/// An operation: over when it has ended and its memory is released.
#[derive(Default)]
struct FakeOperation(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    ended: bool,
    released: bool,
}

impl FakeOperation {
    fn see(&self, ended: bool, released: bool) {
        let mut seen = self.0.lock().unwrap();
        seen.ended |= ended;
        seen.released |= released;
    }
}

impl Endpoint for FakeOperation {
    fn is_over(&self) -> bool {
        let seen = self.0.lock().unwrap();
        seen.ended && seen.released
    }

    fn notified(&self, peer: &str, _message: &[u8]) -> Claim {
        self.see(true, peer == "the right one");
        Claim::Taken
    }

    fn transferred(&self, _token: u64) {
        self.see(true, true);
    }

    fn refused(&self, _token: u64, _reason: &str) {
        self.see(true, true);
    }

    fn failed(&self, _token: u64) {
        self.see(false, true);
    }

    fn stuck(&self, _token: u64, _reason: &str) {
        self.see(true, true);
    }

    fn lost(&self, _peer: &str, _reason: &str) {
        self.see(true, false);
    }

    fn tick(&self, _now: Instant) {}

    fn closed(&self) {}
}

const ID: EndpointId = EndpointId(1);

fn one() -> Endpoints {
    let mut endpoints = Endpoints::default();
    endpoints.open_deaf(ID, Arc::new(FakeOperation::default()));
    endpoints
}

fn transfer() -> Transfer {
    Transfer {
        endpoint: ID,
        token: 0,
        kind: OperationKind::Read,
        peer: "peer".into(),
        local: Vec::new(),
        remote: Vec::new(),
        message: None,
        in_flight: Vec::new(),
    }
}

#[test]
fn what_is_over_is_closed_although_nobody_dropped_it() {
    let ends: [fn(&mut Endpoints); 3] = [
        |endpoints| endpoints.transferred(&transfer()),
        |endpoints| endpoints.refused(&transfer(), "no"),
        |endpoints| endpoints.stuck(ID, 0, "no"),
    ];
    for end in ends {
        let mut endpoints = one();
        end(&mut endpoints);
        assert!(endpoints.is_empty());
        // Its drop comes later.
        endpoints.close(ID);
    }
}

#[test]
fn what_is_lost_in_flight_stays_open_until_its_transfer_has_ended() {
    let mut endpoints = one();
    endpoints.lost("peer", "gone");
    assert_eq!(endpoints.len(), 1);
    endpoints.failed(&transfer());
    assert!(endpoints.is_empty());
    let mut endpoints = one();
    endpoints.failed(&transfer());
    assert_eq!(endpoints.len(), 1);
    endpoints.lost("peer", "gone");
    assert!(endpoints.is_empty());
}

#[test]
fn a_key_is_nobodys_once_its_operation_is_over() {
    let open = || {
        let mut endpoints = Endpoints::default();
        assert!(endpoints.open_with_key(ID, Arc::new(FakeOperation::default()), b"key".to_vec()));
        endpoints
    };
    let mut endpoints = open();
    assert_eq!(endpoints.notified("the right one", b"another"), Claim::Foreign);
    assert_eq!(endpoints.notified("the right one", b"key"), Claim::Taken);
    assert!(endpoints.is_empty());
    assert_eq!(endpoints.notified("the right one", b"key"), Claim::Foreign);
    // A peer may still use the memory of one that failed.
    let mut endpoints = open();
    assert_eq!(endpoints.notified("a wrong one", b"key"), Claim::Taken);
    assert_eq!(endpoints.len(), 1);
}
