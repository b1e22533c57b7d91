//! The jobs of `cargo xtask bench`: a cluster of two nodes that moves what its standard input says, and answers each line
//! with the nanoseconds that were taken. It ends with its input. The measured program only; who wins is decided there.
//!
//! `bench_jobs DIRECTORY`: the nodes' volumes are `a` and `b` in it. Lines: `move FROM TO`, from node a to node b; and
//! `floor`, the same without anything being done, after the bodies of a job from `warm` to `warm`.

mod floor;

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use devcluster::Volume;
use floor::Floor;
use nixl_transfer_tests::{Cluster, Setup, jobs::one_to_one};
use serde_json::Value;

/// Longer than anything takes that is worth measuring.
const LONGEST: Duration = Duration::from_secs(120);

#[tokio::main]
async fn main() -> Result<()> {
    let directory = PathBuf::from(std::env::args_os().nth(1).context("no directory")?);
    let volume = |node: &str| {
        let mut volume = Volume::new("data");
        volume.path = Some(directory.join(node));
        vec![volume]
    };
    let cluster =
        Setup::nodes(&["a", "b"]).volumes("a", volume("a")).volumes("b", volume("b")).start().await?;
    say("ready")?;
    let (mut number, mut floor) = (0, None);
    let mut line = String::new();
    while std::io::stdin().lock().read_line(&mut line)? > 0 {
        number += 1;
        let took = match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["move", from, to] => move_one(&cluster, &format!("job-{number}"), from, to).await?.took,
            ["floor"] => {
                if floor.is_none() {
                    let real = move_one(&cluster, "recorded", "warm", "warm").await?;
                    floor = Some(Floor::start(&cluster, real.job, real.task).await?);
                }
                floor.as_ref().context("set above")?.run(&format!("job-{number}")).await?
            }
            _ => bail!("{line:?} is nothing to do"),
        };
        say(&format!("took {}", took.as_nanos()))?;
        line.clear();
    }
    Ok(())
}

struct Moved {
    took: Duration,
    job: Value,
    task: Value,
}

/// Apply to Complete. The job is deleted afterwards, and gone when this returns, so that all start alike.
async fn move_one(cluster: &Cluster, name: &str, from: &str, to: &str) -> Result<Moved> {
    let job = serde_json::from_value(one_to_one(name, ("a", from), ("b", to)))?;
    let since = Instant::now();
    cluster.jobs().create(&Default::default(), &job).await?;
    let job = cluster.wait_complete(name, LONGEST).await?;
    let took = since.elapsed();
    let task = cluster.tasks_of(name).await?.pop().context("a job has a task")?;
    cluster.jobs().delete(name, &Default::default()).await?;
    cluster.wait_no_tasks(name, LONGEST).await?;
    Ok(Moved { took, job: serde_json::to_value(job)?, task: serde_json::to_value(task)? })
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
