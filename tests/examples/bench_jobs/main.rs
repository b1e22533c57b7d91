//! The jobs of `cargo xtask bench`: a cluster that moves what its standard input says, and answers each line with the
//! nanoseconds that were taken. It ends with its input. The measured program only; who wins is decided there.
//!
//! `bench_jobs DIRECTORY [PLACE]`: each node's volume is the directory of its name in it. `PLACE` says where the nodes are
//! (`place.rs`). Lines:
//! - `move FROM TO`, from node a to node b.
//! - `region NAME NODE BYTES`, a region that the agent of a node holds. `between END END`, an end is `memory:NAME` or
//!   `NODE:PATH`.
//! - `fan HOW COUNT FROM TO`, from node a to so many others; the answer says how it was really done.
//! - `fan-with-a-death HOW COUNT HALF FROM TO`, the same; when the second of them has HALF bytes its agent is killed.
//! - `die BYTES FROM TO`, as `move`; when node b has so many bytes its worker is killed. The answer says what was counted.
//! - `writes COUNT FROM TO`, so many moves in a row: what the API server counted. `idle SECONDS`: the same of nothing.
//! - `floor`, a move without anything being done, after the bodies of a job from `warm` to `warm`.

mod ends;
mod floor;
mod moves;
mod place;
mod resume;
mod writes;

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use floor::Floor;
use place::Place;

/// Longer than anything takes that is worth measuring.
const LONGEST: Duration = Duration::from_secs(240);

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().context("no directory")?);
    let place = Place::parse(arguments.next().as_deref())?;
    let mut cluster = place.start(&directory).await?;
    say("ready")?;
    let (mut number, mut floor) = (0, None);
    let mut line = String::new();
    while std::io::stdin().lock().read_line(&mut line)? > 0 {
        number += 1;
        let name = format!("job-{number}");
        let receivers = |count: &str| -> Result<Vec<String>> {
            let count: usize = count.parse()?;
            Ok(place.names.get(1..=count).context("more receivers than nodes")?.to_vec())
        };
        let (took, more) = match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["move", from, to] => (moves::one(&cluster, &name, from, to).await?.took, String::new()),
            ["region", region, node, bytes] => {
                let since = std::time::Instant::now();
                ends::region(&cluster, region, node, bytes.parse()?).await?;
                (since.elapsed(), String::new())
            }
            ["between", from, to] => (ends::between(&cluster, &name, from, to).await?.took, String::new()),
            ["fan", how, count, from, to] => {
                let job = moves::fan(&name, how, &receivers(count)?, from, to);
                let moved = moves::complete(&cluster, &job).await?;
                (moved.took, format!(" {}", moved.fan_out()))
            }
            ["fan-with-a-death", how, count, half, from, to] => {
                let receivers = receivers(count)?;
                let job = moves::fan(&name, how, &receivers, from, to);
                let took = moves::fan_with_a_death(&mut cluster, &job, &receivers, half.parse()?).await?;
                (took, String::new())
            }
            ["die", bytes, from, to] => resume::die(&cluster, &name, bytes.parse()?, from, to).await?,
            ["writes", count, from, to] => writes::of_jobs(&cluster, &name, count.parse()?, from, to).await?,
            ["idle", seconds] => writes::of_nothing(&cluster, seconds.parse()?).await?,
            ["floor"] => {
                if floor.is_none() {
                    let real = moves::one(&cluster, "recorded", "warm", "warm").await?;
                    let (job, task) = (serde_json::to_value(real.job)?, serde_json::to_value(real.task)?);
                    floor = Some(Floor::start(&cluster, job, task).await?);
                }
                (floor.as_ref().context("set above")?.run(&name).await?, String::new())
            }
            _ => bail!("{line:?} is nothing to do"),
        };
        say(&format!("took {}{more}", took.as_nanos()))?;
        line.clear();
    }
    Ok(())
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
