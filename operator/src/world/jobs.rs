//! The jobs of the world: which are under way, how many are in which phase, and which rest. No I/O.

use std::{borrow::Cow, collections::HashSet};

use nixl_transfer_crds::{TransferJob, job::status::Phase};

use super::{World, uid, version};
use crate::plan::{expire, run};

/// Takes away what nobody here reads, which is most of an object's size.
pub fn lighten_job(job: &mut TransferJob) {
    job.metadata.managed_fields = None;
    if let Some(annotations) = &mut job.metadata.annotations {
        annotations.retain(|key, _| expire::reads_annotation(key));
    }
}

/// What a job is counted by.
fn phase_of(job: &TransferJob) -> (String, Phase) {
    let phase = job.status.as_ref().and_then(|status| status.phase).unwrap_or(Phase::Pending);
    (job.metadata.namespace.clone().unwrap_or_default(), phase)
}

impl World {
    pub(super) fn put_job(&mut self, mut job: TransferJob) {
        let uid = uid(&job.metadata);
        let older = |known: u64| known >= version(&job.metadata);
        // Whose a job is never changes.
        if !job.spec.is_ours() {
            return;
        }
        if self.tombstones.contains(&uid) || self.jobs.version(&uid).is_some_and(older) {
            return;
        }
        lighten_job(&mut job);
        let rests = job.status.as_ref().is_some_and(run::is_at_rest);
        let note =
            |set: &mut HashSet<String>, holds| if holds { set.insert(uid.clone()) } else { set.remove(&uid) };
        note(&mut self.open, !rests);
        note(&mut self.following, rests && job.spec.follow);
        let stays = job.metadata.deletion_timestamp.is_none();
        self.note_labeller(&job, job.spec.label_nodes && stays);
        self.dirty.insert(uid.clone());
        self.count_out(&uid);
        *self.phases.entry(phase_of(&job)).or_default() += 1;
        self.jobs.insert(uid, job);
    }

    /// Takes the job, as it is known, out of the counts.
    fn count_out(&mut self, uid: &str) {
        let Some(phase) = self.jobs.get(uid).map(|job| phase_of(&job)) else { return };
        if let Some(count) = self.phases.get_mut(&phase) {
            *count -= 1;
            if *count == 0 {
                self.phases.remove(&phase);
            }
        }
    }

    pub(super) fn remove_job(&mut self, uid: &str) {
        self.tombstones.bury(uid);
        self.count_out(uid);
        if let Some(job) = self.jobs.remove(uid) {
            self.note_labeller(&job, false);
        }
        self.open.remove(uid);
        self.following.remove(uid);
        self.dirty.insert(uid.into());
    }

    /// The job with this UID.
    pub fn job(&self, uid: &str) -> Option<Cow<'_, TransferJob>> {
        self.jobs.get(uid)
    }

    /// How many jobs there are.
    pub fn job_count(&self) -> usize {
        self.jobs.len()
    }

    /// Whether there is a job with this UID.
    pub fn has_job(&self, uid: &str) -> bool {
        self.jobs.contains(uid)
    }

    /// How many jobs there are, by namespace and phase.
    pub fn phases(&self) -> impl Iterator<Item = (&str, Phase, usize)> {
        self.phases.iter().map(|((namespace, phase), count)| (namespace.as_str(), *phase, *count))
    }

    /// Nothing is to be done for the job: unless it is under way, it and its tasks are packed until one of them changes. Says
    /// whether they were.
    pub fn rest(&mut self, job: &str) -> bool {
        let over = !self.open.contains(job);
        if over {
            self.jobs.pack(job);
            self.tasks_of.get(job).into_iter().flatten().for_each(|key| self.tasks.pack(key));
        }
        over
    }

    /// How many jobs are under way.
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// Jobs that follow what there is, and have nothing to do now.
    pub(super) fn following_jobs(&self) -> impl Iterator<Item = Cow<'_, TransferJob>> {
        self.following.iter().filter_map(|uid| self.jobs.get(uid))
    }

    /// Jobs that are under way; none of them is packed.
    pub fn open_jobs(&self) -> impl Iterator<Item = &TransferJob> {
        self.open.iter().filter_map(|uid| self.jobs.whole(uid))
    }
}
