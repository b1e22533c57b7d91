//! The watches: six kinds, one channel. I/O only; what it means is decided in `world` and `plan`.

use std::{fmt::Debug, sync::Arc};

use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node};
use kube::{Api, Client, Resource};
use nixl_transfer_crds::{MemoryRegion, TransferJob, TransferNode, TransferTask};
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    control::Message,
    serve::{Health, Watched},
    world::{Change, Observation, jobs::lighten_job, tasks::lighten_task},
};

/// Where one watch reports.
struct Sink<K> {
    messages: mpsc::Sender<Message>,
    health: Arc<Health>,
    watched: Watched,
    kind: fn(Change<K>) -> Observation,
    lighten: fn(&mut K),
}

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
) {
    let mut watches = Watches { tasks, messages, health };
    let client = || client.clone();
    watches.start(Api::<TransferJob>::all(client()), Observation::Job, lighten_job, Watched::Jobs);
    watches.start(Api::<TransferTask>::all(client()), Observation::Task, lighten_task, Watched::Tasks);
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
        lighten: lighten_job,
    };
    let tasks = Sink::<TransferTask> {
        messages: messages(),
        health: health(),
        watched: Watched::Tasks,
        kind: Observation::Task,
        lighten: lighten_task,
    };
    follow::list_now(Api::all(client()), Watched::Jobs.name(), jobs).await
        && follow::list_now(Api::all(client()), Watched::Tasks.name(), tasks).await
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
        lighten: fn(&mut K),
        watched: Watched,
    ) where
        K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let sink =
            Sink { messages: self.messages.clone(), health: self.health.clone(), watched, kind, lighten };
        self.tasks.spawn(async move { follow::follow(api, "", watched.name(), sink).await });
    }
}
