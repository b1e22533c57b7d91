//! When the next bytes of a limited hop may go. Pure: the clock is an argument.

use std::time::{Duration, Instant};

/// A sender that was late may catch up by so much; longer pauses are not made up for.
const CREDIT: Duration = Duration::from_millis(20);
/// Chunks of a limited hop hold what goes in this time, so that a second has many of them.
const SPAN: Duration = Duration::from_millis(20);
/// But not less than this, which would be mostly header.
const SMALLEST: u64 = 4096;

/// A limit in bytes per second, exact over two seconds within 5 %.
#[derive(Debug)]
pub(super) struct Limiter {
    bytes_per_second: u64,
    /// When all that was let through so far is paid for.
    due: Instant,
}

impl Limiter {
    pub(super) fn new(bytes_per_second: u64, now: Instant) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), due: now }
    }

    /// Most bytes of one chunk.
    pub(super) fn chunk(&self) -> usize {
        let bytes = u128::from(self.bytes_per_second) * SPAN.as_millis() / 1000;
        usize::try_from(bytes).unwrap_or(usize::MAX).max(SMALLEST as usize)
    }

    /// Takes so many bytes; gives the moment at which they may go.
    pub(super) fn take(&mut self, bytes: usize, now: Instant) -> Instant {
        let at = match now.checked_sub(CREDIT) {
            Some(earliest) => self.due.max(earliest),
            None => self.due,
        };
        let nanoseconds = bytes as u128 * 1_000_000_000 / u128::from(self.bytes_per_second);
        self.due = at + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Sends chunks as fast as the limiter lets a sender whose waits end late, and gives when each went.
    fn run(rate: u64, late: &[u16], pause: (usize, Duration)) -> Vec<(Duration, usize)> {
        let start = Instant::now();
        let mut limiter = Limiter::new(rate, start);
        let (mut now, mut sent) = (start, Vec::new());
        let mut number = 0;
        while now < start + Duration::from_secs(8) {
            if number == pause.0 {
                now += pause.1;
            }
            let chunk = limiter.chunk().min(1 << 20);
            let at = limiter.take(chunk, now);
            if at > now {
                now = at + Duration::from_micros(late[number % late.len()].into());
            }
            sent.push((now - start, chunk));
            number += 1;
        }
        sent
    }

    fn most_in_two_seconds(sent: &[(Duration, usize)]) -> u64 {
        let window = Duration::from_secs(2);
        let from = |first: usize| {
            let rest = &sent[first..];
            rest.iter().take_while(|(at, _)| *at < rest[0].0 + window).map(|(_, bytes)| *bytes as u64).sum()
        };
        (0..sent.len()).map(from).max().unwrap_or(0)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn two_seconds_never_hold_five_per_cent_too_much(
            rate in prop::sample::select(vec![65_536_u64, 1 << 20, 10_000_000, 117_000_000]),
            late in prop::collection::vec(0_u16..3000, 1..50),
            pause in (0_usize..200, 0_u64..3000),
        ) {
            let sent = run(rate, &late, (pause.0, Duration::from_millis(pause.1)));
            let allowed = rate * 2 * 105 / 100 + Limiter::new(rate, Instant::now()).chunk() as u64;
            prop_assert!(most_in_two_seconds(&sent) <= allowed, "{} of {allowed}", most_in_two_seconds(&sent));
        }

        #[test]
        fn a_sender_that_has_enough_gets_what_it_may(
            rate in prop::sample::select(vec![65_536_u64, 1 << 20, 10_000_000, 117_000_000]),
            late in prop::collection::vec(0_u16..3000, 1..50),
        ) {
            let sent = run(rate, &late, (usize::MAX, Duration::ZERO));
            let two = Duration::from_secs(2);
            let bytes: u64 = sent.iter().filter(|(at, _)| (two..2 * two).contains(at)).map(|(_, b)| *b as u64).sum();
            prop_assert!(bytes >= rate * 2 * 95 / 100, "{bytes} of {}", rate * 2);
        }
    }
}
