//! Starts the demo's cluster: control plane and data set at the same time, then operator and agents.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use devcluster::{
    Agent, AgentOptions, Assets, ClusterDir, ControlPlane, ControlPlaneOptions, NixlPaths, Operator,
    OperatorOptions, Tie,
};

use super::dataset;
use crate::interrupt;
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
    /// An error with the log's path when one of our processes has ended: nobody would finish the jobs.
    pub fn all_alive(&self) -> Result<()> {
        ensure!(
            self.operator.is_running(),
            "the operator has ended; its log is {}",
            self.operator.log().display()
        );
        for agent in &self.agents {
            ensure!(
                agent.is_running(),
                "the agent of {} has ended; its log is {}",
                agent.node(),
                agent.log().display()
            );
        }
        Ok(())
    }

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

pub fn start(nodes: u8, tie: Tie, directory: Option<PathBuf>, binaries: &Path) -> Result<Running> {
    let parent = directory.unwrap_or_else(std::env::temp_dir);
    let parent = parent.join(format!("nixl-transfer-{}", rustix::process::getuid().as_raw()));
    let mut cluster = ClusterDir::create(&parent, "demo")?;
    let names: Vec<String> = (0..nodes).map(node_name).collect();
    let started = servers(&cluster, &names, tie).and_then(|plane| {
        processes(&cluster, &plane, &names, binaries).map(|(operator, agents)| (plane, operator, agents))
    });
    match started {
        Ok((plane, operator, agents)) => Ok(Running { agents, operator, plane, cluster }),
        Err(error) if interrupt::requested() => Err(error),
        Err(error) => {
            // The error names logs: they stay until the next demo.
            cluster.keep_files();
            Err(error.context(format!("the demo did not start; logs are in {}", cluster.path().display())))
        }
    }
}

fn servers(cluster: &ClusterDir, names: &[String], tie: Tie) -> Result<ControlPlane> {
    let step = Step::start("starting etcd and kube-apiserver, and writing the data set");
    let tree = Agent::directory_in(cluster, &names[0]).join("volumes/data").join(dataset::TREE);
    let (plane, written) = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let started = Instant::now();
            dataset::write(&tree).map(|written| (written, started.elapsed()))
        });
        let plane = start_plane(cluster, names, tie);
        (plane, writer.join())
    });
    let plane = plane?;
    let (written, time) = written.map_err(|_| anyhow!("the writer of the data set panicked"))??;
    step.done(&format!("{} files, {} written in {}", written.files, bytes(written.bytes), seconds(time)));
    interrupt::check()?;
    Ok(plane)
}

fn processes(
    cluster: &ClusterDir,
    plane: &ControlPlane,
    names: &[String],
    binaries: &Path,
) -> Result<(Operator, Vec<Agent>)> {
    let count = names.len();
    let mut step = Step::start(format!("starting the operator and {count} agents"));
    let operator = Operator::start(cluster, plane, OperatorOptions::new(binaries.join("transfer-operator")))?;
    let nixl = NixlPaths::find()?;
    let mut agents = Vec::new();
    for name in names {
        let options = AgentOptions::new(binaries.join("transfer-agent"), name, nixl.clone());
        agents.push(Agent::start(cluster, plane, options)?);
    }
    operator.wait_ready()?;
    for (ready, agent) in agents.iter().enumerate() {
        interrupt::check()?;
        step.tick(&format!("{ready} of {count} agents are ready"));
        agent.wait_ready()?;
    }
    step.done("all ready");
    Ok((operator, agents))
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
