//! Where a program of a contest runs: on this machine with its loopback device, or on a node that is a namespace.

use std::process::Command;

use super::namespaces::{Namespaces, Space};

#[derive(Clone, Copy, Debug)]
pub enum Host<'a> {
    Loopback,
    Node(&'a Namespaces, usize),
}

impl<'a> Host<'a> {
    pub fn command(self, program: &str) -> Command {
        match self.space() {
            Some(space) => space.command(program),
            None => Command::new(program),
        }
    }

    /// The same command as that one, there.
    pub fn inside(self, outside: Command) -> Command {
        match self.space() {
            Some(space) => space.inside(&outside),
            None => outside,
        }
    }

    /// Where others reach it.
    pub fn address(self) -> String {
        match self {
            Self::Loopback => "127.0.0.1".to_owned(),
            Self::Node(spaces, at) => spaces.address(at),
        }
    }

    fn space(self) -> Option<&'a Space> {
        match self {
            Self::Loopback => None,
            Self::Node(spaces, at) => spaces.nodes().get(at),
        }
    }
}
