//! Whose the labels of nodes are that say where data is. A label that is nobody's is planned under its key, as jobs are under
//! their UIDs. No I/O.

use std::collections::BTreeSet;

use nixl_transfer_crds::{TransferJob, names::NODE_LABEL_PREFIX};

use super::{World, uid};
use crate::{cluster::NodeView, plan::labels};

/// Whether what is planned is a label, and no job.
pub fn is_label(unit: &str) -> bool {
    unit.starts_with(NODE_LABEL_PREFIX)
}

/// The labels of a node that say where data is.
fn keys(view: &NodeView) -> impl Iterator<Item = (&String, &String)> {
    let from = NODE_LABEL_PREFIX.to_owned();
    view.labels.range(from..).take_while(|(key, _)| is_label(key))
}

impl World {
    /// Whether a job wants nodes to have the label.
    pub fn is_wanted(&self, label: &str) -> bool {
        self.labellers.contains_key(label)
    }

    /// Plans whose label it is, or else the label itself.
    fn touch_label(&mut self, key: &str) {
        let unit = self.labellers.get(key).map_or(key, String::as_str).to_owned();
        self.dirty.insert(unit);
    }

    /// A node has got or lost labels.
    pub(super) fn labels_changed(&mut self, before: &NodeView, after: &NodeView) {
        let (before, after): (BTreeSet<_>, BTreeSet<_>) = (keys(before).collect(), keys(after).collect());
        before.symmetric_difference(&after).for_each(|(key, _)| self.touch_label(key));
    }

    /// Counts all labels as changed.
    pub(super) fn touch_labels(&mut self) {
        let all = self.cluster.nodes.values().flat_map(keys).map(|(key, _)| key.clone());
        all.collect::<BTreeSet<_>>().iter().for_each(|key| self.touch_label(key));
    }

    /// Notes whether the job labels nodes.
    pub(super) fn note_labeller(&mut self, job: &TransferJob, is: bool) {
        let (key, uid) = (labels::key(&job.metadata), uid(&job.metadata));
        if is {
            self.labellers.insert(key, uid);
        } else if self.labellers.get(&key) == Some(&uid) {
            // Another job of that name may want it by now.
            self.labellers.remove(&key);
            self.dirty.insert(key);
        }
    }
}
