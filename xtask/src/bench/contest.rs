//! Runs ours and the peers in turn, round by round, so that what else the machine does falls on all alike.

use anyhow::{Context, Result};

use super::goal::Clause;
use super::row::{Measured, Peer, Unit};
use crate::interrupt;
use crate::progress::Step;

/// One that takes part: `run` measures it once, and fails when the measurement is impossible or bytes differ.
pub struct Contestant<'a> {
    name: &'static str,
    rival: bool,
    run: Box<dyn FnMut() -> Result<f64> + 'a>,
}

impl<'a> Contestant<'a> {
    /// One that somebody would use instead of ours.
    pub fn rival(name: &'static str, run: impl FnMut() -> Result<f64> + 'a) -> Self {
        Self { name, rival: true, run: Box::new(run) }
    }

    /// One to compare with only.
    pub fn reference(name: &'static str, run: impl FnMut() -> Result<f64> + 'a) -> Self {
        Self { name, rival: false, run: Box::new(run) }
    }
}

/// What is to be measured.
pub struct Contest<'a> {
    pub id: &'static str,
    pub case: String,
    pub unit: Unit,
    pub ours: Box<dyn FnMut() -> Result<f64> + 'a>,
    pub peers: Vec<Contestant<'a>>,
    pub missing: Vec<&'static str>,
    pub goal: Vec<Clause>,
}

impl Contest<'_> {
    pub fn run(self, rounds: usize) -> Result<Measured> {
        let Self { id, case, unit, mut ours, mut peers, missing, goal } = self;
        let mut step = Step::start(format!("{id} {case}"));
        let mut measured = Measured { id, case, unit, ours: Vec::new(), peers: Vec::new(), missing, goal };
        for peer in &peers {
            measured.peers.push(Peer { name: peer.name, rival: peer.rival, values: Vec::new() });
        }
        for round in 1..=rounds {
            interrupt::check()?;
            step.tick(&format!("round {round} of {rounds}: ours"));
            measured.ours.push(ours().context("ours")?);
            for (peer, into) in peers.iter_mut().zip(&mut measured.peers) {
                interrupt::check()?;
                step.tick(&format!("round {round} of {rounds}: {}", peer.name));
                into.values.push((peer.run)().context(peer.name)?);
            }
        }
        step.done(&format!("{rounds} rounds"));
        Ok(measured)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use anyhow::bail;

    use super::*;

    fn contest<'a>(ours: impl FnMut() -> Result<f64> + 'a, peers: Vec<Contestant<'a>>) -> Contest<'a> {
        let (ours, unit) = (Box::new(ours), Unit::Milliseconds);
        Contest { id: "T", case: "turns".into(), unit, ours, peers, missing: Vec::new(), goal: Vec::new() }
    }

    #[test]
    fn everybody_takes_part_in_turn() {
        let order = RefCell::new(String::new());
        let turn = |name: char| {
            let order = &order;
            move || {
                order.borrow_mut().push(name);
                Ok(order.borrow().len() as f64)
            }
        };
        let peers = vec![Contestant::rival("b", turn('b')), Contestant::reference("c", turn('c'))];
        let measured = contest(turn('a'), peers).run(3).unwrap();
        assert_eq!(order.borrow().as_str(), "abcabcabc");
        assert_eq!(measured.ours, [1.0, 4.0, 7.0]);
        assert_eq!(measured.peers[1].values, [3.0, 6.0, 9.0]);
        assert!(measured.peers[0].rival && !measured.peers[1].rival);
    }

    #[test]
    fn one_that_cannot_be_measured_ends_it_and_is_named() {
        let error = contest(|| Ok(1.0), vec![Contestant::rival("cp", || bail!("bytes differ"))]).run(1);
        assert_eq!(format!("{:#}", error.unwrap_err()), "cp: bytes differ");
    }
}
