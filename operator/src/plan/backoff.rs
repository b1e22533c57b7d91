//! Pauses before retries: doubling, bounded, with a jitter that is a hash of what is retried, so that a plan made twice
//! says the same. Pure.

use jiff::SignedDuration;
use xxhash_rust::xxh3::xxh3_64;

/// No pause is longer than this, but for its jitter.
const LONGEST_SECONDS: i64 = 360;

/// The pause after so many failures (from 1): `base` seconds, doubling up to 6 min, ±10 % by the key.
pub fn pause(failures: i32, base: i64, key: &str) -> SignedDuration {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(0).min(30);
    let seconds = base.max(0).saturating_mul(1 << doublings).min(LONGEST_SECONDS);
    let per_mille = 900 + i64::try_from(xxh3_64(key.as_bytes()) % 201).unwrap_or(100);
    SignedDuration::from_millis(seconds * per_mille)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_six_minutes_and_stay_within_a_tenth() {
        for (failures, seconds) in [(1, 10.0), (2, 20.0), (3, 40.0), (6, 320.0), (7, 360.0), (100, 360.0)] {
            for key in ["a", "b", "c", "d"] {
                let got = pause(failures, 10, key).as_secs_f64();
                assert!((got - seconds).abs() <= seconds * 0.1 + 0.001, "{failures} {key}: {got}");
                assert_eq!(pause(failures, 10, key), pause(failures, 10, key));
            }
        }
        assert_ne!(pause(3, 10, "a"), pause(3, 10, "b"));
    }
}
