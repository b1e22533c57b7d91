//! Runs other programs: their output is watched line by line, and the end of it is shown when they fail.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::interrupt;

/// Runs `command` to its end. `line` sees each line of both outputs, and None at least every 300 ms.
pub fn watched(command: &mut Command, line: impl FnMut(Option<&str>)) -> Result<()> {
    watched_within(command, Duration::MAX, line)
}

/// As `watched`; one that takes longer than `limit` is killed, which is an error.
pub fn watched_within(
    command: &mut Command,
    limit: Duration,
    mut line: impl FnMut(Option<&str>),
) -> Result<()> {
    let started = Instant::now();
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {name}"))?;
    let (lines, inbox) = channel();
    let output = child.stdout.take().map(|out| read_lines(out, lines.clone()));
    let errors = child.stderr.take().map(|err| read_lines(err, lines));
    let mut tail = VecDeque::new();
    loop {
        if interrupt::requested() || started.elapsed() > limit {
            let _ = child.kill();
        }
        match inbox.recv_timeout(Duration::from_millis(300)) {
            Ok(text) => {
                line(Some(&text));
                tail.push_back(text);
                if tail.len() > 30 {
                    tail.pop_front();
                }
            }
            Err(RecvTimeoutError::Timeout) => line(None),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    for reader in [output, errors].into_iter().flatten() {
        let _ = reader.join();
    }
    let status = child.wait()?;
    interrupt::check()?;
    if !status.success() {
        let tail: Vec<String> = tail.into();
        let late = if started.elapsed() > limit { ", for it took too long" } else { "" };
        bail!("{name} failed ({status}{late}):\n  {}", tail.join("\n  "));
    }
    Ok(())
}

fn read_lines(
    stream: impl std::io::Read + Send + 'static,
    lines: std::sync::mpsc::Sender<String>,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut buffer = Vec::new();
        while matches!(reader.read_until(b'\n', &mut buffer), Ok(count) if count > 0) {
            let text = String::from_utf8_lossy(&buffer).trim_end().to_owned();
            buffer.clear();
            if lines.send(text).is_err() {
                return;
            }
        }
    })
}

/// The trimmed standard output of a short command.
pub fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        bail!("{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_seen_and_a_failure_shows_them() {
        let mut seen = Vec::new();
        let mut shell = Command::new("sh");
        let error = watched(shell.args(["-c", "echo one; echo two >&2; exit 3"]), |line| {
            seen.extend(line.map(str::to_owned));
        });
        let error = error.unwrap_err().to_string();
        seen.sort_unstable();
        assert_eq!(seen, ["one", "two"]);
        assert!(error.contains("one") && error.contains("two") && error.contains("3"), "{error}");
    }

    #[test]
    fn one_that_takes_too_long_is_killed() {
        let started = Instant::now();
        let error = watched_within(Command::new("sleep").arg("60"), Duration::from_millis(50), |_| {});
        assert!(error.unwrap_err().to_string().contains("took too long"));
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}
