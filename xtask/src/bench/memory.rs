//! Suite `memory`: from memory to memory, over TCP between two processes. D1 on the loopback device; D2 between network
//! namespaces, where root is there to make them. Ours has credits and digests and compares what came; the loop has nothing of that; memcpy says what memory can do.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::contest::{Contest, Contestant};
use super::goal::{Against, at_least};
use super::host::Host;
use super::installed::{is_installed, missing_note};
use super::iperf;
use super::namespaces::{DEVICE, Namespaces, Speed};
use super::program::{example, rate};
use super::row::{Measured, Unit};
use super::sizes::Sizes;

/// The faster of the two loops: the goal is set against it.
const LOOP: &str = "NIXL loop";

/// NIXL alone, from a region of the whole size to another, all at once.
const WHOLE: &str = "NIXL alone, whole";
/// The loop as NIXL comes, with its progress thread.
const DEFAULTS: &str = "NIXL loop (defaults)";
/// That loop, but the receiver reads.
const READS: &str = "NIXL loop (READ)";
const IPERF: &str = "iperf3";

pub fn run(sizes: Sizes, rounds: usize) -> Result<Vec<Measured>> {
    let mut measured = vec![one_host(sizes, rounds)?, regions(sizes, rounds)?];
    if Namespaces::possible().is_ok() {
        measured.push(between_namespaces(sizes, rounds)?);
    }
    Ok(measured)
}

pub fn notes() -> Vec<String> {
    let mut notes = vec![
        "D1 from region to region: one Write into a Writable of the whole size, nothing staged and no digest; beside it NIXL \
         alone with the same two regions. The other loops have a ring of 8 MiB, which stays in the processor's cache."
            .to_owned(),
    ];
    if let Err(why) = Namespaces::possible() {
        notes.push(format!("D2 was not run: no network namespaces ({why}); it needs root."));
    } else if !is_installed(IPERF) {
        notes.push(missing_note(IPERF));
    }
    notes
}

fn between_namespaces(sizes: Sizes, rounds: usize) -> Result<Measured> {
    let spaces = Namespaces::start(2, Speed::Free)?;
    let mib = (sizes.large >> 20).to_string();
    let ends = |name: &str, arguments: &[&str]| {
        let mut command = example(name);
        command.args(arguments).env("NIXL_TRANSFER_DEVICE", DEVICE);
        command.env("NIXL_TRANSFER_SEND_WITH", spaces.nodes()[0].enter().join(" "));
        rate(command.env("NIXL_TRANSFER_RECEIVE_WITH", spaces.nodes()[1].enter().join(" ")))
    };
    let mut peers = vec![
        Contestant::rival(LOOP, || ends("raw", &[&mib, "polling"])),
        Contestant::rival(DEFAULTS, || ends("raw", &[&mib, "default"])),
        Contestant::rival(READS, || ends("raw", &[&mib, "polling", "read"])),
    ];
    let has_iperf = is_installed(IPERF);
    if has_iperf {
        peers.push(Contestant::reference(IPERF, || {
            iperf::rate(Host::Node(&spaces, 0), Host::Node(&spaces, 1), sizes.large)
        }));
    }
    let contest = Contest {
        id: "D2",
        case: format!("{mib} MiB between network namespaces, TCP, digests on"),
        unit: Unit::GigabytesPerSecond,
        ours: Box::new(|| ends("stream", &[&mib])),
        peers,
        missing: if has_iperf { Vec::new() } else { vec![IPERF] },
        goal: vec![at_least(1.0, Against::Peer(IPERF)), at_least(1.5, Against::Peer(DEFAULTS))],
    };
    contest.run(rounds)
}

fn one_host(sizes: Sizes, rounds: usize) -> Result<Measured> {
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
            Contestant::rival(DEFAULTS, raw("default")),
            Contestant::reference("memcpy", move || memory.copy()),
        ],
        missing: Vec::new(),
        goal: vec![at_least(0.8, Against::Peer(LOOP))],
    };
    contest.run(rounds)
}

/// Nothing staged, no digest: what the operations of nixl-connect add to NIXL's.
fn regions(sizes: Sizes, rounds: usize) -> Result<Measured> {
    let mib = (sizes.large >> 20).to_string();
    let contest = Contest {
        id: "D1",
        case: format!("{mib} MiB from region to region, TCP on loopback, nothing staged, no digest"),
        unit: Unit::GigabytesPerSecond,
        ours: Box::new(|| rate(example("regions").arg(&mib))),
        peers: vec![
            Contestant::rival(WHOLE, || rate(example("raw").args([&mib, "polling", "whole"]))),
            Contestant::reference(LOOP, || rate(example("raw").args([&mib, "polling"]))),
        ],
        missing: Vec::new(),
        goal: vec![at_least(0.97, Against::Peer(WHOLE))],
    };
    contest.run(rounds)
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
