//! The cluster whose jobs are measured: a process of its own (`tests/examples/bench_jobs`) that is asked line by line.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::owned::Owned;
use super::program::{LONGEST, example};
use crate::interrupt;
use crate::progress::Step;

pub struct Jobs {
    process: Owned,
    questions: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl Jobs {
    /// Starts it with volumes `a` and `b` of `directory`; returns when it is ready.
    pub fn start(directory: &Path) -> Result<Self> {
        let step = Step::start("starting a control plane, the operator and two agents");
        let mut command = example("bench_jobs");
        command.arg(directory).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Owned::start(&mut command)?;
        let questions = process.child.stdin.take();
        let (sender, answers) = channel();
        if let Some(output) = process.child.stdout.take() {
            // Ends with the process.
            thread::spawn(move || {
                let lines = BufReader::new(output).lines().map_while(Result::ok);
                lines.take_while(|line| sender.send(line.clone()).is_ok()).for_each(drop);
            });
        }
        let jobs = Self { process, questions, answers };
        let answer = jobs.answer()?;
        ensure!(answer == "ready", "bench_jobs said {answer:?}");
        step.done("ready");
        Ok(jobs)
    }

    /// Has it do one thing, and gives the time that this took.
    pub fn ask(&mut self, line: &str) -> Result<Duration> {
        let questions = self.questions.as_mut().context("no pipe")?;
        writeln!(questions, "{line}").context("bench_jobs has ended")?;
        let answer = self.answer()?;
        let nanoseconds = answer.strip_prefix("took ").and_then(|number| number.parse().ok());
        nanoseconds.map(Duration::from_nanos).with_context(|| format!("bench_jobs said {answer:?}"))
    }

    fn answer(&self) -> Result<String> {
        let deadline = Instant::now() + LONGEST;
        while Instant::now() < deadline {
            interrupt::check()?;
            match self.answers.recv_timeout(Duration::from_millis(300)) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("bench_jobs has ended; its error is above"),
            }
        }
        bail!("bench_jobs gave no answer in {LONGEST:?}")
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        // The end of its input ends it, and it what it started. If it is killed instead, the kernel does that.
        drop(self.questions.take());
        let _ = self.process.has_ended(Duration::from_secs(20));
    }
}
