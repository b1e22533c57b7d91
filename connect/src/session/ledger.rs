//! The transfers that NIXL has, each with its request and the holds on its memory: those in flight until they end, and
//! those of which nobody can say when they end, for good. Pure; the request may be of any type.

use std::mem::ManuallyDrop;

use super::command::{RegionId, Transfer};

/// What became of a transfer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// NIXL's C API has one error for everything that can happen to a peer.
    PeerFailed(String),
}

struct Entry<R> {
    transfer: Box<Transfer>,
    request: R,
}

impl<R> Entry<R> {
    /// NIXL is done with it: the request goes first, which is NIXL's own hold on the memory, and the memory is free before
    /// anybody hears of the end.
    fn close(self) -> Box<Transfer> {
        let Self { mut transfer, request } = self;
        drop(request);
        transfer.in_flight.clear();
        transfer
    }
}

pub(super) struct Ledger<R> {
    flying: Vec<Entry<R>>,
    /// Never dropped, not even with the ledger.
    stuck: Vec<ManuallyDrop<Entry<R>>>,
}

impl<R> Ledger<R> {
    pub(super) fn new() -> Self {
        Self { flying: Vec::new(), stuck: Vec::new() }
    }

    /// Its end is awaited from now on.
    pub(super) fn fly(&mut self, transfer: Box<Transfer>, request: R) {
        self.flying.push(Entry { transfer, request });
    }

    /// NIXL was done with it at once.
    pub(super) fn close(transfer: Box<Transfer>, request: R) -> Box<Transfer> {
        Entry { transfer, request }.close()
    }

    /// NIXL may have begun it, and will never tell its end: request and memory stay as they are until the process ends.
    pub(super) fn keep(&mut self, transfer: Box<Transfer>, request: R) {
        self.stuck.push(ManuallyDrop::new(Entry { transfer, request }));
    }

    /// Asks for the outcome of each transfer in flight, and gives those that ended.
    pub(super) fn poll(
        &mut self,
        mut ask: impl FnMut(&R) -> Option<Outcome>,
        mut ended: impl FnMut(&Transfer, Outcome),
    ) {
        let mut at = 0;
        while let Some(entry) = self.flying.get(at) {
            match ask(&entry.request) {
                None => at += 1,
                Some(outcome) => ended(&self.flying.remove(at).close(), outcome),
            }
        }
    }

    /// Transfers whose end is awaited.
    pub(super) fn in_flight(&self) -> usize {
        self.flying.len()
    }

    /// Whether NIXL has any transfer, in flight or stuck.
    pub(super) fn is_empty(&self) -> bool {
        self.flying.is_empty() && self.stuck.is_empty()
    }

    /// Whether NIXL may still use this memory.
    pub(super) fn uses(&self, region: RegionId) -> bool {
        let names = |entry: &Entry<R>| entry.transfer.local.iter().any(|local| local.region == region);
        self.flying.iter().any(names) || self.stuck.iter().any(|entry| names(entry))
    }
}

#[cfg(test)]
mod tests;
