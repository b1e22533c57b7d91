//! How long the session's thread may rest after a round, decided from what the round found. Pure.
//!
//! Two processes that poll without rest on two cores starve each other, so polling is hard only just after something
//! happened; then the thread gives way, then sleeps for growing times. A command always wakes it at once.

use std::time::Duration;

/// Rounds without rest after the last thing that happened.
const SPINS: u32 = 16;
/// Further rounds in which the processor is only offered to others: one to two milliseconds. Parking sooner costs a
/// third of the throughput, for a socket is drained faster than a timer fires.
const YIELDS: u32 = 2000;
const FIRST_PARK: Duration = Duration::from_micros(20);
/// The bound on how late something can be noticed while a stream is open.
const LONGEST_PARK: Duration = Duration::from_millis(1);

/// What to do before the next round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// Go on at once.
    Spin,
    /// Let others run first.
    Yield,
    /// Wait for a command, at most so long.
    Park(Duration),
    /// Wait for a command for ever: nothing else can happen.
    Block,
}

/// Counts the rounds in which nothing happened.
#[derive(Debug, Default)]
pub(super) struct Pacing {
    idle_rounds: u32,
}

impl Pacing {
    /// `busy`: something happened in this round; `expecting`: something may come from outside.
    pub(super) fn after(&mut self, busy: bool, expecting: bool) -> Rest {
        if !expecting {
            self.idle_rounds = 0;
            return if busy { Rest::Spin } else { Rest::Block };
        }
        if busy {
            self.idle_rounds = 0;
            return Rest::Spin;
        }
        self.idle_rounds = self.idle_rounds.saturating_add(1);
        match self.idle_rounds {
            ..=SPINS => Rest::Spin,
            rounds if rounds <= SPINS + YIELDS => Rest::Yield,
            rounds => {
                let doublings = (rounds - SPINS - YIELDS - 1).min(8);
                Rest::Park((FIRST_PARK * 2_u32.pow(doublings)).min(LONGEST_PARK))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_longer_the_longer_nothing_happens_and_never_beyond_the_bound() {
        let mut pacing = Pacing::default();
        assert_eq!(pacing.after(false, false), Rest::Block);
        assert_eq!(pacing.after(true, true), Rest::Spin);
        let rests: Vec<Rest> = (0..4000).map(|_| pacing.after(false, true)).collect();
        assert_eq!(rests.first(), Some(&Rest::Spin));
        assert!(rests.contains(&Rest::Yield));
        assert_eq!(rests.last(), Some(&Rest::Park(LONGEST_PARK)));
        assert!(LONGEST_PARK <= Duration::from_millis(1), "what happens is noticed within a millisecond");
        let parks: Vec<Duration> = rests
            .iter()
            .filter_map(|rest| if let Rest::Park(park) = rest { Some(*park) } else { None })
            .collect();
        assert!(parks.is_sorted());
        assert_eq!(pacing.after(true, true), Rest::Spin);
        assert_eq!(pacing.after(false, true), Rest::Spin);
    }
}
