//! The tasks of the world, by job. No I/O.

use std::borrow::Cow;

use nixl_transfer_crds::TransferTask;

use super::{World, key, uid, version};

/// Takes away what nobody here reads; and capabilities, for which the operator has no use and which it must not be able
/// to show.
pub fn lighten_task(task: &mut TransferTask) {
    task.metadata.managed_fields = None;
    if let Some(status) = &mut task.status {
        if let Some(source) = &mut status.source {
            source.agent_metadata = None;
        }
        if let Some(target) = &mut status.target {
            target.rdma_metadata = None;
        }
    }
}

impl World {
    pub(super) fn put_task(&mut self, mut task: TransferTask) {
        let (key, uid) = (key(&task.metadata), uid(&task.metadata));
        let older = |known: u64| known >= version(&task.metadata);
        if self.tombstones.contains(&uid) || self.tasks.version(&key).is_some_and(older) {
            return;
        }
        lighten_task(&mut task);
        let job = task.spec.job_ref.uid.clone();
        self.freed.extend(self.slots.update(&key, &task));
        self.tasks_of.entry(job.clone()).or_default().insert(key.clone());
        self.tasks.insert(key, task);
        self.dirty.insert(job);
    }

    pub(super) fn remove_task(&mut self, key: &str, uid: &str) {
        self.tombstones.bury(uid);
        if self.tasks.uid(key).is_some_and(|known| known != uid) {
            return; // another task by now
        }
        let Some(task) = self.tasks.remove(key) else { return };
        self.freed.extend(self.slots.remove(key, &task));
        let job = task.spec.job_ref.uid;
        if let Some(keys) = self.tasks_of.get_mut(&job) {
            keys.remove(key);
            if keys.is_empty() {
                self.tasks_of.remove(&job);
            }
        }
        self.dirty.insert(job);
    }

    /// The tasks of a job, of any run.
    pub fn tasks_of(&self, job: &str) -> Vec<Cow<'_, TransferTask>> {
        self.tasks_of.get(job).into_iter().flatten().filter_map(|key| self.tasks.get(key)).collect()
    }
}
