//! Suite `memory`, D1: from memory to memory on this host, over TCP on the loopback device, between two processes.
//! Ours has credits and digests and compares what came; the loop has nothing of that; memcpy says what memory can do.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::contest::{Contest, Contestant};
use super::goal::{Against, at_least};
use super::program::{example, rate};
use super::row::{Measured, Unit};
use super::sizes::Sizes;

/// The faster of the two loops: the goal is set against it.
const LOOP: &str = "NIXL loop";

pub fn run(sizes: Sizes, rounds: usize) -> Result<Vec<Measured>> {
    let mib = sizes.large >> 20;
    let raw = |mode: &'static str| move || rate(example("raw").args([&mib.to_string(), mode]));
    let mut memory = Memory::new(usize::try_from(sizes.large)?);
    let contest = Contest {
        id: "D1",
        case: format!("{mib} MiB memory to memory, TCP on loopback, digests on"),
        unit: Unit::GigabytesPerSecond,
        ours: Box::new(move || rate(example("stream").arg(mib.to_string()))),
        peers: vec![
            Contestant::rival(LOOP, raw("polling")),
            Contestant::rival("NIXL loop (defaults)", raw("default")),
            Contestant::reference("memcpy", move || memory.copy()),
        ],
        missing: Vec::new(),
        goal: vec![at_least(0.8, Against::Peer(LOOP))],
    };
    Ok(vec![contest.run(rounds)?])
}

/// Two pieces of memory whose pages have been touched.
struct Memory {
    from: Vec<u8>,
    to: Vec<u8>,
}

impl Memory {
    fn new(bytes: usize) -> Self {
        Self { from: vec![1; bytes], to: vec![2; bytes] }
    }

    fn copy(&mut self) -> Result<f64> {
        // Another value each time, so that the comparison is of this copy.
        let value = self.from.first().copied().unwrap_or(0).wrapping_add(1);
        self.from.fill(value);
        let since = Instant::now();
        self.to.copy_from_slice(&self.from);
        let took = since.elapsed();
        ensure!(self.from == self.to, "bytes differ");
        Ok(self.from.len() as f64 / took.as_secs_f64() / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_copied_again_each_time() {
        let mut memory = Memory::new(1 << 16);
        assert!(memory.copy().unwrap() > 0.0 && memory.copy().unwrap() > 0.0);
        assert_eq!((memory.to[0], memory.to[65535]), (3, 3));
    }
}
