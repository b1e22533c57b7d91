//! Lines that say what runs, how far it is and how long it took. In a terminal the current line is redrawn; elsewhere a
//! line is written at the start, every 15 s, and at the end.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

/// One step on the screen.
#[derive(Debug)]
pub struct Step {
    label: String,
    started: Instant,
    drawn: Instant,
    terminal: bool,
    ended: bool,
}

impl Step {
    pub fn start(label: impl Into<String>) -> Self {
        let step = Self {
            label: label.into(),
            started: Instant::now(),
            drawn: Instant::now(),
            terminal: stderr().is_terminal(),
            ended: false,
        };
        if step.terminal {
            step.draw("…");
        } else {
            eprintln!("  {} …", step.label);
        }
        step
    }

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// How far it is; cheap enough to be called often.
    pub fn tick(&mut self, how_far: &str) {
        let interval = if self.terminal { Duration::from_millis(100) } else { Duration::from_secs(15) };
        if self.drawn.elapsed() >= interval {
            self.drawn = Instant::now();
            if self.terminal {
                self.draw(how_far);
            } else {
                eprintln!("  {} … {how_far} ({})", self.label, seconds(self.elapsed()));
            }
        }
    }

    pub fn done(mut self, detail: &str) {
        self.finish("✔", detail);
    }

    pub fn failed(mut self, detail: &str) {
        self.finish("✘", detail);
    }

    fn finish(&mut self, mark: &str, detail: &str) {
        self.ended = true;
        let clear = if self.terminal { "\r\x1b[K" } else { "" };
        let gap = if detail.is_empty() { "" } else { ": " };
        eprintln!("{clear}{mark} {}{gap}{detail} ({})", self.label, seconds(self.elapsed()));
    }

    fn draw(&self, how_far: &str) {
        eprint!("\r\x1b[K  {} {how_far} ({})", self.label, seconds(self.elapsed()));
        let _ = stderr().flush();
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.ended {
            self.finish("✘", "not finished");
        }
    }
}

/// `0.04 s`, `3.2 s`, `2 min 05 s`.
pub fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        ..0.1 => format!("{seconds:.2} s"),
        ..99.95 => format!("{seconds:.1} s"),
        _ => format!("{} min {:02} s", seconds as u64 / 60, seconds as u64 % 60),
    }
}

/// `1.5 GiB`, `300 MiB`, `12 KiB`.
pub fn bytes(count: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.iter().find(|(_, shift)| count >= 1 << shift) {
        Some((unit, shift)) => format!("{:.1} {unit}", count as f64 / f64::from(1u32 << shift)),
        None => format!("{count} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_read_well() {
        assert_eq!(seconds(Duration::from_millis(40)), "0.04 s");
        assert_eq!(seconds(Duration::from_millis(3210)), "3.2 s");
        assert_eq!(seconds(Duration::from_secs(125)), "2 min 05 s");
        assert_eq!(bytes(300 << 20), "300.0 MiB");
        assert_eq!(bytes(12), "12 B");
        assert_eq!(bytes(3 << 29), "1.5 GiB");
    }
}
