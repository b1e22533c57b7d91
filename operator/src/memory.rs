//! What the operator has seen of one job and when: nothing here is needed to go on right after a restart, it only paces
//! writes, shows rates and finds hops that stand still. Pure.

use std::collections::HashMap;

use jiff::Timestamp;
use nixl_transfer_crds::task::TransferTask;

/// A rate is taken over at least this long, or it would jump with every report.
const RATE_WINDOW_MILLISECONDS: i64 = 900;

/// Observations about one job.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// When the status was last written by this operator.
    pub last_write: Option<Timestamp>,
    /// Bytes, files and signs of work of each task, by name, and since when they have not changed. Files may be empty, or
    /// arrive by being found there already.
    still: HashMap<String, ((i64, i64, i64), Timestamp)>,
    /// Hops (destination, node) that waited for a slot when the job was last planned.
    queued: Vec<(String, String)>,
    /// Until when a hop has waited for a slot: that is no waiting for something missing.
    queued_until: HashMap<(String, String), Timestamp>,
    /// Last sample of all bytes of the run.
    sample: Option<(i64, Timestamp)>,
    /// Bytes per second between the last two samples.
    rate: i64,
    run: i64,
}

impl Memory {
    /// Takes in the tasks as they are now. Call before each plan.
    pub fn observe(&mut self, tasks: &[&TransferTask], run: i64, now: Timestamp) {
        if run != self.run {
            *self = Memory { last_write: self.last_write, run, ..Memory::default() };
        }
        for hop in &self.queued {
            self.queued_until.insert(hop.clone(), now);
        }
        let mut sum = 0;
        let current = || tasks.iter().filter(|task| task.spec.run == run);
        for task in current() {
            let name = task.metadata.name.clone().unwrap_or_default();
            let target = task.status.as_ref().and_then(|status| status.target.as_ref());
            let bytes = target.and_then(|half| half.bytes_done).unwrap_or(0);
            sum += bytes;
            let files = target.and_then(|half| half.files_done).unwrap_or(0);
            let done = (bytes, files, target.and_then(|half| half.signs).unwrap_or(0));
            let entry = self.still.entry(name).or_insert((done, now));
            if entry.0 != done {
                *entry = (done, now);
            }
        }
        self.still.retain(|name, _| current().any(|task| task.metadata.name.as_deref() == Some(name)));
        match self.sample {
            None => self.sample = Some((sum, now)),
            Some((before, _)) if sum < before => self.sample = Some((sum, now)),
            Some((before, at)) if sum > before => {
                let millis = now.duration_since(at).as_millis();
                if let Ok(millis) = i64::try_from(millis)
                    && millis >= RATE_WINDOW_MILLISECONDS
                {
                    self.rate = (sum - before).saturating_mul(1000) / millis;
                    self.sample = Some((sum, now));
                }
            }
            Some(_) => {}
        }
    }

    /// Bytes per second by the last reports.
    pub fn rate(&self) -> i64 {
        self.rate
    }

    /// Since when the task has moved no byte and finished no file, as far as this operator has seen.
    pub fn still_since(&self, task: &str) -> Option<Timestamp> {
        self.still.get(task).map(|(_, since)| *since)
    }

    /// Notes which hops wait for a slot from now on.
    pub fn set_queued(&mut self, hops: Vec<(String, String)>) {
        self.queued = hops;
    }

    /// Until when the hop was seen waiting for a slot.
    pub fn queued_until(&self, destination: &str, node: &str) -> Option<Timestamp> {
        self.queued_until.get(&(destination.to_string(), node.to_string())).copied()
    }
}
