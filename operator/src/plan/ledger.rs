//! Transfer slots while a plan is made: those in use, and those that the plan has taken already. Pure.

use std::collections::BTreeMap;

use super::Input;

/// Who may still take a slot.
pub struct Ledger<'a> {
    input: &'a Input<'a>,
    taken: BTreeMap<String, u32>,
}

impl<'a> Ledger<'a> {
    /// Nothing is taken by the plan yet.
    pub fn new(input: &'a Input<'a>) -> Self {
        Self { input, taken: BTreeMap::new() }
    }

    fn total(&self, node: &str) -> u32 {
        let view = self.input.cluster.nodes.get(node);
        view.and_then(|view| view.agent.as_ref()).map_or(0, |agent| agent.slots)
    }

    /// Slots of the node that are in use, or taken by this plan.
    pub fn used(&self, node: &str) -> u32 {
        self.input.slots.used(node).saturating_add(self.taken.get(node).copied().unwrap_or(0))
    }

    fn free(&self, node: &str) -> u32 {
        self.total(node).saturating_sub(self.used(node))
    }

    /// Whether one more hop may have an end at the node.
    pub fn has_one(&self, node: &str) -> bool {
        self.free(node) > 0
    }

    /// Whether the node can receive and send at once, as a relay or within itself: that needs two slots, or the only one
    /// there is. A node that is configured to do one thing at a time could else never take part.
    pub fn has_both(&self, node: &str) -> bool {
        self.free(node) >= self.total(node).clamp(1, 2)
    }

    /// The node without a free slot for a hop between the two: the source first, so that a hop waits at one node at a
    /// time.
    pub fn full<'n>(&self, source: &'n str, target: &'n str) -> Option<&'n str> {
        if source == target {
            return (!self.has_both(source)).then_some(source);
        }
        [source, target].into_iter().find(|node| !self.has_one(node))
    }

    /// Takes a slot at both ends of a hop.
    pub fn take(&mut self, source: &str, target: &str) {
        for node in [source, target] {
            *self.taken.entry(node.into()).or_default() += 1;
        }
    }
}
