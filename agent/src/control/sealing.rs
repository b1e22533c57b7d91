//! Seals what this side publishes for the other one, and opens what that has published for us. Asks the API server for the other
//! agent's key, once for each start of it. An agent of an earlier version has no key and says everything in plain.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kube::{Api, Client};
use nixl_transfer_crds::{Reason, TransferNode, TransferTask, task::Side};

use crate::{
    protocol::Failure,
    seal::{Binding, Keys, SEALED, SealError},
};

/// How long the API server may take.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
/// Clocks of two nodes may differ by so much, in seconds.
const SKEW: i64 = 120;
/// Agents whose keys are known. Beyond that all are asked for again.
const MOST_KNOWN: usize = 4096;

/// Node and instance of an agent.
type Who = (String, String);

/// This agent's keys, and those of others.
pub struct Sealing {
    client: Client,
    us: Who,
    keys: Arc<Keys>,
    known: Mutex<HashMap<Who, String>>,
    /// Which texts were opened, and until when each counts: none of them opens again.
    opened: Mutex<HashMap<[u8; 32], i64>>,
}

impl Sealing {
    /// Of the agent on this node with this instance.
    pub fn new(client: Client, node: &str, instance: &str, keys: Arc<Keys>) -> Self {
        let us = (node.to_owned(), instance.to_owned());
        Self { client, us, keys, known: Mutex::default(), opened: Mutex::default() }
    }

    /// Seals the metadata of our side for the other side of the task, as long as that may take to come, in seconds.
    ///
    /// # Errors
    /// `AgentNotReady` when the API server does not say the key, `AgentRestarted` when the other agent is another one by now,
    /// `MetadataRejected` when its key is none.
    pub async fn seal(
        &self,
        task: &TransferTask,
        ours: Side,
        text: String,
        within: i64,
    ) -> Result<String, Failure> {
        let hop = Hop::of(task, ours);
        let Some(key) = self.key_of(&hop.theirs).await? else { return Ok(text) };
        let binding = hop.binding(true);
        self.keys.seal(&text, &key, &binding, now() + within + SKEW).map_err(|error| refused(&hop, error))
    }

    /// Opens the metadata of the other side; once.
    ///
    /// # Errors
    /// As [`Self::seal`]; `MetadataRejected` for a text that was not sealed for this task, by the agent that it names.
    pub async fn open(&self, task: &TransferTask, ours: Side, text: String) -> Result<String, Failure> {
        let hop = Hop::of(task, ours);
        let Some(key) = self.key_of(&hop.theirs).await? else {
            return if text.starts_with(SEALED) { Err(refused(&hop, SealError::Key)) } else { Ok(text) };
        };
        if !text.starts_with(SEALED) {
            let message =
                format!("the metadata of node {} is not sealed, and its agent has a key", hop.theirs.0);
            return Err(Failure::new(Reason::MetadataRejected, message));
        }
        let now = now();
        let opened =
            self.keys.open(&text, &key, &hop.binding(false), now).map_err(|error| refused(&hop, error))?;
        let mut before = lock(&self.opened);
        before.retain(|_, until| *until >= now);
        if before.insert(opened.once, opened.expires).is_some() {
            let message = format!("the metadata of node {} was used before", hop.theirs.0);
            return Err(Failure::new(Reason::MetadataRejected, message));
        }
        Ok(opened.text)
    }

    /// The key of an agent; `None` when it has none.
    async fn key_of(&self, who: &Who) -> Result<Option<String>, Failure> {
        if *who == self.us {
            return Ok(Some(self.keys.public()));
        }
        if let Some(known) = lock(&self.known).get(who) {
            return Ok(Some(known.clone()));
        }
        let (node, instance) = who;
        let nodes: Api<TransferNode> = Api::all(self.client.clone());
        let not_told = |why: String| {
            let message =
                format!("the key of node {node}'s agent cannot be read: {why}; look at the API server");
            Failure::new(Reason::AgentNotReady, message)
        };
        let asked = tokio::time::timeout(ANSWERED_WITHIN, nodes.get_opt(node)).await;
        let found = asked.map_err(|_| not_told("no answer in time".into()))?;
        // Tasks are made by what stands there: without it, it was deleted since. In plain nothing is said to nobody.
        let status = found.map_err(|error| not_told(error.to_string()))?.and_then(|node| node.status);
        let status = status.ok_or_else(|| not_told(format!("TransferNode {node} is gone")))?;
        if status.instance != *instance {
            let message = format!("the agent of node {node} was restarted since the task was made");
            return Err(Failure::new(Reason::AgentRestarted, message));
        }
        // That there is none is not kept: it may come.
        let key = Some(status.public_key).filter(|key| !key.is_empty());
        if let Some(key) = &key {
            let mut known = lock(&self.known);
            if known.len() >= MOST_KNOWN {
                known.clear();
            }
            known.insert(who.clone(), key.clone());
        }
        Ok(key)
    }
}

/// The two ends of a task, as one of them sees it.
struct Hop<'a> {
    task: &'a TransferTask,
    ours: Who,
    theirs: Who,
}

impl<'a> Hop<'a> {
    fn of(task: &'a TransferTask, side: Side) -> Self {
        let (source, target) = (&task.spec.source, &task.spec.target);
        let source = (source.node_name.clone(), source.instance.clone());
        let target = (target.node_name.clone(), target.instance.clone());
        match side {
            Side::Source => Self { task, ours: source, theirs: target },
            Side::Target => Self { task, ours: target, theirs: source },
        }
    }

    fn binding(&self, from_us: bool) -> Binding<'_> {
        let spec = &self.task.spec;
        let [ours, theirs] =
            [&self.ours, &self.theirs].map(|(node, instance)| (node.as_str(), instance.as_str()));
        let (from, to) = if from_us { (ours, theirs) } else { (theirs, ours) };
        let task = self.task.metadata.uid.as_deref().unwrap_or_default();
        Binding { job: &spec.job_ref.uid, run: spec.run, attempt: spec.attempt.into(), task, from, to }
    }
}

fn refused(hop: &Hop<'_>, error: SealError) -> Failure {
    Failure::new(
        Reason::MetadataRejected,
        format!("the metadata between this node and {}: {error}", hop.theirs.0),
    )
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// A map is whole whatever panicked beside it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
