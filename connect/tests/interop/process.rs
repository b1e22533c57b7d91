//! One side of an operation as a process: started, talked to by lines, and always ended.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde_json::Value;

use crate::Outcome;

/// Generous: the machine may be busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);
/// Lines of standard error that are kept for the message of a failure.
const KEPT: usize = 30;

pub struct Process {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
    complaints: Arc<Mutex<VecDeque<String>>>,
}

impl Process {
    /// With `marker`, only what follows it in a line of standard output counts; without, every line does.
    pub fn start(name: &str, command: &mut Command, marker: Option<&'static str>) -> Outcome<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{name} cannot be started: {error}"))?;
        let (said, lines) = mpsc::channel();
        each_line(child.stdout.take().ok_or("no pipe")?, move |line| {
            let line = match marker {
                Some(marker) => line.split_once(marker).map(|(_, marked)| marked.to_owned()),
                None => Some(line),
            };
            // Nobody listens any more when the test is over.
            let _ = line.map(|line| said.send(line));
        });
        let complaints = Arc::new(Mutex::new(VecDeque::new()));
        let kept = Arc::clone(&complaints);
        each_line(child.stderr.take().ok_or("no pipe")?, move |line| {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.push_back(line);
            if kept.len() > KEPT {
                kept.pop_front();
            }
        });
        Ok(Self { name: name.to_owned(), input: child.stdin.take(), child, lines, complaints })
    }

    pub fn line(&mut self) -> Outcome<String> {
        let line = self.lines.recv_timeout(PATIENCE);
        line.map_err(|error| self.failure(&format!("said nothing more: {error}")))
    }

    pub fn json(&mut self) -> Outcome<Value> {
        let line = self.line()?;
        serde_json::from_str(&line).map_err(|error| self.failure(&format!("said {line:?}: {error}")))
    }

    pub fn say(&mut self, line: &str) -> Outcome {
        let input = self.input.as_mut().ok_or("its input is closed")?;
        writeln!(input, "{line}").map_err(|error| self.failure(&format!("does not listen: {error}")))
    }

    pub fn end_input(&mut self) {
        self.input = None;
    }

    /// The next line says that an operation is DONE, with this sum over its memory.
    pub fn is_done(&mut self, sha256: &str) -> Outcome {
        let said = self.json()?;
        if said["status"] == "DONE" && said["sha256"] == sha256 {
            return Ok(());
        }
        Err(self.failure(&format!("said {said} instead of DONE with {sha256}")))
    }

    /// The next line is a failure of this name; gives its message.
    pub fn fails_with(&mut self, error: &str) -> Outcome<String> {
        let said = self.json()?;
        match said["message"].as_str() {
            Some(message) if said["error"] == error => Ok(message.to_owned()),
            _ => Err(self.failure(&format!("said {said} instead of the error {error}"))),
        }
    }

    /// The process says nothing more and exits with this code.
    pub fn ends_with(mut self, code: i32) -> Outcome {
        match self.lines.recv_timeout(PATIENCE) {
            Err(mpsc::RecvTimeoutError::Disconnected) => {}
            other => return Err(self.failure(&format!("did not end: {other:?}"))),
        }
        // Its output has ended, so it is about to exit.
        let status = self.child.wait()?;
        if status.code() == Some(code) {
            return Ok(());
        }
        Err(self.failure(&format!("ended with {status}, not with code {code}")))
    }

    pub fn kill(&mut self) -> Outcome {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Returns when all its threads have stopped: the signal alone is obeyed when a busy machine has time for it.
    pub fn stop(&self) -> Outcome {
        let pid = self.pid()?;
        kill_process(pid, Signal::STOP)?;
        // It stops or it has ended; there is nothing else that it can do.
        match waitpid(Some(pid), WaitOptions::UNTRACED)? {
            Some((_, status)) if status.stopped() => Ok(()),
            other => Err(self.failure(&format!("did not stop: {other:?}"))),
        }
    }

    pub fn go_on(&self) -> Outcome {
        Ok(kill_process(self.pid()?, Signal::CONT)?)
    }

    fn pid(&self) -> Outcome<Pid> {
        Ok(i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).ok_or("no pid")?)
    }

    pub fn failure(&self, what: &str) -> Box<dyn std::error::Error> {
        let kept = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        let complaints: Vec<&str> = kept.iter().map(String::as_str).collect();
        format!("{} {what}\n{}", self.name, complaints.join("\n")).into()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL ends a stopped process too; one that has ended already is no error here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// On a thread that ends with the pipe.
fn each_line(pipe: impl Read + Send + 'static, mut take: impl FnMut(String) + Send + 'static) {
    std::thread::spawn(move || BufReader::new(pipe).lines().map_while(Result::ok).for_each(&mut take));
}
