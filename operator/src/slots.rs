//! Who holds the transfer slots of which node: every half of a task until it is terminal, and what was planned and is
//! not created yet. Pure; kept up to date by `world` and `control`.

use std::collections::{BTreeSet, HashMap};

use nixl_transfer_crds::task::{Side, SideState, TransferTask};

/// Slots in use, by node.
#[derive(Debug, Default)]
pub struct Slots {
    holders: HashMap<String, BTreeSet<(String, Side)>>,
    reserved: HashMap<String, u32>,
}

/// The halves of a task that still hold a slot, with their nodes.
fn held(task: &TransferTask) -> [(Side, &str, bool); 2] {
    let status = task.status.as_ref();
    let source = status.and_then(|status| status.source.as_ref()).map(|half| half.state);
    let target = status.and_then(|status| status.target.as_ref()).map(|half| half.state);
    let open = |state: Option<SideState>| state.is_none_or(|state| !state.is_terminal());
    [
        (Side::Source, task.spec.source.node_name.as_str(), open(source)),
        (Side::Target, task.spec.target.node_name.as_str(), open(target)),
    ]
}

impl Slots {
    /// How many slots of the node are taken.
    pub fn used(&self, node: &str) -> u32 {
        let holders = self.holders.get(node).map_or(0, BTreeSet::len);
        u32::try_from(holders)
            .unwrap_or(u32::MAX)
            .saturating_add(self.reserved.get(node).copied().unwrap_or(0))
    }

    /// Takes the task's present state into account; `key` is its namespace and name. Returns the nodes that got a
    /// slot free.
    pub fn update(&mut self, key: &str, task: &TransferTask) -> Vec<String> {
        let mut freed = Vec::new();
        for (side, node, open) in held(task) {
            if open {
                self.holders.entry(node.into()).or_default().insert((key.into(), side));
            } else if self.release(node, key, side) {
                freed.push(node.into());
            }
        }
        freed
    }

    /// Forgets a task that no longer exists. Returns the nodes that got a slot free.
    pub fn remove(&mut self, key: &str, task: &TransferTask) -> Vec<String> {
        let sides =
            [(Side::Source, &task.spec.source.node_name), (Side::Target, &task.spec.target.node_name)];
        sides
            .into_iter()
            .filter(|(side, node)| self.release(node, key, *side))
            .map(|(_, node)| node.clone())
            .collect()
    }

    fn release(&mut self, node: &str, key: &str, side: Side) -> bool {
        let Some(holders) = self.holders.get_mut(node) else { return false };
        let released = holders.remove(&(key.to_string(), side));
        if holders.is_empty() {
            self.holders.remove(node);
        }
        released
    }

    /// Keeps slots for tasks that are about to be created.
    pub fn reserve(&mut self, nodes: &[String]) {
        for node in nodes {
            *self.reserved.entry(node.clone()).or_default() += 1;
        }
    }

    /// Gives reserved slots back: the tasks exist now, or could not be created.
    pub fn unreserve(&mut self, nodes: &[String]) {
        for node in nodes {
            if let Some(count) = self.reserved.get_mut(node) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.reserved.remove(node);
                }
            }
        }
    }

    /// Keys of the tasks that hold a slot of the node.
    pub fn holders(&self, node: &str) -> impl Iterator<Item = &str> {
        self.holders.get(node).into_iter().flatten().map(|(key, _)| key.as_str())
    }
}
