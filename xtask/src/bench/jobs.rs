//! The cluster whose jobs are measured: a process of its own (`tests/examples/bench_jobs`) that is asked line by line.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::namespaces::{DEVICE, Namespaces};
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
    /// Starts it with nodes `a` and `b`, whose volumes are the directories of their names; returns when it is ready.
    pub fn start(directory: &Path) -> Result<Self> {
        let mut command = example("bench_jobs");
        command.arg(directory);
        Self::started("a control plane, the operator and two agents", command)
    }

    /// The same with a node `a`, `b`, … in each namespace, and the control plane in their hub.
    pub fn start_in(directory: &Path, spaces: &Namespaces) -> Result<Self> {
        let nodes: Vec<_> = spaces
            .nodes()
            .iter()
            .enumerate()
            .map(|(at, node)| {
                let address = spaces.control_address(at);
                json!({"name": node_name(at), "address": address, "enter": node.enter()})
            })
            .collect();
        let place = json!({"control": spaces.hub_address(), "device": DEVICE, "nodes": nodes});
        let mut command = example("bench_jobs");
        command.arg(directory).arg(place.to_string());
        let what = format!("a control plane, the operator and {} agents in namespaces", nodes.len());
        Self::started(&what, spaces.hub().inside(&command))
    }

    fn started(what: &str, mut command: Command) -> Result<Self> {
        let step = Step::start(format!("starting {what}"));
        let mut process = Owned::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
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
        Ok(self.ask_more(line)?.0)
    }

    /// The same with the words that it has to say about it.
    pub fn ask_more(&mut self, line: &str) -> Result<(Duration, Vec<String>)> {
        let questions = self.questions.as_mut().context("no pipe")?;
        writeln!(questions, "{line}").context("bench_jobs has ended")?;
        let answer = self.answer()?;
        took(&answer).with_context(|| format!("bench_jobs said {answer:?}"))
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

/// The name of a node by its number, the source is the first: also the name of its volume's directory.
pub fn node_name(at: usize) -> String {
    char::from(b'a' + u8::try_from(at).unwrap_or(u8::MAX - b'a')).to_string()
}

/// `took NANOSECONDS WORD…`
fn took(answer: &str) -> Option<(Duration, Vec<String>)> {
    let mut words = answer.strip_prefix("took ")?.split(' ');
    let took = Duration::from_nanos(words.next()?.parse().ok()?);
    Some((took, words.map(str::to_owned).collect()))
}

impl Drop for Jobs {
    fn drop(&mut self) {
        // The end of its input ends it, and it what it started. If it is killed instead, the kernel does that.
        drop(self.questions.take());
        let _ = self.process.has_ended(Duration::from_secs(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_time_and_words() {
        assert_eq!(took("took 5"), Some((Duration::from_nanos(5), vec![])));
        assert_eq!(took("took 5 Chain").unwrap().1, ["Chain"]);
        assert_eq!((took("ready"), took("took Chain")), (None, None));
        assert_eq!((node_name(0), node_name(8)), ("a".to_owned(), "i".to_owned()));
    }
}
