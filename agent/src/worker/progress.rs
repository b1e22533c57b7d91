//! When a hop's counters are told: at most once a second, and only when they have changed. Pure.

use std::time::{Duration, Instant};

use crate::protocol::Counters;

const INTERVAL: Duration = Duration::from_secs(1);

/// What was told last.
#[derive(Debug)]
pub(super) struct Pace {
    told: Counters,
    at: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { told: Counters::default(), at: now }
    }

    /// Whether these counters should be told now; if so they count as told.
    pub(super) fn is_due(&mut self, counters: Counters, now: Instant) -> bool {
        if counters == self.told || now.saturating_duration_since(self.at) < INTERVAL {
            return false;
        }
        (self.told, self.at) = (counters, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_a_second_and_on_change() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let counters = |bytes| Counters { bytes, ..Counters::default() };
        let after = |milliseconds| start + Duration::from_millis(milliseconds);
        assert!(!pace.is_due(counters(1), after(999)));
        assert!(pace.is_due(counters(1), after(1000)));
        assert!(!pace.is_due(counters(2), after(1999)));
        assert!(!pace.is_due(counters(1), after(3000)));
        assert!(pace.is_due(counters(2), after(3000)));
    }
}
