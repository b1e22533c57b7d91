//! The watches: six kinds, one channel. I/O only; what it means is decided in `world` and `plan`.

use std::{
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node};
use kube::{Api, Client, Resource};
use nixl_transfer_crds::{MemoryRegion, TransferJob, TransferNode, TransferTask};
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    control::Message,
    exchange::Exchanges,
    metrics::Metrics,
    serve::{Health, Watched},
    world::{Change, Observation, jobs::lighten_job, tasks::lighten_task},
};

/// Where one watch reports.
struct Sink<K> {
    messages: mpsc::Sender<Message>,
    health: Arc<Health>,
    watched: Watched,
    kind: fn(Change<K>) -> Observation,
    lighten: Lighten<K>,
}

/// Takes away what nobody here reads.
type Lighten<K> = Box<dyn Fn(&mut K) + Send + Sync>;

impl<K: Send + 'static> follow::Sink<K> for Sink<K> {
    fn alive(&mut self) {
        self.health.touch(self.watched);
    }

    fn lighten(&self, object: &mut K) {
        (self.lighten)(object);
    }

    async fn watching(&mut self, open: bool) -> bool {
        self.messages.send(Message::Watching(self.watched, open)).await.is_ok()
    }

    async fn take(&mut self, change: Change<K>) -> bool {
        let observation = Box::new((self.kind)(change));
        self.messages.send(Message::Observed(self.watched, observation)).await.is_ok()
    }
}

/// Starts the watches in `tasks`. They go on until they are aborted or the channel is closed.
pub fn start(
    tasks: &mut JoinSet<()>,
    client: &Client,
    namespace: &str,
    messages: &mpsc::Sender<Message>,
    health: &Arc<Health>,
    metrics: &Metrics,
) {
    let mut watches = Watches { tasks, messages, health };
    let client = || client.clone();
    watches.start(Api::<TransferJob>::all(client()), Observation::Job, lighten_job, Watched::Jobs);
    watches.start(
        Api::<TransferTask>::all(client()),
        Observation::Task,
        seen_task(metrics.clone()),
        Watched::Tasks,
    );
    watches.start(Api::<TransferNode>::all(client()), Observation::Agent, |_| {}, Watched::Agents);
    watches.start(Api::<MemoryRegion>::all(client()), Observation::Region, |_| {}, Watched::Regions);
    watches.start(Api::<Node>::all(client()), Observation::Node, |_| {}, Watched::Nodes);
    watches.start(Api::<Lease>::namespaced(client(), namespace), Observation::Lease, |_| {}, Watched::Leases);
}

/// Reads jobs and tasks, which are what operators write, as they are now. For one that has begun to lead: its watches may
/// not have brought yet what the one before it wrote last. False when the operator stops.
pub async fn catch_up(client: &Client, messages: &mpsc::Sender<Message>, health: &Arc<Health>) -> bool {
    let (client, messages, health) = (|| client.clone(), || messages.clone(), || health.clone());
    let jobs = Sink::<TransferJob> {
        messages: messages(),
        health: health(),
        watched: Watched::Jobs,
        kind: Observation::Job,
        lighten: Box::new(lighten_job),
    };
    let tasks = Sink::<TransferTask> {
        messages: messages(),
        health: health(),
        watched: Watched::Tasks,
        kind: Observation::Task,
        lighten: Box::new(lighten_task),
    };
    follow::list_now(Api::all(client()), Watched::Jobs.name(), jobs).await
        && follow::list_now(Api::all(client()), Watched::Tasks.name(), tasks).await
}

/// Measures the capabilities in a task, and takes them away.
fn seen_task(metrics: Metrics) -> impl Fn(&mut TransferTask) + Send + Sync {
    let exchanges = Mutex::new(Exchanges::default());
    move |task| {
        let mut exchanges = exchanges.lock().unwrap_or_else(PoisonError::into_inner);
        let news = exchanges.see(task, Instant::now());
        // Reported by one operator, or every sum over them would be too large.
        if metrics.leader.get() == 1 {
            news.published.iter().for_each(|bytes| metrics.metadata_bytes.observe(*bytes as f64));
            news.took.iter().for_each(|took| metrics.metadata_exchange.observe(took.as_secs_f64()));
        }
        lighten_task(task);
    }
}

struct Watches<'a> {
    tasks: &'a mut JoinSet<()>,
    messages: &'a mpsc::Sender<Message>,
    health: &'a Arc<Health>,
}

impl Watches<'_> {
    fn start<K>(
        &mut self,
        api: Api<K>,
        kind: fn(Change<K>) -> Observation,
        lighten: impl Fn(&mut K) + Send + Sync + 'static,
        watched: Watched,
    ) where
        K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let (messages, health) = (self.messages.clone(), self.health.clone());
        let sink = Sink { messages, health, watched, kind, lighten: Box::new(lighten) };
        self.tasks.spawn(async move { follow::follow(api, "", watched.name(), sink).await });
    }
}
