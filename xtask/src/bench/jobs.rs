//! The cluster whose jobs are measured: a process of its own (`tests/examples/bench_jobs`) that is asked line by line.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::asked::{Asked, Numbers};
use super::namespaces::{DEVICE, Namespaces};
use super::program::example;

pub struct Jobs(Asked);

impl Jobs {
    /// Starts it with nodes `a` and `b`, whose volumes are the directories of their names; returns when it is ready.
    pub fn start(directory: &Path) -> Result<Self> {
        let mut command = example("bench_jobs");
        command.arg(directory);
        Ok(Self(Asked::start("a control plane, the operator and two agents", command)?))
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
        Ok(Self(Asked::start(&what, spaces.hub().inside(&command))?))
    }

    /// Has it do one thing, and gives the time that this took.
    pub fn ask(&mut self, line: &str) -> Result<Duration> {
        Ok(self.0.ask(line)?.0)
    }

    /// The same with the words that it has to say about it.
    pub fn ask_more(&mut self, line: &str) -> Result<(Duration, Vec<String>)> {
        self.0.ask(line)
    }

    /// What it has counted.
    pub fn ask_numbers(&mut self, line: &str) -> Result<Numbers> {
        Ok(self.0.ask_numbers(line)?.1)
    }
}

/// The name of a node by its number, the source is the first: also the name of its volume's directory.
pub fn node_name(at: usize) -> String {
    char::from(b'a' + u8::try_from(at).unwrap_or(u8::MAX - b'a')).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_have_letters() {
        assert_eq!((node_name(0), node_name(8)), ("a".to_owned(), "i".to_owned()));
    }
}
