//! The API server's own record of what it was asked for. Reads one file.

use std::ops::Range;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::rights::{Asked, Told, asked};

/// Where it is, and which parts of it a server has written that was not ready.
#[derive(Debug)]
pub(super) struct Audit {
    log: PathBuf,
    starts: Vec<Range<usize>>,
}

impl Audit {
    pub(super) fn new(log: PathBuf) -> Self {
        Self { log, starts: Vec::new() }
    }

    /// One JSON event a line.
    pub(super) fn text(&self) -> Result<String> {
        std::fs::read_to_string(&self.log).with_context(|| format!("{}: is `audit` set?", self.log.display()))
    }

    /// How long it is now; zero when nothing is recorded.
    pub(super) fn length(&self) -> usize {
        // Audits of tests are far from the largest size.
        std::fs::metadata(&self.log).map_or(0, |log| log.len() as usize)
    }

    /// What was written from `begin` until now is of a server that was not ready.
    pub(super) fn was_starting(&mut self, begin: usize) {
        self.starts.push(begin..self.length());
    }

    /// What operator and agents asked for. A server that starts refuses everything before it has read the roles, so what it
    /// says then does not count.
    pub(super) fn asked(&self) -> Result<Asked> {
        Ok(asked(&without(&self.text()?, &self.starts), Told::ByGroup))
    }
}

/// The text without these parts, which are in order.
fn without(text: &str, parts: &[Range<usize>]) -> String {
    let (mut kept, mut at) = (String::new(), 0);
    for part in parts {
        kept += text.get(at..part.start).unwrap_or_default();
        at = part.end;
    }
    kept + text.get(at..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_starting_server_says_is_left_out() {
        assert_eq!(without("a\nb\nc\nd\n", &[2..4, 6..8]), "a\nc\n");
        assert_eq!(without("a\n", &[]), "a\n");
        // A server that was started twice before it said anything.
        assert_eq!(without("", &[0..0, 0..0]), "");
    }
}
