//! Collects figures and prints them. No I/O but printing.

use std::time::Duration;

use super::Outcome;
use super::plan::Case;
use super::{LARGE, MIDDLE, SMALL};

/// The figures of one pair, over all rounds.
pub struct Table {
    name: String,
    rows: Vec<(Case, Vec<Duration>)>,
}

impl Table {
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), rows: Vec::new() }
    }

    /// Adds one round's.
    pub fn add(&mut self, plan: &[Case], figures: Vec<Vec<Duration>>) {
        for (case, figures) in plan.iter().zip(figures) {
            match self.rows.iter_mut().find(|(known, _)| known == case) {
                Some((_, all)) => all.extend(figures),
                None => self.rows.push((*case, figures)),
            }
        }
    }

    /// All figures of a kind of case, sorted.
    fn sorted(&self, wanted: impl Fn(&Case) -> bool) -> Vec<Duration> {
        let rows = self.rows.iter().filter(|(case, _)| wanted(case));
        let mut figures: Vec<Duration> = rows.flat_map(|(_, figures)| figures).copied().collect();
        figures.sort();
        figures
    }
}

pub fn print(tables: &[Table], rounds: usize) -> Outcome {
    let load = std::fs::read_to_string("/proc/loadavg")?;
    println!(
        "{rounds} rounds interleaved, {} cores, load {}; UCX tcp on lo; passive created, metadata through a pipe, active \
         begun, both complete",
        std::thread::available_parallelism()?,
        load.split(' ').next().unwrap_or("?")
    );
    let width = tables.iter().map(|table| table.name.chars().count()).max().unwrap_or(0);
    for (kind, is_read) in [("read", true), ("write", false)] {
        let is = |case: &Case, wanted: usize| match *case {
            Case::Read { size, count } => is_read && size == wanted && count > 1,
            Case::Write { size, .. } => !is_read && size == wanted,
            Case::Idle { .. } | Case::Open { .. } => false,
        };
        let name = format!("{kind}; ms: p50 / p99");
        println!(
            "\n{name:<width$}  {:>18}  {:>18}  {:>26}",
            "64 B", "1 MiB", "256 MiB, GB/s: median (range)"
        );
        for table in tables {
            let small = latency(&table.sorted(|case| is(case, SMALL)));
            let middle = latency(&table.sorted(|case| is(case, MIDDLE)));
            let large = throughput(&table.sorted(|case| is(case, LARGE)));
            println!("{:<width$}  {small:>18}  {middle:>18}  {large:>26}", table.name);
        }
    }
    println!(
        "\nfirst operation of two processes, ms: median; and processor time of the passive end in 5 s, ms"
    );
    println!("{:<width$}  {:>18}  {:>18}  {:>26}", "", "first", "at rest", "with one operation open");
    for table in tables {
        let first = table.sorted(|case| matches!(case, Case::Read { count: 1, .. }));
        let cost = |figures: Vec<Duration>| {
            figures.first().map_or("-".to_owned(), |cost| format!("{:.2}", ms(*cost)))
        };
        let rest = cost(table.sorted(|case| matches!(case, Case::Idle { .. })));
        let open = cost(table.sorted(|case| matches!(case, Case::Open { .. })));
        println!("{:<width$}  {:>18.2}  {rest:>18}  {open:>26}", table.name, ms(middle(&first)));
    }
    Ok(())
}

fn latency(sorted: &[Duration]) -> String {
    let p99 = sorted.get(sorted.len() * 99 / 100).copied().unwrap_or_default();
    format!("{:.3} / {:.3}", ms(middle(sorted)), ms(p99))
}

fn throughput(sorted: &[Duration]) -> String {
    let rate = |took: &Duration| LARGE as f64 / took.as_secs_f64() / 1e9;
    match (sorted.first(), sorted.last()) {
        (Some(best), Some(worst)) => {
            format!("{:.2} ({:.2} to {:.2})", rate(&middle(sorted)), rate(worst), rate(best))
        }
        _ => "-".to_owned(),
    }
}

fn middle(sorted: &[Duration]) -> Duration {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
