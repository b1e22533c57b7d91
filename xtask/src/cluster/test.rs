//! `cargo xtask cluster test`: the chart as a user installs it, in a real cluster; jobs by kubectl; files compared; all of
//! it uninstalled. On failure everything that the cluster can say is printed before it ends.

mod ask;
mod chart;
mod disturbances;
mod documented;
mod load;
mod reach;
mod report;
mod rights;
mod tenants;
mod theft;
mod work;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, ensure};

use devcluster::{Kubectl, ProcessInfo, descendants};

use super::record::{Place, Record};
use super::{down, images, logs, up};
use crate::progress::seconds;
use crate::{image, interrupt, paths};
use chart::Chart;

/// As the chart's README says.
const NAMESPACE: &str = devcluster::SYSTEM_NAMESPACE;

/// What the chart is installed in.
#[derive(Debug)]
pub struct Cluster<'a> {
    pub place: &'a Place,
    pub record: Record,
    pub kubectl: Kubectl,
}

impl Cluster<'_> {
    /// What a node runs of a program, in pods or out of them; `program` is how its path ends.
    pub fn running(&self, node: &str, program: &str) -> Result<Vec<ProcessInfo>> {
        let of_program = |it: &ProcessInfo| it.arguments.first().is_some_and(|path| path.ends_with(program));
        Ok(descendants(self.record.init(node)?).into_iter().filter(of_program).collect())
    }
}

/// A cluster that is up is used, and left up without the chart.
pub fn run(place: &Place, nodes: usize, chart: Option<PathBuf>) -> Result<()> {
    let started = Instant::now();
    let directory = chart.unwrap_or_else(|| paths::root().join("charts/nixl-transfer"));
    ensure!(directory.join("Chart.yaml").is_file(), "there is no chart in {}", directory.display());
    let found = up::found(place)?;
    let record = match &found {
        Some(record) => {
            ensure!(
                record.nodes > 1,
                "a transfer needs two nodes, and one is up: `cargo xtask cluster down`"
            );
            eprintln!("  the cluster of {} nodes that is up is used", record.nodes);
            images::bring(place, record, image::ALL, &up::programs(image::ALL)?)?;
            record.clone()
        }
        None => up::make(place, nodes, image::ALL)?,
    };
    let cluster = Cluster { place, kubectl: up::kubectl(place), record };
    let result = phases(&cluster, &directory);
    if result.is_err() && !interrupt::requested() {
        report::print(place);
        logs::keep(place);
    }
    if found.is_none() {
        down::clear(place, &cluster.record)?;
    }
    result?;
    println!("The chart works on {} nodes ({}).", cluster.record.nodes, seconds(started.elapsed()));
    Ok(())
}

fn phases(cluster: &Cluster, directory: &Path) -> Result<()> {
    let Cluster { place, record, kubectl } = cluster;
    let chart = Chart { place, directory };
    chart.lint()?;
    chart.clear(kubectl, record.nodes)?;
    chart.install()?;
    chart.validate(kubectl)?;
    work::agents_report(kubectl, record.nodes)?;
    work::logs_and_exec(kubectl)?;
    work::jobs(place, kubectl)?;
    documented::first_transfer(place, kubectl)?;
    work::memory(place, kubectl)?;
    theft::opens_nothing(cluster)?;
    tenants::are_apart(cluster)?;
    tenants::roles_mean_what_they_say(cluster)?;
    work::operators_may_go(place, kubectl)?;
    work::agents_may_go(place, kubectl)?;
    disturbances::none_is_lost(cluster, &chart)?;
    rights::as_granted(place)?;
    chart.uninstall()?;
    work::nothing_is_left(kubectl)
}
