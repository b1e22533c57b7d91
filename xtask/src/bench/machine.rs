//! The machine that was measured on, named in every result: ratios are from one run on one machine, and no more.

use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::exec;

#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub kernel: String,
    pub memory_gib: f64,
    /// The load averages before and after the measurements: ours and everybody else's.
    pub load_before: String,
    pub load_after: String,
    pub rounds: usize,
    pub commit: String,
}

impl Machine {
    /// Reads everything but the load at the end.
    pub fn look(rounds: usize) -> Result<Self> {
        let processors = fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo")?;
        let memory = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
        let kilobytes: f64 =
            field(&memory, "MemTotal").and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(0.0);
        Ok(Self {
            processor: field(&processors, "model name").unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism()?.get(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            memory_gib: kilobytes / f64::from(1 << 20),
            load_before: load()?,
            load_after: String::new(),
            rounds,
            commit: commit(),
        })
    }

    /// To be called when all is measured.
    pub fn end(&mut self) -> Result<()> {
        self.load_after = load()?;
        Ok(())
    }

    pub fn text(&self) -> String {
        format!(
            "{}, {} cores, {:.0} GiB, Linux {}; load average {} before and {} after; {} rounds, ours and the peers in \
             turn; commit {}",
            self.processor,
            self.cores,
            self.memory_gib,
            self.kernel,
            self.load_before,
            self.load_after,
            self.rounds,
            self.commit
        )
    }

    pub fn json(&self) -> Value {
        json!({
            "cpu": self.processor, "cores": self.cores, "kernel": self.kernel, "memoryGiB": self.memory_gib,
            "loadBefore": self.load_before, "loadAfter": self.load_after, "rounds": self.rounds,
            "commit": self.commit,
        })
    }
}

/// The value of the first line `NAME: VALUE`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(field, _)| field.trim() == name).map(|(_, value)| value.trim())
}

/// Of one, five and fifteen minutes.
fn load() -> Result<String> {
    let text = fs::read_to_string("/proc/loadavg").context("/proc/loadavg")?;
    Ok(text.split(' ').take(3).collect::<Vec<_>>().join(" "))
}

/// What was measured; outside a checkout nobody knows.
fn commit() -> String {
    let git = |arguments: &[&str]| exec::output("git", arguments);
    match (git(&["rev-parse", "--short", "HEAD"]), git(&["status", "--porcelain", "--untracked-files=no"])) {
        (Ok(commit), Ok(changes)) if changes.is_empty() => commit,
        (Ok(commit), _) => format!("{commit} with changes"),
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "processor\t: 0\nmodel\t\t: 85\nmodel name\t: Some CPU @ 2 GHz\nmodel name\t: Other\n";
        assert_eq!(field(text, "model name"), Some("Some CPU @ 2 GHz"));
        assert_eq!(field(text, "bogomips"), None);
    }

    #[test]
    fn this_machine_has_a_name_cores_and_a_load() {
        let mut machine = Machine::look(5).unwrap();
        machine.end().unwrap();
        assert!(machine.cores > 0 && machine.memory_gib > 0.0 && !machine.kernel.is_empty());
        assert_eq!(machine.load_after.split(' ').count(), 3);
        assert!(machine.text().contains(&machine.kernel));
    }
}
