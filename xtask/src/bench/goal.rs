//! Goals of `shared/design`'s suite as data, and whether measured values reach them. Pure.

use super::row::{Better, Measured, Peer};
use super::statistics::{by_round, median, spread};

/// Whom a clause compares with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// The peer of this name.
    Peer(&'static str),
    /// The best of the rivals; references do not count.
    BestRival,
    /// Nobody: the bound is a number.
    Nobody,
}

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// Ours is at least so many times as good: as much per second, or as short a time.
    Times(f64),
    /// Ours is at most the peer's plus this, in the row's unit.
    AtMostPlus(f64),
    /// Ours is at most so many times the peer's, which is another measurement of ours.
    AtMostTimes(f64),
    /// Ours is at most this, in the row's unit.
    AtMost(f64),
}

/// One condition; a goal is all of them together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clause {
    pub against: Against,
    pub bound: Bound,
}

/// A clause with what came out.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    pub text: String,
    /// The median over the rounds of how many times as good ours is, and the smallest and largest of them; where the bound
    /// is one from above, how many times as much.
    pub ratio: Option<(f64, (f64, f64))>,
    /// The same of how much more ours is, where the bound is a sum.
    pub more: Option<(f64, (f64, f64))>,
    /// The same of ours itself, where the bound is a number.
    pub value: Option<(f64, (f64, f64))>,
    /// `None` when a peer that would decide it was not measured.
    pub reached: Option<bool>,
}

pub fn at_least(times: f64, against: Against) -> Clause {
    Clause { against, bound: Bound::Times(times) }
}

pub fn at_most(times: f64, other: &'static str) -> Clause {
    Clause { against: Against::Peer(other), bound: Bound::AtMostTimes(times) }
}

/// In the row's unit.
pub fn no_more_than(value: f64) -> Clause {
    Clause { against: Against::Nobody, bound: Bound::AtMost(value) }
}

/// All clauses of what was measured.
pub fn judge(measured: &Measured) -> Vec<Judged> {
    measured.goal.iter().map(|clause| judge_clause(measured, *clause)).collect()
}

/// False when one clause is missed, unknown when one is, else true. No clause: nothing to reach.
pub fn all_reached(clauses: &[Judged]) -> Option<bool> {
    if clauses.iter().any(|clause| clause.reached == Some(false)) {
        return Some(false);
    }
    let known = !clauses.is_empty() && clauses.iter().all(|clause| clause.reached.is_some());
    known.then_some(true)
}

fn judge_clause(measured: &Measured, clause: Clause) -> Judged {
    let whom = match clause.against {
        Against::Peer(name) => name,
        Against::BestRival => "best rival",
        Against::Nobody => "",
    };
    let text = match clause.bound {
        Bound::Times(times) => format!("≥ {times} × {whom}"),
        Bound::AtMostPlus(more) => format!("≤ {whom} + {more} {}", measured.unit.text()),
        Bound::AtMostTimes(times) => format!("≤ {times} × {whom}"),
        Bound::AtMost(value) => format!("≤ {value} {}", measured.unit.text()),
    };
    let summary = |values: &[f64]| (median(values), spread(values));
    if let Bound::AtMost(value) = clause.bound {
        let reached = Some(median(&measured.ours) <= value);
        return Judged { text, ratio: None, more: None, value: Some(summary(&measured.ours)), reached };
    }
    let Some(peer) = opponent(measured, clause.against) else {
        return Judged { text, ratio: None, more: None, value: None, reached: None };
    };
    let as_much = matches!(clause.bound, Bound::AtMostTimes(_)) || measured.unit.better() == Better::Higher;
    let ratios = by_round(
        &measured.ours,
        &peer.values,
        |ours, theirs| {
            if as_much { ours / theirs } else { theirs / ours }
        },
    );
    let differences = by_round(&measured.ours, &peer.values, |ours, theirs| ours - theirs);
    let (holds, more) = match clause.bound {
        Bound::Times(times) => (median(&ratios) >= times, None),
        Bound::AtMostPlus(more) => (median(&differences) <= more, Some(summary(&differences))),
        Bound::AtMostTimes(times) => (median(&ratios) <= times, None),
        // Judged above.
        Bound::AtMost(_) => (false, None),
    };
    // A rival that was not measured might have been better: then what was reached is not known.
    let unknown = clause.against == Against::BestRival && !measured.missing.is_empty();
    let reached = if holds && unknown { None } else { Some(holds) };
    Judged { text, ratio: Some(summary(&ratios)), more, value: None, reached }
}

fn opponent(measured: &Measured, against: Against) -> Option<&Peer> {
    match against {
        Against::Nobody => None,
        Against::Peer(name) => measured.peers.iter().find(|peer| peer.name == name),
        Against::BestRival => {
            let rivals = measured.peers.iter().filter(|peer| peer.rival);
            rivals.max_by(|one, other| {
                let order = median(&one.values).total_cmp(&median(&other.values));
                if measured.unit.better() == Better::Higher { order } else { order.reverse() }
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::{Unit, test_row};
    use super::*;

    const BEST: Clause = Clause { against: Against::BestRival, bound: Bound::Times(2.0) };

    #[test]
    fn the_best_rival_decides_and_references_do_not() {
        let mut row = test_row(Unit::GigabytesPerSecond, &[4.0, 4.0, 4.0], &[("slow", 1.0), ("fast", 2.0)]);
        row.peers.push(Peer { name: "memcpy", rival: false, values: vec![20.0; 3] });
        row.goal = vec![BEST];
        let judged = judge(&row);
        assert_eq!(judged[0].ratio, Some((2.0, (2.0, 2.0))));
        assert_eq!(all_reached(&judged), Some(true));
        row.ours = vec![3.9; 3];
        assert_eq!(all_reached(&judge(&row)), Some(false));
    }

    #[test]
    fn a_missing_rival_leaves_open_what_the_others_did_not_decide() {
        let mut row = test_row(Unit::GigabytesPerSecond, &[4.0], &[("fast", 2.0)]);
        row.missing.push("rsync");
        row.goal = vec![BEST];
        assert_eq!(all_reached(&judge(&row)), None, "the missing one might be faster");
        row.ours = vec![3.0];
        assert_eq!(all_reached(&judge(&row)), Some(false), "no missing rival can make that good");
        row.goal = vec![at_least(1.0, Against::Peer("fast")), at_least(3.0, Against::Peer("rsync"))];
        assert_eq!(judge(&row).iter().map(|clause| clause.reached).collect::<Vec<_>>(), [Some(true), None]);
        assert_eq!(all_reached(&judge(&row)), None);
        assert_eq!(all_reached(&[]), None, "without a goal nothing is reached");
    }

    #[test]
    fn a_bound_may_be_a_number() {
        let mut row = test_row(Unit::Mebibytes, &[3.0, 1.0, 2.0], &[]);
        row.goal = vec![no_more_than(2.0)];
        let judged = judge(&row);
        assert_eq!((judged[0].text.as_str(), judged[0].value), ("≤ 2 MiB", Some((2.0, (1.0, 3.0)))));
        assert_eq!(all_reached(&judged), Some(true));
        row.goal = vec![no_more_than(1.9)];
        assert_eq!(all_reached(&judge(&row)), Some(false));
    }

    #[test]
    fn less_time_is_better_and_a_bound_may_be_a_sum() {
        let mut row =
            test_row(Unit::Milliseconds, &[100.0, 110.0, 130.0], &[("floor", 50.0), ("agents", 500.0)]);
        let plus = |more| Clause { against: Against::Peer("floor"), bound: Bound::AtMostPlus(more) };
        row.goal = vec![plus(60.0), at_least(4.0, Against::Peer("agents"))];
        let judged = judge(&row);
        assert_eq!(
            (judged[0].text.as_str(), judged[0].more),
            ("≤ floor + 60 ms", Some((60.0, (50.0, 80.0))))
        );
        assert_eq!(all_reached(&judged), Some(true));
        row.goal = vec![plus(59.0)];
        assert_eq!(all_reached(&judge(&row)), Some(false));
        row.goal = vec![at_most(2.5, "floor")];
        let judged = judge(&row);
        assert_eq!((judged[0].text.as_str(), judged[0].ratio), ("≤ 2.5 × floor", Some((2.2, (2.0, 2.6)))));
        assert_eq!(judged[0].reached, Some(true));
        row.goal = vec![at_most(2.1, "floor")];
        assert_eq!(all_reached(&judge(&row)), Some(false));
        row.goal = vec![Clause { against: Against::BestRival, bound: Bound::Times(0.1) }];
        assert_eq!(judge(&row)[0].ratio.unwrap().0, 50.0 / 110.0, "the best of times is the shortest");
    }
}
