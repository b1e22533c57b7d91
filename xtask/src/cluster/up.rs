//! Makes the cluster: writes down what it is about to make, makes it, and returns when all nodes are ready.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use devcluster::Kubectl;

use super::certificates::{self, ADMIN};
use super::control_plane::{self, HUB};
use super::network::{self, Network};
use super::plan::Plan;
use super::record::{HIDDEN_ON_NODES, Place, Record, private_directory};
use super::space::Space;
use super::{cgroups, down, images, logs, node};
use crate::image::{self, Name};
use crate::progress::Step;
use crate::test::cargo_build;
use crate::tools::{self, Wanted};
use crate::{exec, interrupt, paths};

const SERVES_WITHIN: Duration = Duration::from_secs(90);
const READY_WITHIN: Duration = Duration::from_secs(120);

/// `cargo xtask cluster up`
pub fn run(place: &Place, nodes: usize, bare: bool) -> Result<()> {
    match found(place)? {
        Some(record) => {
            ensure!(
                record.nodes == nodes,
                "a cluster of {} nodes is up: `cargo xtask cluster down` ends it",
                record.nodes
            );
            println!("A cluster of {nodes} nodes is up already.");
        }
        None => drop(make(place, nodes, if bare { &[Name::Pause] } else { image::ALL })?),
    }
    let config = place.kubeconfig(ADMIN);
    println!("export KUBECONFIG={}", config.display());
    println!("{} get nodes", paths::tools().join("bin/kubectl").display());
    Ok(())
}

/// The cluster that is up.
pub fn found(place: &Place) -> Result<Option<Record>> {
    Ok(place.record()?.filter(|record| record.complete && record.is_alive()))
}

/// Where the programs of images are, built: in `NIXL_TRANSFER_BIN_DIR`, as whoever sets it says, else by cargo.
pub fn programs(wanted: &[Name]) -> Result<PathBuf> {
    if let Some(directory) = std::env::var_os("NIXL_TRANSFER_BIN_DIR") {
        return Ok(directory.into());
    }
    if wanted.iter().any(|name| *name != Name::Pause) {
        cargo_build(image::PROGRAMS)?;
    }
    Ok(paths::binaries())
}

/// A new one, after what is left of an earlier one was removed. What fails leaves logs, and nothing else.
pub fn make(place: &Place, nodes: usize, wanted: &[Name]) -> Result<Record> {
    match place.record()? {
        Some(left) => {
            eprintln!("  an earlier cluster was not ended, or lost a part: what is left of it is removed");
            down::clear(place, &left)?;
        }
        // Files of one that was interrupted while it was removed.
        None => place.remove()?,
    }
    tools::ensure(Wanted::Cluster)?;
    let programs = programs(wanted)?;
    let tag = format!("nixl-{}", process::id());
    let record = Record { tag, network: Network::free()?.0, nodes, complete: false, processes: Vec::new() };
    place.write(&record)?;
    build(place, record, wanted, &programs).inspect_err(|_| {
        if !interrupt::requested() {
            logs::keep(place);
        }
        if let Ok(Some(record)) = place.record()
            && let Err(second) = down::clear(place, &record)
        {
            eprintln!("{second:#}; `cargo xtask cluster down` tries again");
        }
    })
}

fn build(place: &Place, mut record: Record, wanted: &[Name], programs: &Path) -> Result<Record> {
    let step = Step::start(format!("making a hub, nodes ({}), and what joins them", record.nodes));
    let (network, names) = (Network(record.network), node::names(record.nodes));
    certificates::make(place, network, &names)?;
    cgroups::create(&record.tag, &names)?;
    let mut spaces = vec![space(place, HUB, || control_plane::plan(place, network))?];
    for (at, name) in names.iter().enumerate() {
        spaces.push(space(place, name, || node::plan(place, &record, at))?);
    }
    for space in &spaces {
        record.processes.extend(space.processes.iter().map(|process| (space.name.clone(), process.clone())));
    }
    place.write(&record)?;
    network::join(&record, &spaces)?;
    spaces.into_iter().try_for_each(Space::let_go)?;
    step.done(&format!("addresses are in {}", network.all()));

    let kubectl = kubectl(place);
    let mut step = Step::start("waiting for the control plane");
    wait(&record, &mut step, SERVES_WITHIN, || {
        kubectl.run(&["get", "--raw=/readyz", "--request-timeout=2s"]).map(drop)
    })?;
    step.done("it serves");
    let mut step = Step::start("waiting for the nodes");
    wait(&record, &mut step, READY_WITHIN, || {
        let ready = ready_nodes(&kubectl)?;
        let missing: Vec<&String> = names.iter().filter(|name| !ready.contains(*name)).collect();
        ensure!(missing.is_empty(), "not ready: {missing:?}");
        Ok(())
    })?;
    step.done("all ready");
    images::bring(place, &record, wanted, programs)?;
    record.complete = true;
    place.write(&record)?;
    Ok(record)
}

fn space(place: &Place, name: &str, plan: impl FnOnce() -> Result<Plan>) -> Result<Space> {
    let directory = place.space(name);
    private_directory(&directory)?;
    let file = directory.join("plan.json");
    fs::write(&file, format!("{:#}\n", plan()?.render()))?;
    Space::start(name, &file, &directory.join("init.log"))
}

/// kubectl as administrator.
pub fn kubectl(place: &Place) -> Kubectl {
    let program = paths::tools().join("bin/kubectl");
    Kubectl::new(&program, &place.kubeconfig(ADMIN), &place.path().join("kubectl-cache"))
}

fn ready_nodes(kubectl: &Kubectl) -> Result<BTreeSet<String>> {
    let path = "jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type==\"Ready\")].status}{\"\\n\"}{end}";
    let said = kubectl.run(&["get", "nodes", "--output", path, "--request-timeout=5s"])?;
    Ok(said.lines().filter_map(|line| line.strip_suffix(" True")).map(str::to_owned).collect())
}

/// Asks until there is no error, as long as all spaces live.
fn wait(record: &Record, step: &mut Step, within: Duration, ask: impl Fn() -> Result<()>) -> Result<()> {
    let deadline = Instant::now() + within;
    while let Err(error) = ask() {
        interrupt::check()?;
        ensure!(record.is_alive(), "a part of the cluster has ended ({error:#})");
        if Instant::now() >= deadline {
            return Err(error).context(format!("not within {} s", within.as_secs()));
        }
        step.tick(&format!("{error:#}"));
        // Polled: each kubectl takes a processor from the very programs that it waits for.
        thread::sleep(Duration::from_millis(300));
    }
    Ok(())
}

/// What no tool of ours can bring.
pub fn needs() -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "a cluster needs root: run this with sudo, or as root");
    for (program, package) in
        [("unshare", "util-linux"), ("nsenter", "util-linux"), ("mount", "mount"), ("ip", "iproute2")]
    {
        let missing = || format!("{program} is missing: install the package {package}");
        exec::output(program, &[if program == "ip" { "-V" } else { "--version" }]).with_context(missing)?;
    }
    let unshare = ["--net", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "true"];
    exec::output("unshare", &unshare).context("root may make no namespaces here (is this a container?)")?;
    for path in [paths::root(), paths::cache()?] {
        let hidden = HIDDEN_ON_NODES.iter().find(|hidden| path.starts_with(hidden));
        ensure!(
            hidden.is_none(),
            "{} is where nodes have directories of their own: move the checkout, or set XDG_CACHE_HOME",
            path.display()
        );
    }
    Ok(())
}
