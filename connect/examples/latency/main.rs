//! Measures operations between two processes over UCX tcp on the loopback device: Rust with Rust, Python with Python, and
//! both mixtures, interleaved in one run. Prints latencies, throughput, and what an idle end costs. Never a test.
//!
//! `cargo run -p nixl-connect --example latency -- [ROUNDS]`, or `cargo xtask figures connect`, which also builds and
//! fetches what is needed. Without the Python environment of `cargo xtask tools` only the Rust rows are printed.

mod end;
mod pair;
mod plan;
mod table;

use std::error::Error;

use nixl_connect::exit_now;

use pair::Side;
use plan::Case;
use table::Table;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Every pair does everything once in each round, so that what else the machine does falls on all alike.
const ROUNDS: usize = 5;
const SMALL: usize = 64;
const MIDDLE: usize = 1 << 20;
const LARGE: usize = 256 << 20;
/// The passive end first: it is the one that measures.
const PAIRS: [(&str, Side, Side); 4] = [
    ("ours, ours", Side::Rust, Side::Rust),
    ("Python, Python", Side::Python, Side::Python),
    ("active ours, passive Python", Side::Python, Side::Rust),
    ("active Python, passive ours", Side::Rust, Side::Python),
];

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((role, cases)) if role == "passive" || role == "active" => {
            let plan = cases.iter().map(|case| case.parse()).collect::<Outcome<Vec<Case>>>()?;
            let outcome = if role == "passive" { end::passive(&plan) } else { end::active(&plan) };
            if let Err(error) = &outcome {
                eprintln!("{role}: {error}");
            }
            exit_now(i32::from(outcome.is_err()))
        }
        rounds => measure(rounds.map_or(Ok(ROUNDS), |(rounds, _)| rounds.parse())?),
    }
}

fn measure(rounds: usize) -> Outcome {
    let python = pair::has_python();
    if !python {
        println!("no Python environment in .tools/python (see `cargo xtask tools`): Rust ends only");
    }
    let pairs: Vec<_> = PAIRS
        .into_iter()
        .filter(|(_, passive, active)| python || ![passive, active].contains(&&Side::Python))
        .collect();
    let mut tables: Vec<Table> = pairs.iter().map(|(name, ..)| Table::new(name)).collect();
    for round in 0..rounds {
        for ((_, passive, active), table) in pairs.iter().zip(&mut tables) {
            // Mixed pairs would only show the idle cost of the same ends once more.
            let plan = plan(round == 0 && passive == active);
            table.add(&plan, pair::run(*passive, *active, &plan)?);
        }
    }
    table::print(&tables, rounds)
}

/// The first operation of two processes, which connects them, is a case of its own.
fn plan(with_rest: bool) -> Vec<Case> {
    let mut plan = vec![Case::Read { size: SMALL, count: 1 }];
    for (size, count) in [(SMALL, 60), (MIDDLE, 60), (LARGE, 2)] {
        plan.extend([Case::Read { size, count }, Case::Write { size, count }]);
    }
    if with_rest {
        plan.extend([Case::Idle { seconds: 5 }, Case::Open { seconds: 5 }]);
    }
    plan
}
