//! Puts the control process together and runs it until it is told to stop. Several can live in one process.

mod interfaces;

use std::{collections::BTreeMap, future::Future, path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use kube::{
    Api, Client,
    config::{KubeConfigOptions, Kubeconfig},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
};
use tracing::{error, info, warn};

use crate::{
    config::Config,
    control::{
        self, HopContext,
        connection::launcher::{Connection, Launcher},
        fence::Fence,
        gpus::Gpus,
        inventory::Inventory,
        lease::Holder,
        regions::RegionKeeper,
        sealing::Sealing,
        source_runs::SourceRuns,
        staging::Staging,
        watch::WatchHealth,
        workers::pool::{PoolOptions, PoolTask, pool},
    },
    launcher::child,
    metrics::Metrics,
    region::Regions,
    seal::Keys,
    serve::{Heartbeat, Served, serve},
    volume::{DestinationLocks, Volume},
    workload::{Identity, Listener},
};

/// The API server's answers must come within this time; a watch is longer and has its own rule.
const ANSWERED_WITHIN: Duration = Duration::from_secs(300);
const CONNECTED_WITHIN: Duration = Duration::from_secs(5);
/// Workers, Lease, status and server have this time to end, after the hops.
const ENDED_WITHIN: Duration = Duration::from_secs(8);
/// How long the first hop waits for the first worker; after that it waits by its own deadline.
const WORKER_WITHIN: Duration = Duration::from_secs(10);
/// Events of the launcher that may wait for the pool.
const LAUNCHER_EVENTS: usize = 256;
/// Requests of workloads that may wait for the keeper of regions.
const WORKLOAD_REQUESTS: usize = 64;

/// Runs until `shutdown` resolves: then no new hops, running ones ended and reported, workers ended, Lease let go.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
    let config = Arc::new(with_devices(config)?);
    raise_open_files();
    let metrics = Metrics::new().context("metrics")?;
    let instance = uuid::Uuid::new_v4().to_string();
    info!(node = config.node_name, instance, version = env!("CARGO_PKG_VERSION"), "agent starts");
    if let Some(chunk) = config.faults.corrupt_chunk {
        warn!(chunk, "faults.corruptChunk is set: data is damaged on purpose, for tests only");
    }
    let client = client(&config).await?;
    let listener =
        TcpListener::bind(config.listen).await.with_context(|| format!("listen {}", config.listen))?;
    info!(address = %listener.local_addr()?, "serving /metrics, /healthz, /readyz");

    let (stop_hops, hops_stopped) = watch::channel(false);
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();

    let heartbeat = Arc::new(Heartbeat::default());
    let (workers, task) = pool(pool_options(&config, &instance), metrics.clone());
    let connection = start_workers(&config, task, &mut tasks, &stopped, heartbeat.clone())?;

    let (volumes, missing) = open_volumes(&config);
    let fence = Fence::new();
    let holder = Holder {
        leases: Api::namespaced(client.clone(), &config.lease_namespace),
        node: config.node_name.clone(),
        instance: instance.clone(),
    };
    tasks.spawn(holder.keep(fence.clone(), metrics.clone(), stopped.clone()));
    let keys = Arc::new(Keys::new());
    let (see, hardware) = watch::channel(None);
    let gpus = Gpus::new(workers.clone(), hardware.clone());
    let (regions, budgets) = (Regions::default(), config.budgets());
    let keeper = RegionKeeper {
        client: client.clone(),
        node: config.node_name.clone(),
        instance: instance.clone(),
        regions: regions.clone(),
        budgets: budgets.clone(),
        gpus: gpus.clone(),
        metrics: metrics.clone(),
    };
    let (desk, requests) = mpsc::channel(WORKLOAD_REQUESTS);
    let (consumed, to_write) = mpsc::channel(WORKLOAD_REQUESTS);
    tasks.spawn(keeper.keep(requests, to_write, stopped.clone()));
    if let Some(path) = &config.memory.socket {
        let listener = Listener::bind(path).with_context(|| format!("memory.socket {}", path.display()))?;
        let identity = Identity::new(client.clone(), &config.node_name);
        tasks.spawn(listener.serve(
            identity,
            desk,
            (gpus, config.memory.cuda_ipc),
            config.node_name.clone(),
            stopped.clone(),
        ));
    }
    let inventory = Inventory {
        api: Api::all(client.clone()),
        config: config.clone(),
        instance: instance.clone(),
        volumes: volumes.clone(),
        missing,
        nixl: workers.facts(),
        memory: budgets,
        public_key: keys.public(),
        fence: fence.clone(),
        metrics: metrics.clone(),
        hardware: see,
    };
    tasks.spawn(inventory.keep(hops_stopped.clone()));
    let watches = Arc::new(WatchHealth::default());
    let served = Served {
        heartbeat,
        watches: watches.clone(),
        fence: fence.clone(),
        nixl: workers.facts(),
        metrics: metrics.clone(),
    };
    let mut server_stopped = stopped.clone();
    tasks.spawn(async move {
        let until = async move {
            // An error means that nobody is left to stop us, which is a stop as well.
            let _ = server_stopped.wait_for(|stop| *stop).await;
        };
        if let Err(failure) = serve(listener, served, until).await {
            error!(%failure, "the HTTP server has ended");
        }
    });

    let context = Arc::new(HopContext {
        sealing: Sealing::new(client.clone(), &config.node_name, &instance, keys),
        client,
        source_runs: SourceRuns::new(workers.clone()),
        staging: Staging::new(config.staging_bytes()),
        config,
        instance,
        volumes,
        regions,
        consumed,
        locks: DestinationLocks::default(),
        relays: control::relays::Relays::default(),
        hardware,
        remembered: Arc::default(),
        workers,
        fence: fence.clone(),
        metrics,
        shutdown: hops_stopped,
    });
    let hops = hops(context, fence, watches);
    tokio::pin!(hops, shutdown);
    let result = tokio::select! {
        () = &mut shutdown => {
            info!("asked to stop: hops are ended");
            stop_hops.send_replace(true);
            hops.await;
            Ok(())
        }
        () = &mut hops => Err(anyhow::anyhow!("tasks are no longer followed; see the log before this line")),
        Some(ended) = tasks.join_next() => Err(anyhow::anyhow!("a part of the agent has ended by itself: {ended:?}")),
    };
    stop_hops.send_replace(true);
    stop.send_replace(true);
    end(tasks, connection).await;
    result
}

/// Every hop has a window of open files, and those on their way to a worker count too; the usual soft limit of 1,024 is
/// for programs that use select(2).
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(failure) =
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        warn!(%failure, "the limit of open files stays at {:?}", limit.current);
    }
}

/// Runs the hops once the Lease is ours: before that nothing may be committed.
async fn hops(context: Arc<HopContext>, fence: Fence, watches: Arc<WatchHealth>) {
    let mut fenced = fence.changes();
    let mut shutdown = context.shutdown.clone();
    tokio::select! {
        held = fenced.wait_for(|fenced| !*fenced) => {
            if held.is_err() {
                return;
            }
        }
        _ = shutdown.wait_for(|ends| *ends) => return,
    }
    // A worker is there: the launcher has answered, and whatever an earlier start had left has had time to end.
    let mut facts = context.workers.facts();
    tokio::select! {
        _ = tokio::time::timeout(WORKER_WITHIN, facts.wait_for(Option::is_some)) => {}
        _ = shutdown.wait_for(|ends| *ends) => return,
    }
    control::run_hops(context, watches).await;
}

async fn end(mut tasks: JoinSet<()>, connection: Connection) {
    let all = async {
        let workers = tokio::task::spawn_blocking(move || connection.stop());
        while let Some(ended) = tasks.join_next().await {
            if let Err(failure) = ended {
                error!(%failure, "a part of the agent ended badly");
            }
        }
        if let Err(failure) = workers.await {
            error!(%failure, "the launcher could not be ended");
        }
    };
    if tokio::time::timeout(ENDED_WITHIN, all).await.is_err() {
        warn!("not everything ended in time; the kernel ends what is left with this process");
    }
    info!("agent ends");
}

fn pool_options(config: &Config, instance: &str) -> PoolOptions {
    PoolOptions {
        // A worker's name goes into status and metadata: the node is for people, the instance makes it unique.
        prefix: format!(
            "{}-{}",
            config.node_name.chars().take(24).collect::<String>(),
            instance.chars().take(8).collect::<String>()
        ),
        warm: config.warm_workers as usize,
        library: config.nixl.library.clone(),
        plugins: config.nixl.plugins.clone(),
        cuda: config.nvidia.cuda.clone(),
        corrupt_chunk: config.faults.corrupt_chunk,
    }
}

fn start_workers(
    config: &Config,
    task: PoolTask,
    tasks: &mut JoinSet<()>,
    stopped: &watch::Receiver<bool>,
    heartbeat: Arc<Heartbeat>,
) -> anyhow::Result<Connection> {
    let launcher = match &config.launcher {
        Some(launcher) => Launcher::Socket(launcher.socket.clone()),
        None => Launcher::Child { program: child::this_program() },
    };
    let (tell, events) = mpsc::channel(LAUNCHER_EVENTS);
    let connection = Connection::start(launcher, tell).context("the launcher's thread")?;
    tasks.spawn(task.run(events, stopped.clone(), move || heartbeat.beat()));
    Ok(connection)
}

/// Opens what is there; what is not is said in the TransferNode and refused to jobs.
fn open_volumes(config: &Config) -> (BTreeMap<String, Arc<Volume>>, Vec<String>) {
    let mut volumes = BTreeMap::new();
    let mut missing = Vec::new();
    for wanted in &config.volumes {
        match Volume::open(wanted) {
            Ok(volume) => {
                volumes.insert(wanted.name.clone(), Arc::new(volume));
            }
            Err(failure) => {
                error!(volume = wanted.name, %failure, "a volume cannot be opened and is not published");
                missing.push(failure.message);
            }
        }
    }
    (volumes, missing)
}

/// Without named devices all that are up but the loopback: on one host UCX would stripe over it too.
fn with_devices(mut config: Config) -> anyhow::Result<Config> {
    config.network.named = !config.network.devices.is_empty();
    if config.network.devices.is_empty() {
        config.network.devices =
            interfaces::up(Path::new("/")).context("network.devices: cannot be found out")?;
        anyhow::ensure!(
            !config.network.devices.is_empty(),
            "network.devices: no interface but the loopback is up; name one (`lo` for agents on one host)"
        );
        info!(devices = ?config.network.devices, "network interfaces");
    }
    Ok(config)
}

async fn client(config: &Config) -> anyhow::Result<Client> {
    let mut kube = match &config.kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path)
                .with_context(|| format!("kubeconfig {}: cannot be read", path.display()))?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("kubeconfig {}", path.display()))?
        }
        None => kube::Config::infer()
            .await
            .context("no cluster to talk to: set kubeconfig, or run in a pod with a service account")?,
    };
    kube.connect_timeout = Some(CONNECTED_WITHIN);
    kube.read_timeout = Some(ANSWERED_WITHIN);
    Client::try_from(kube).context("the client cannot be made from the kubeconfig")
}
