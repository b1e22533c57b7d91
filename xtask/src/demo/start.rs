//! Starts the demo's cluster: control plane and data set at the same time, then operator and agents.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use devcluster::{
    Agent, AgentOptions, Assets, ClusterDir, ControlPlane, ControlPlaneOptions, NixlPaths, Operator,
    OperatorOptions, Tie,
};

use super::dataset;
use crate::interrupt;
use crate::paths;
use crate::progress::{Step, bytes, seconds};

/// All that runs. Fields are dropped in this order: agents before the servers they talk to, the directory last.
#[derive(Debug)]
pub struct Running {
    pub agents: Vec<Agent>,
    pub operator: Operator,
    pub plane: ControlPlane,
    pub cluster: ClusterDir,
}

impl Running {
    /// Ends everything, gracefully where that is quick.
    pub fn stop(self) {
        let Self { agents, operator, plane, cluster } = self;
        thread::scope(|scope| {
            for agent in agents {
                scope.spawn(move || agent.stop(Duration::from_secs(5)));
            }
            scope.spawn(move || operator.stop(Duration::from_secs(5)));
        });
        plane.stop();
        drop(cluster);
    }
}

/// `node-a`, `node-b`, …
fn node_name(index: u8) -> String {
    format!("node-{}", char::from(b'a' + index))
}

pub fn start(nodes: u8, tie: Tie, directory: Option<PathBuf>) -> Result<Running> {
    let parent = directory.unwrap_or_else(std::env::temp_dir);
    let parent = parent.join(format!("nixl-transfer-{}", rustix::process::getuid().as_raw()));
    let cluster = ClusterDir::create(&parent, "demo")?;
    let names: Vec<String> = (0..nodes).map(node_name).collect();

    let step = Step::start("starting etcd and kube-apiserver, and writing the data set");
    let tree = Agent::directory_in(&cluster, &names[0]).join("volumes/data").join(dataset::TREE);
    let (plane, written) = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let started = Instant::now();
            dataset::write(&tree).map(|written| (written, started.elapsed()))
        });
        let plane = start_plane(&cluster, &names, tie);
        (plane, writer.join())
    });
    let plane = plane?;
    let (written, time) = written.map_err(|_| anyhow!("the writer of the data set panicked"))??;
    step.done(&format!("{} files, {} written in {}", written.files, bytes(written.bytes), seconds(time)));
    interrupt::check()?;

    let mut step = Step::start(format!("starting the operator and {nodes} agents"));
    let binaries = paths::binaries();
    let operator =
        Operator::start(&cluster, &plane, OperatorOptions::new(binaries.join("transfer-operator")))?;
    let nixl = NixlPaths::find()?;
    let mut agents = Vec::new();
    for name in &names {
        let options = AgentOptions::new(binaries.join("transfer-agent"), name, nixl.clone());
        agents.push(Agent::start(&cluster, &plane, options)?);
    }
    operator.wait_ready()?;
    for (ready, agent) in agents.iter().enumerate() {
        interrupt::check()?;
        step.tick(&format!("{ready} of {nodes} agents are ready"));
        agent.wait_ready()?;
    }
    step.done("all ready");
    Ok(Running { agents, operator, plane, cluster })
}

fn start_plane(cluster: &ClusterDir, names: &[String], tie: Tie) -> Result<ControlPlane> {
    let mut options = ControlPlaneOptions::new(Assets::find()?);
    options.tie = tie;
    for (index, name) in names.iter().enumerate() {
        options = options.node(name, &[("role", if index == 0 { "source" } else { "receiver" })]);
    }
    ControlPlane::start(cluster, options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_lettered() {
        assert_eq!((node_name(0), node_name(15)), ("node-a".to_owned(), "node-p".to_owned()));
    }
}
