//! The words of sysfs about links. Pure.

use nixl_transfer_crds::node::devices::LinkState;

/// More than any link has; a number beyond it is no rate.
const MAX_RATE: f64 = 1e9;

/// `4: ACTIVE`. The number counts, which is the kernel's `ib_port_state`.
pub(super) fn port_state(text: &str) -> LinkState {
    match text.split(':').next().and_then(|number| number.trim().parse().ok()) {
        Some(1u8) => LinkState::Down,
        Some(2) => LinkState::Init,
        Some(3) => LinkState::Armed,
        Some(4) => LinkState::Active,
        // 5, ACTIVE_DEFER: active, and about to be down.
        _ => LinkState::Unknown,
    }
}

/// `operstate`, RFC 2863.
pub(super) fn operstate(text: &str) -> LinkState {
    match text {
        "up" => LinkState::Active,
        "down" | "lowerlayerdown" | "notpresent" | "dormant" | "testing" => LinkState::Down,
        _ => LinkState::Unknown,
    }
}

/// `200 Gb/sec (4X HDR)`, `2.5 Gb/sec (1X SDR)`, in Mb/s.
pub(super) fn rate(text: &str) -> Option<u64> {
    let gigabits: f64 = text.split_once(" Gb/sec")?.0.trim().parse().ok()?;
    let megabits = (gigabits * 1000.0).round();
    (1.0..=MAX_RATE).contains(&megabits).then_some(megabits as u64)
}

/// `speed` of an interface, in Mb/s already; -1 is unknown.
pub(super) fn speed(text: &str) -> Option<u64> {
    text.parse().ok().filter(|megabits| (1..=MAX_RATE as u64).contains(megabits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states() {
        for (text, expected) in [
            ("4: ACTIVE", LinkState::Active),
            ("4: a word of a later kernel", LinkState::Active),
            ("3: ARMED", LinkState::Armed),
            ("2: INIT", LinkState::Init),
            ("1: DOWN", LinkState::Down),
            ("0: NOP", LinkState::Unknown),
            ("5: ACTIVE_DEFER", LinkState::Unknown),
            ("260: ACTIVE", LinkState::Unknown),
            ("ACTIVE", LinkState::Unknown),
            ("", LinkState::Unknown),
        ] {
            assert_eq!(port_state(text), expected, "{text}");
        }
        for (text, expected) in [
            ("up", LinkState::Active),
            ("down", LinkState::Down),
            ("lowerlayerdown", LinkState::Down),
            ("unknown", LinkState::Unknown),
            ("", LinkState::Unknown),
        ] {
            assert_eq!(operstate(text), expected, "{text}");
        }
    }

    #[test]
    fn rates() {
        for (text, expected) in [
            ("200 Gb/sec (4X HDR)", Some(200_000)),
            ("2.5 Gb/sec (1X SDR)", Some(2_500)),
            ("800 Gb/sec (4X XDR)", Some(800_000)),
            ("0 Gb/sec", None),
            ("-1 Gb/sec", None),
            ("NaN Gb/sec", None),
            ("inf Gb/sec", None),
            ("1e300 Gb/sec", None),
            ("200 GB/sec", None),
            ("200", None),
            ("", None),
        ] {
            assert_eq!(rate(text), expected, "{text}");
        }
        for (text, expected) in
            [("10000", Some(10_000)), ("-1", None), ("0", None), ("4294967295", None), ("", None)]
        {
            assert_eq!(speed(text), expected, "{text}");
        }
    }
}
