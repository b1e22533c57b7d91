//! Numbers and times for people, in the forms that kubectl has. Pure.

use jiff::{SignedDuration, Timestamp};

const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

fn scaled(bytes: i64, unit: usize) -> String {
    let value = bytes as f64 / 1024f64.powi(i32::try_from(unit).unwrap_or(0));
    if unit == 0 { format!("{bytes}") } else { format!("{value:.1}") }
}

fn unit(bytes: i64) -> usize {
    (1..UNITS.len()).rev().find(|unit| bytes >= 1 << (10 * unit)).unwrap_or(0)
}

/// `44.9 GiB`.
pub(super) fn bytes(bytes: i64) -> String {
    let unit = unit(bytes);
    format!("{} {}", scaled(bytes, unit), UNITS[unit])
}

/// `40.5/44.9 GiB`: both in the unit of the whole.
pub(super) fn of_bytes(done: i64, total: i64) -> String {
    let unit = unit(total);
    format!("{}/{} {}", scaled(done, unit), scaled(total, unit), UNITS[unit])
}

/// `19.6 GiB/s`; empty when nothing is known.
pub(super) fn rate(per_second: i64) -> String {
    if per_second > 0 { format!("{}/s", bytes(per_second)) } else { String::new() }
}

/// Whole percents of it, never 100 before all is there.
pub(super) fn percent(done: i64, total: i64) -> i64 {
    let (done, total) = (i128::from(done.clamp(0, total.max(0))), i128::from(total.max(1)));
    i64::try_from(done * 100 / total).unwrap_or(0)
}

/// The time from then to now.
pub fn span_of(then: Timestamp, now: Timestamp) -> String {
    span(now.duration_since(then))
}

/// `43s`, `2m10s`, `3h20m`, `5d`: as exact as one looks at it, in kubectl's steps. Clocks differ: less than nothing is `0s`.
pub fn span(time: SignedDuration) -> String {
    let seconds = time.as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let with = |whole: i64, unit: &str, rest: i64, of: &str| {
        if rest == 0 { format!("{whole}{unit}") } else { format!("{whole}{unit}{rest}{of}") }
    };
    match seconds {
        ..120 => format!("{seconds}s"),
        120..600 => with(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => with(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => with(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        _ => with(days / 365, "y", days % 365, "d"),
    }
}

/// `2026-01-02T03:04:05Z (43s ago)`.
pub(super) fn moment(then: Timestamp, now: Timestamp) -> String {
    format!("{} ({} ago)", then.strftime("%Y-%m-%dT%H:%M:%SZ"), span_of(then, now))
}

/// `1 node`, `3 nodes`.
pub(super) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_rates_and_shares() {
        assert_eq!((bytes(0), bytes(1023), bytes(1024)), ("0 B".into(), "1023 B".into(), "1.0 KiB".into()));
        assert_eq!(bytes(48_181_567_488), "44.9 GiB");
        assert_eq!(of_bytes(43_524_000_000, 48_181_567_488), "40.5/44.9 GiB");
        assert_eq!((rate(0), rate(21_000_000_000)), (String::new(), "19.6 GiB/s".into()));
        assert_eq!(
            [percent(0, 0), percent(999, 1000), percent(1000, 1000), percent(9, 3)],
            [0, 99, 100, 100]
        );
        assert_eq!(percent(i64::MAX, i64::MAX), 100);
    }

    #[test]
    fn spans_are_those_of_kubectl() {
        let cases = [
            (-5, "0s"),
            (119, "119s"),
            (120, "2m"),
            (130, "2m10s"),
            (600, "10m"),
            (10_799, "179m"),
            (12_000, "3h20m"),
            (28_800, "8h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (691_200, "8d"),
            (63_158_400, "2y1d"),
        ];
        for (seconds, text) in cases {
            assert_eq!(span(SignedDuration::from_secs(seconds)), text, "{seconds}");
        }
    }
}
