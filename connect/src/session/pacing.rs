//! How long the session's thread may rest after a round, decided from what the round found. Pure.
//!
//! Two processes that poll without rest on two cores starve each other, so polling is hard only just after something
//! happened; then the thread gives way, then sleeps for growing times. A command always wakes it at once. How long it gives
//! way is earned by what happens: on a fast link that is all the time, on a slow one, or where a node sends on what it
//! receives, the thread sleeps between two chunks and leaves the processor to the others.

use std::time::Duration;

/// Rounds without rest after the last thing that happened.
const SPINS: u32 = 16;
/// Further rounds in which the processor is only offered to others, at most: one to two milliseconds. Parking sooner
/// costs a third of a fast link's throughput, for a socket is drained faster than a timer fires.
const MOST_YIELDS: u32 = 2000;
/// So many of them are earned by a round in which something happened.
const EARNED_YIELDS: u32 = 32;
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
    yields_left: u32,
    parks: u32,
}

impl Pacing {
    /// `busy`: something happened in this round; `expecting`: something may come from outside.
    pub(super) fn after(&mut self, busy: bool, expecting: bool) -> Rest {
        if !expecting {
            *self = Self::default();
            return if busy { Rest::Spin } else { Rest::Block };
        }
        if busy {
            self.happened();
            return Rest::Spin;
        }
        self.idle_rounds = self.idle_rounds.saturating_add(1);
        if self.idle_rounds <= SPINS {
            return Rest::Spin;
        }
        if self.yields_left > 0 {
            self.yields_left -= 1;
            return Rest::Yield;
        }
        let park = FIRST_PARK * 2_u32.pow(self.parks.min(8));
        self.parks = self.parks.saturating_add(1);
        Rest::Park(park.min(LONGEST_PARK))
    }

    /// The next round is one after something that happened, whatever it finds.
    pub(super) fn happened(&mut self) {
        self.idle_rounds = 0;
        self.parks = 0;
        self.yields_left = (self.yields_left + EARNED_YIELDS).min(MOST_YIELDS);
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
        assert_eq!(parks(&rests)[0], FIRST_PARK);
        assert!(parks(&rests).is_sorted());
        assert_eq!(pacing.after(true, true), Rest::Spin);
        assert_eq!(pacing.after(false, true), Rest::Spin);
    }

    /// A million rounds in which something happens each so many: how many rest without giving up the processor.
    fn awake(every: usize) -> usize {
        let mut pacing = Pacing::default();
        let rests = (0..1_000_000).map(|round| pacing.after(round % every == 0, true));
        rests.filter(|rest| matches!(rest, Rest::Spin | Rest::Yield)).count()
    }

    #[test]
    fn a_fast_link_is_polled_all_the_time_and_a_slow_one_hardly_ever() {
        assert_eq!(awake(20), 1_000_000);
        assert!(awake(10_000) < 10_000, "{}", awake(10_000));
    }

    #[test]
    fn what_was_earned_outlasts_a_pause_and_has_an_end() {
        let mut pacing = Pacing::default();
        (0..1_000).for_each(|_| pacing.happened());
        let rests: Vec<Rest> = (0..10_000).map(|_| pacing.after(false, true)).collect();
        let yields = rests.iter().filter(|rest| **rest == Rest::Yield).count();
        assert_eq!(yields, MOST_YIELDS as usize);
    }

    fn parks(rests: &[Rest]) -> Vec<Duration> {
        rests.iter().filter_map(|rest| if let Rest::Park(park) = rest { Some(*park) } else { None }).collect()
    }
}
