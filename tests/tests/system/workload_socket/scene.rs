//! Two nodes, and on the first one a pod that does right.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nixl_transfer_client::{Event, Workload, shared_memory};
use nixl_transfer_tests::{
    Cluster, Setup,
    data::write_file,
    raw_client::RawClient,
    regions::{file, job, memory, region},
    workloads::Sockets,
};
use serde_json::{Value, json};

pub const SOON: Duration = Duration::from_secs(60);
/// Of the good pod's memory; no multiple of anything.
pub const LENGTH: u64 = (2 << 20) + 4097;

/// Name of a file that a workload sends.
pub const ORDINARY: &str = "ordinary";

/// A good pod.
pub struct Good {
    agent: Workload,
    memory: File,
    region: String,
    transfers: u64,
}

/// What the tests have.
pub struct Scene {
    pub cluster: Cluster,
    pub sockets: Sockets,
    descriptors: usize,
}

pub fn of_workload(name: &str, node: &str) -> Value {
    region(name, node, json!({"workload": {}}))
}

impl Scene {
    /// Starts it; the pod `good` has its memory in place, and something was moved there.
    pub async fn start() -> Result<(Self, Good)> {
        let sockets = Sockets::new()?;
        let (a, b) = (sockets.config("a"), sockets.config("b"));
        let cluster = Setup::nodes(&["a", "b"]).agent_config("a", a).agent_config("b", b).start().await?;
        let mut scene = Self { cluster, sockets, descriptors: 0 };
        let mut good = scene.good("good").await?;
        scene.serves(&mut good).await?;
        scene.descriptors = scene.open_descriptors()?;
        Ok((scene, good))
    }

    pub fn socket(&self) -> PathBuf {
        self.sockets.of("a")
    }

    /// A pod on the first node that does right, and its region, both of that name.
    pub async fn good(&self, name: &str) -> Result<Good> {
        self.cluster.apply(&of_workload(name, "a"))?;
        let mut agent = self.cluster.workload(&self.sockets, name, "a")?;
        let memory = shared_memory(LENGTH)?;
        agent.hand_over(name, &memory, LENGTH, SOON)?;
        self.cluster.wait_region_ready(name, SOON).await?;
        Ok(Good { agent, memory, region: name.into(), transfers: 0 })
    }

    /// Moves something new into the good pod's memory: it must arrive, and the pod must hear of it.
    pub async fn serves(&self, good: &mut Good) -> Result<()> {
        let name = self.begin(good, json!({}))?;
        self.arrived(good, &name).await
    }

    /// Begins such a transfer, with a transport.
    pub fn begin(&self, good: &mut Good, transport: Value) -> Result<String> {
        good.transfers += 1;
        let name = format!("into-{}-{}", good.region, good.transfers);
        write_file(&self.cluster.path("b", &name), LENGTH, good.transfers)?;
        let mut into = job(&name, file("b", &name), &[memory(&good.region)]);
        into["spec"]["transport"] = transport;
        self.cluster.apply(&into)?;
        Ok(name)
    }

    /// Waits for its end.
    pub async fn arrived(&self, good: &mut Good, name: &str) -> Result<()> {
        self.cluster.wait_complete(name, SOON).await?;
        match good.agent.next(SOON)? {
            Event::Finished { job, wrote: true, succeeded: true, .. } if job == name => {}
            other => bail!("{other:?}"),
        }
        let mut content = vec![0; usize::try_from(LENGTH)?];
        good.memory.read_exact_at(&mut content, 0)?;
        ensure!(content == fs::read(self.cluster.path("b", name))?, "what the pod sees is what was sent");
        Ok(())
    }

    /// A pod on the first node, connected.
    pub fn pod(&self, name: &str) -> Result<RawClient> {
        self.cluster.make_pod(name, "a")?;
        RawClient::hello(&self.socket(), &self.cluster.token(name)?)
    }

    pub fn agent_pid(&self) -> Result<i32> {
        self.cluster.agent("a").pid().context("the agent runs")
    }

    /// What a workload can make the agent have open: connections, memory, and files of this test. Others come and go.
    fn open_descriptors(&self) -> Result<usize> {
        let all = fs::read_dir(format!("/proc/{}/fd", self.agent_pid()?))?;
        let targets = all.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        let is_sent =
            |target: &PathBuf| target.to_string_lossy().starts_with("/memfd:") || target.ends_with(ORDINARY);
        let path = self.socket();
        let path = path.to_str().context("a path of this test")?;
        // An accepted socket has the name that the listener was given.
        let sockets = fs::read_to_string("/proc/net/unix")?;
        Ok(targets.filter(is_sent).count() + sockets.lines().filter(|line| line.contains(path)).count())
    }

    /// The good pod is served, the agent is the one that was started, and has nothing open that it had not before.
    pub async fn unharmed(&self, good: &mut Good, pid: i32) -> Result<()> {
        self.serves(good).await?;
        ensure!(self.agent_pid()? == pid, "the agent was started again");
        let deadline = Instant::now() + SOON;
        loop {
            let now = self.open_descriptors()?;
            if now <= self.descriptors {
                break;
            }
            ensure!(Instant::now() < deadline, "{now} descriptors are open, and were {}", self.descriptors);
            tokio::time::sleep(Duration::from_millis(100)).await; // polls /proc, with a deadline
        }
        self.cluster.assert_nothing_left(&["a", "b"], SOON).await
    }
}
