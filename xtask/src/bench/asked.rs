//! A process that is asked line by line: what it starts lives with it, and it ends with its input.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::owned::Owned;
use crate::interrupt;
use crate::progress::Step;

/// Longer than any answer takes: a burst of thousands of jobs has many minutes.
const LONGEST: Duration = Duration::from_secs(900);

pub struct Asked {
    process: Owned,
    questions: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl Asked {
    /// Starts it; returns when it says that it is ready. `what` is what that takes.
    pub fn start(what: &str, mut command: Command) -> Result<Self> {
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
        let asked = Self { process, questions, answers };
        let answer = asked.answer()?;
        ensure!(answer == "ready", "the asked process said {answer:?}");
        step.done("ready");
        Ok(asked)
    }

    /// Has it do one thing; gives the time that this took, and what it has to say about it.
    pub fn ask(&mut self, line: &str) -> Result<(Duration, Vec<String>)> {
        let questions = self.questions.as_mut().context("no pipe")?;
        writeln!(questions, "{line}").context("the asked process has ended")?;
        let answer = self.answer()?;
        took(&answer).with_context(|| format!("{line:?} was answered by {answer:?}"))
    }

    /// The same where the words are `NAME=NUMBER`.
    pub fn ask_numbers(&mut self, line: &str) -> Result<(Duration, Numbers)> {
        let (took, words) = self.ask(line)?;
        Ok((took, Numbers(words)))
    }

    fn answer(&self) -> Result<String> {
        let deadline = Instant::now() + LONGEST;
        while Instant::now() < deadline {
            interrupt::check()?;
            match self.answers.recv_timeout(Duration::from_millis(300)) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("the asked process has ended; its error is above")
                }
            }
        }
        bail!("no answer in {LONGEST:?}")
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // The end of its input ends it, and it what it started. If it is killed instead, the kernel does that.
        drop(self.questions.take());
        let _ = self.process.has_ended(Duration::from_secs(20));
    }
}

/// Words `NAME=NUMBER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbers(Vec<String>);

impl Numbers {
    pub fn get(&self, name: &str) -> Result<f64> {
        let number = self.0.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        number.and_then(|text| text.parse().ok()).with_context(|| format!("no {name} in {:?}", self.0))
    }
}

/// `took NANOSECONDS WORD…`
fn took(answer: &str) -> Option<(Duration, Vec<String>)> {
    let mut words = answer.strip_prefix("took ")?.split_whitespace();
    let took = Duration::from_nanos(words.next()?.parse().ok()?);
    Some((took, words.map(str::to_owned).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_time_and_words() {
        assert_eq!(took("took 5"), Some((Duration::from_nanos(5), vec![])));
        assert_eq!(took("took 5 Chain").unwrap().1, ["Chain"]);
        assert_eq!((took("ready"), took("took Chain")), (None, None));
        let numbers = Numbers(took("took 5 writes=9 rss=1024").unwrap().1);
        assert_eq!((numbers.get("rss").unwrap(), numbers.get("writes").unwrap()), (1024.0, 9.0));
        assert!(numbers.get("events").is_err());
    }

    #[test]
    fn a_process_is_asked_and_ends_with_its_input() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo ready; while read line; do echo took 7 $line; done"]);
        let mut asked = Asked::start("a shell", shell).unwrap();
        assert_eq!(
            asked.ask("one two").unwrap(),
            (Duration::from_nanos(7), vec!["one".into(), "two".into()])
        );
        let id = asked.process.child.id();
        drop(asked);
        assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
        assert!(Asked::start("nothing", Command::new("true")).is_err());
    }
}
