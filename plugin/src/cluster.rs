//! The API server, as the kubeconfig says it. Every request has a deadline and comes back with an answer or a [`Failure`] that can
//! be shown. Objects are kept as the server sent them; only what has to understand them reads them as types.

use std::{future::Future, time::Duration};

use futures::{Stream, StreamExt};
use k8s_openapi::{
    api::{
        authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
        coordination::v1::Lease,
        core::v1::Node,
    },
    serde::de::DeserializeOwned,
};
use kube::{
    Api, Client, Config,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use nixl_transfer_crds::{TransferJob, TransferNode, TransferTask, names};
use serde_json::Value;

use crate::{
    cli::Global,
    failure::{Asked, Failure, Kind},
};

/// Who has written a field, for `managedFields`.
const MANAGER: &str = "kubectl-transfer";
/// Objects of one page of a list.
const PAGE: u32 = 500;
/// The API server ends a watch after this long.
pub(crate) const WATCH_SECONDS: u32 = 40;

/// A cluster, and the namespace in it.
pub(crate) struct Cluster {
    client: Client,
    server: String,
    within: Duration,
    /// Namespace of the jobs.
    pub namespace: String,
}

impl Cluster {
    /// Reads the kubeconfig; asks nothing of the API server yet.
    pub async fn open(global: &Global) -> Result<Self, Failure> {
        let mut config = configuration(global).await.map_err(|error| Failure::new(Kind::Usage, error))?;
        config.connect_timeout = Some(global.request_timeout);
        let server = config.cluster_url.to_string();
        let asked = Asked { what: "make a client", server: &server, within: global.request_timeout };
        let namespace = global.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| Failure::of(&error, &asked))?;
        Ok(Self { client, server, within: global.request_timeout, namespace })
    }

    /// One request. `what` follows "to" or "may not".
    async fn ask<T>(&self, what: &str, request: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
        let asked = Asked { what, server: &self.server, within: self.within };
        match tokio::time::timeout(self.within, request).await {
            Ok(answer) => answer.map_err(|error| Failure::of(&error, &asked)),
            Err(_) => Err(Failure::slow(&asked)),
        }
    }

    fn jobs(&self) -> Api<DynamicObject> {
        let resource = ApiResource::erase::<TransferJob>(&());
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    fn in_namespace(&self, what: &str) -> String {
        format!("{what} in namespace {}", self.namespace)
    }

    /// One job.
    pub async fn job(&self, name: &str) -> Result<Value, Failure> {
        let what = self.in_namespace(&format!("get TransferJob {name}"));
        value(self.ask(&what, self.jobs().get(name)).await?)
    }

    /// Jobs with these labels, of the namespace or of all.
    pub async fn list_jobs(&self, everywhere: bool, labels: Option<&str>) -> Result<Vec<Value>, Failure> {
        let resource = ApiResource::erase::<TransferJob>(&());
        let (api, what) = if everywhere {
            (Api::all_with(self.client.clone(), &resource), "list TransferJobs in all namespaces".to_owned())
        } else {
            (self.jobs(), self.in_namespace("list TransferJobs"))
        };
        let listed: Vec<DynamicObject> = self.list(&api, &what, labels).await?;
        listed.into_iter().map(value).collect()
    }

    async fn list<K>(&self, api: &Api<K>, what: &str, labels: Option<&str>) -> Result<Vec<K>, Failure>
    where
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        let mut parameters = ListParams::default().limit(PAGE);
        if let Some(labels) = labels {
            parameters = parameters.labels(labels);
        }
        let mut all = Vec::new();
        loop {
            let page = self.ask(what, api.list(&parameters)).await?;
            all.extend(page.items);
            match page.metadata.continue_ {
                Some(next) if !next.is_empty() => parameters = parameters.continue_token(&next),
                _ => return Ok(all),
            }
        }
    }

    /// Makes a job; with `checked_only` the API server keeps nothing of it.
    pub async fn create(&self, document: &Value, checked_only: bool) -> Result<Value, Failure> {
        let parameters = PostParams { dry_run: checked_only, field_manager: Some(MANAGER.into()) };
        let object: DynamicObject = typed(document.clone())?;
        let what = self.in_namespace("create TransferJobs");
        value(self.ask(&what, self.jobs().create(&parameters, &object)).await?)
    }

    /// Changes fields of a job's spec.
    pub async fn patch_spec(&self, name: &str, spec: &Value) -> Result<Value, Failure> {
        let patch = Patch::Merge(serde_json::json!({"spec": spec}));
        let parameters = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        let what = self.in_namespace(&format!("change TransferJob {name}"));
        value(self.ask(&what, self.jobs().patch(name, &parameters, &patch)).await?)
    }

    /// Opens a watch of one job, from a version of it.
    pub async fn watch(
        &self,
        name: &str,
        version: &str,
    ) -> Result<impl Stream<Item = kube::Result<WatchEvent<DynamicObject>>> + Unpin + use<>, Failure> {
        let fields = format!("metadata.name={name}");
        let parameters = WatchParams::default().fields(&fields).timeout(WATCH_SECONDS);
        let what = self.in_namespace("watch TransferJobs");
        let jobs = self.jobs();
        Ok(self.ask(&what, jobs.watch(&parameters, version)).await?.boxed())
    }

    /// Tasks of one job, without their metadata; nothing when that is forbidden.
    pub async fn tasks(&self, job: &str) -> Result<Option<Vec<TransferTask>>, Failure> {
        let api: Api<TransferTask> = Api::namespaced(self.client.clone(), &self.namespace);
        let labels = format!("{}={job}", names::LABEL_JOB);
        let what = self.in_namespace("list TransferTasks");
        let Some(mut tasks) = allowed(self.list(&api, &what, Some(&labels)).await)? else { return Ok(None) };
        tasks.iter_mut().for_each(forget_metadata);
        tasks.sort_by_key(|task| {
            (task.spec.target.destination.clone(), task.spec.target.node_name.clone(), task.spec.attempt)
        });
        Ok(Some(tasks))
    }

    /// Version of the API server.
    pub async fn version(&self) -> Result<String, Failure> {
        let info = self.ask("tell its version", self.client.apiserver_version()).await?;
        Ok(format!("{} at {}", info.git_version, self.server))
    }

    /// What agents say of their nodes.
    pub async fn nodes(&self) -> Result<Vec<TransferNode>, Failure> {
        self.list(&Api::all(self.client.clone()), "list TransferNodes", None).await
    }

    /// Names of the core Nodes; nothing when that is forbidden.
    pub async fn node_names(&self) -> Result<Option<Vec<String>>, Failure> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let listed = allowed(self.list(&nodes, "list Nodes", None).await)?;
        Ok(listed.map(|nodes| nodes.into_iter().filter_map(|node| node.metadata.name).collect()))
    }

    /// Leases of a namespace; nothing when that is forbidden.
    pub async fn leases(&self, namespace: &str) -> Result<Option<Vec<Lease>>, Failure> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), namespace);
        allowed(self.list(&leases, "list Leases", None).await)
    }

    /// Whether the caller may do this to TransferJobs of the namespace.
    pub async fn may(&self, verb: &str) -> Result<bool, Failure> {
        let attributes = ResourceAttributes {
            namespace: Some(self.namespace.clone()),
            group: Some(names::GROUP.into()),
            resource: Some("transferjobs".into()),
            verb: Some(verb.into()),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            non_resource_attributes: None,
        };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        let api: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let answer = self.ask("say what you may do", api.create(&PostParams::default(), &review)).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}

async fn configuration(global: &Global) -> Result<Config, String> {
    let options = KubeConfigOptions { context: global.context.clone(), ..KubeConfigOptions::default() };
    if let Some(path) = &global.kubeconfig {
        let wrong = |error| format!("--kubeconfig {}: {error}", path.display());
        let kubeconfig = Kubeconfig::read_from(path).map_err(wrong)?;
        return Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(wrong);
    }
    if let Some(context) = &global.context {
        let config = Config::from_kubeconfig(&options).await;
        return config.map_err(|error| {
            format!("--context {context}: {error}; `kubectl config get-contexts` lists them")
        });
    }
    Config::infer().await.map_err(|error| {
        format!("no cluster to talk to: {error}; give --kubeconfig, or set KUBECONFIG, as for kubectl")
    })
}

/// Nothing, when it was forbidden.
fn allowed<T>(answer: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match answer {
        Err(failure) if failure.kind == Kind::Forbidden => Ok(None),
        answer => answer.map(Some),
    }
}

/// Metadata are the right to read and write memory: they go no further than here.
fn forget_metadata(task: &mut TransferTask) {
    task.metadata.managed_fields = None;
    if let Some(status) = &mut task.status {
        if let Some(half) = &mut status.source {
            half.agent_metadata = None;
        }
        if let Some(half) = &mut status.target {
            half.rdma_metadata = None;
        }
    }
}

pub(crate) fn value(mut object: DynamicObject) -> Result<Value, Failure> {
    object.metadata.managed_fields = None;
    serde_json::to_value(object).map_err(|error| Failure::other(format!("an object cannot be read: {error}")))
}

/// The object as a type of ours.
pub(crate) fn typed<T: DeserializeOwned>(value: Value) -> Result<T, Failure> {
    let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    serde_json::from_value(value).map_err(|error| {
        Failure::other(format!(
            "{name} cannot be read: {error}; the cluster's nixl-transfer is of another version than this plugin, and \
             `kubectl transfer get {name} -o yaml` shows it all the same"
        ))
    })
}
