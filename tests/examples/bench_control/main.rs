//! The control plane of `cargo xtask bench control`: etcd, API server and operator as they are, and so many **fake agents**
//! in this process. They do what an agent does on the API (TransferNode, Lease, two watches by node, both halves of each
//! task) and move nothing. Answers each line of its input with the nanoseconds taken and words; ends with its input.
//!
//! `bench_control AGENTS`. Lines:
//! - `burst JOBS`, jobs of one hop at once, until all are Complete. Words: `writes=`, what the API server counted; `events=`,
//!   bytes of events that the fake agents were sent; `ideal=`, bytes of all events of tasks, twice.
//! - `rate JOBS`, the writes of so many jobs as fast as the API server takes them, on copies of the kinds. `writes=`.
//! - `memory`. Words: `rss=`, the operator's; `jobs=`, how many there are.

mod burst;
mod fake;
mod rate;
mod watch;

use std::io::{BufRead, Write};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use devcluster::ADMIN;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use nixl_transfer_tests::{Cluster, Setup, copies};

use burst::Burst;
use rate::Rate;

/// Longer than anything takes that is worth measuring.
const LONGEST: Duration = Duration::from_secs(900);

#[tokio::main]
async fn main() -> Result<()> {
    let agents: usize = std::env::args().nth(1).context("how many agents?")?.parse()?;
    let names: Vec<String> = (0..agents).map(fake::name).collect();
    let setup = names.iter().fold(Setup::nodes(&[]), |setup, name| setup.node_without_agent(name));
    let cluster = setup.start().await?;
    // Before anything is measured: the API server works on new kinds for a while.
    copies::define(&cluster)?;
    let client = client(&cluster).await?;
    // Ended before the cluster is.
    let (fakes, _running) = fake::start(&client, &names).await?;
    let mut burst = Burst::new(&cluster, client.clone(), names, fakes);
    // The first of all is not like the others, and tells how the objects look.
    burst.run(1).await?;
    let mut rate = Rate::like_the_first_job(&cluster, client).await?;
    rate.run(1).await?;
    say("ready")?;
    let mut line = String::new();
    while std::io::stdin().lock().read_line(&mut line)? > 0 {
        let (took, words) = match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["burst", jobs] => burst.run(jobs.parse()?).await?,
            ["rate", jobs] => rate.run(jobs.parse()?).await?,
            ["memory"] => {
                let pid =
                    cluster.operator.as_ref().and_then(|operator| operator.pid()).context("no operator")?;
                let rss = Cluster::rss(pid).context("no memory")?;
                (Duration::ZERO, format!("rss={rss} jobs={}", burst.jobs()))
            }
            _ => bail!("{line:?} is nothing to do"),
        };
        say(&format!("took {} {words}", took.as_nanos()))?;
        line.clear();
    }
    Ok(())
}

/// One whose watches may be silent.
async fn client(cluster: &Cluster) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(cluster.plane.kubeconfig(ADMIN))?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.read_timeout = None;
    Ok(Client::try_from(config)?)
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
