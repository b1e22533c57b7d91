//! UIDs of objects that are gone for good, so that an answer to a write that comes late brings none of them back.
//! Bounded; pure.

use std::collections::{HashSet, VecDeque};

/// Answers are late by seconds, not by so many deletions.
const KEPT: usize = 8192;

/// The last deleted UIDs.
#[derive(Debug, Default)]
pub struct Tombstones {
    order: VecDeque<String>,
    set: HashSet<String>,
}

impl Tombstones {
    /// Remembers that the object is gone.
    pub fn bury(&mut self, uid: &str) {
        if self.set.insert(uid.into()) {
            self.order.push_back(uid.into());
        }
        while self.order.len() > KEPT {
            if let Some(oldest) = self.order.pop_front() {
                self.set.remove(&oldest);
            }
        }
    }

    /// Whether the object is known to be gone.
    pub fn contains(&self, uid: &str) -> bool {
        self.set.contains(uid)
    }
}
