//! Jobs that go on being applied while something happens. None may be lost, and none may end with other bytes than its source.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use devcluster::Kubectl;
use serde_json::Value;

use super::ask::{SOON, apply, get, items, until};
use super::work::{ended, slow_job, volume};
use crate::cluster::node;
use crate::cluster::record::Place;
use crate::demo::compare::same;
use crate::demo::dataset;
use crate::demo::jobs::Key;
use crate::progress::Step;

/// More than an agent has slots for.
const AT_FIRST: usize = 6;
/// Then one after each of these.
const PAUSE: Duration = Duration::from_secs(4);
/// What a disturbance that does not end may cost.
const MOST: usize = 80;
/// Each takes 8 s.
const BYTES: u64 = 4 << 20;
pub const SPACE: &str = "default";
pub const FILE: &str = "under-load";

#[derive(Debug)]
pub struct Load<'a> {
    pub place: &'a Place,
    pub kubectl: &'a Kubectl,
    pub nodes: usize,
    /// Part of the jobs' names.
    pub label: &'a str,
}

impl Load<'_> {
    /// Does `disturb` while bytes move, and returns when all jobs are Complete and their files compared.
    pub fn during(&self, what: &str, disturb: impl FnOnce() -> Result<()>) -> Result<()> {
        let source = volume(self.place, &node::name(0));
        if !source.join(FILE).exists() {
            dataset::write_files(&source, [(FILE.to_owned(), BYTES)])?;
        }
        let mut step = Step::start(format!("{what} while jobs run"));
        self.apply(0..AT_FIRST)?;
        until(SOON, || self.bytes_move())?;
        let (over, is_over) = channel::<()>();
        let (disturbed, count) = thread::scope(|scope| {
            let applying = scope.spawn(move || {
                let mut count = AT_FIRST;
                while count < MOST && is_over.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                    self.apply(count..count + 1)?;
                    count += 1;
                }
                Ok(count)
            });
            let disturbed = disturb();
            drop(over);
            (disturbed, applying.join().unwrap_or_else(|_| Err(anyhow!("applying panicked"))))
        });
        disturbed?;
        let count = count?;
        for at in 0..count {
            let key: Key = (SPACE.to_owned(), self.name(at));
            ended(self.kubectl, &key, &mut step)?;
            same(&source.join(FILE), &volume(self.place, &self.receiver(at)).join(&key.1))?;
        }
        step.done(&format!("{count} jobs complete, none lost, none wrong"));
        Ok(())
    }

    fn name(&self, at: usize) -> String {
        format!("load-{}-{at}", self.label)
    }

    /// All nodes but the first, in turn.
    fn receiver(&self, at: usize) -> String {
        node::name(1 + at % (self.nodes - 1))
    }

    fn apply(&self, numbers: std::ops::Range<usize>) -> Result<()> {
        let source = node::name(0);
        let job = |at: usize| {
            slow_job(&self.name(at), SPACE, (&source, "data", FILE), (&self.receiver(at), "data"))
        };
        apply(self.kubectl, &numbers.map(job).collect::<Vec<_>>())
    }

    fn bytes_move(&self) -> Result<()> {
        let jobs = get(self.kubectl, &["--namespace", SPACE, "transferjobs"])?;
        let start = self.name(0);
        let start = start.trim_end_matches('0');
        let ours =
            |job: &&Value| job["metadata"]["name"].as_str().is_some_and(|name| name.starts_with(start));
        let moved =
            items(&jobs).filter(ours).any(|job| job["status"]["progress"]["bytesDone"].as_i64() > Some(0));
        ensure!(moved, "nothing has arrived yet");
        Ok(())
    }
}
