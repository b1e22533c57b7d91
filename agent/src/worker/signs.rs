//! Signs of work while no chunk comes: what is here is being compared, at this end, at the source, or further down the
//! chain. They keep the hop from being taken for one that stands still.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Counted by whoever compares, looked at by the hop's thread.
#[derive(Debug, Default)]
pub(super) struct Signs(AtomicU64);

impl Signs {
    pub(super) fn give(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long a hop may wait without a sign. Pure: the clock is an argument.
#[derive(Debug)]
pub(super) struct Patience {
    longest: Duration,
    seen: u64,
    until: Instant,
}

impl Patience {
    pub(super) fn new(longest: Duration, seen: u64, now: Instant) -> Self {
        Self { longest, seen, until: now + longest }
    }

    /// Whether it is at its end, with so many signs by now. A new sign starts it again.
    pub(super) fn is_over(&mut self, count: u64, now: Instant) -> bool {
        if count != self.seen {
            (self.seen, self.until) = (count, now + self.longest);
        }
        now >= self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_starts_the_patience_again() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut patience = Patience::new(Duration::from_secs(10), 3, start);
        assert!(!patience.is_over(3, at(9)));
        assert!(!patience.is_over(4, at(11)), "which was looked at late");
        assert!(!patience.is_over(4, at(20)));
        assert!(patience.is_over(4, at(21)));
    }
}
