//! What must hold at every write, whatever happens.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use nixl_transfer_crds::{FanOut, TransferTask, endpoint::Place, names::TASK_FINALIZER, task::SideState};

use super::{World, halves};

impl World {
    /// Rule: never Complete without success at every wanted node.
    pub(super) fn check_complete(&self) {
        let (job, status) = (self.job.as_ref().unwrap(), self.status());
        for destination in &job.spec.destinations {
            let region = |name: &str| self.cluster.regions.get(&("ns".to_string(), name.to_string()));
            let named = destination.node.as_ref().and_then(|node| node.name.as_ref());
            let nodes: Vec<String> = match (&destination.place, named) {
                (Place::Memory(memory), _) => {
                    region(&memory.name).map(|it| it.node.clone()).into_iter().collect()
                }
                // What follows has nothing to do where there is no node.
                (_, Some(name)) if job.spec.follow && self.cluster.node(name).is_none() => Vec::new(),
                (_, Some(name)) => vec![name.clone()],
                _ => self
                    .cluster
                    .nodes
                    .iter()
                    .filter(|(_, view)| view.uid.is_some())
                    .map(|(name, _)| name.clone())
                    .collect(),
            };
            for node in nodes {
                let same = match (&job.spec.source.place, &destination.place) {
                    (Place::Volume(from), Place::Volume(to)) => from.at.path == to.path && node == "a",
                    _ => false,
                };
                let uid = self.cluster.nodes.get(&node).and_then(|view| view.uid.clone());
                let has = self.tasks.values().any(|task| {
                    let target = task.status.as_ref().and_then(|status| status.target.as_ref());
                    task.spec.run == status.run
                        && task.spec.target.destination == destination.name
                        && task.spec.target.node_name == node
                        && uid.as_ref().is_none_or(|uid| *uid == task.spec.target.node_uid)
                        && target.is_some_and(|half| half.state == SideState::Succeeded)
                });
                assert!(same || has, "Complete, and {node} has nothing: {:#?}", self.log);
            }
        }
    }

    /// Rules: what belongs together in a chain names each other, and the last hop is written first.
    pub(super) fn check_links(&self, task: &TransferTask) {
        let (source, target) = (&task.spec.source, &task.spec.target);
        let chained = source.relay.is_some() || target.forward_to.is_some();
        let fan_out = if chained { FanOut::Chain } else { FanOut::Direct };
        assert_eq!(task.spec.transport.fan_out, fan_out);
        assert!(!chained || source.node_name != target.node_name, "no chain within a node");
        if source.relay.is_none() {
            assert_eq!(Some(&source.node_name), self.status().source.map(|source| source.node).as_ref());
        }
        let Some(next) = &target.forward_to else { return };
        let next = &self.tasks[next].spec;
        assert_eq!(next.source.relay.as_ref().map(|relay| &relay.task_name), task.metadata.name.as_ref());
        assert_eq!((&next.source.node_name, &next.source.instance), (&target.node_name, &target.instance));
        assert_eq!(next.run, task.spec.run);
        let mut nodes = vec![&source.node_name, &target.node_name];
        let mut at = next;
        loop {
            assert!(!nodes.contains(&&at.target.node_name), "a node is in a chain once: {:#?}", self.log);
            nodes.push(&at.target.node_name);
            let Some(name) = &at.target.forward_to else { return };
            at = &self.tasks[name].spec;
        }
    }

    /// Rules: no two attempts at one place, attempts counted up, failures bounded, status before tasks.
    pub(super) fn create(&mut self, mut task: TransferTask) {
        let name = task.metadata.name.clone().unwrap();
        let (job, status) = (self.job.as_ref().unwrap(), self.status());
        assert_eq!(task.spec.run, status.run, "the status is written before the tasks");
        assert!(status.source.is_some(), "the source is written before the tasks");
        assert!(task.spec.failures <= job.spec.backoff_limit);
        self.check_links(&task);
        assert!(task.spec.attempt - task.spec.failures < 100, "free attempts without end");
        for other in self.tasks.values() {
            let (a, b) = (&task.spec.target, &other.spec.target);
            if a.node_name != b.node_name
                || (a.destination != b.destination && task.spec.run == other.spec.run)
            {
                continue;
            }
            let open = halves(other)[1].1;
            assert!(
                !open,
                "{name} is started while {:?} may still write: {:#?}",
                other.metadata.name, self.log
            );
            if task.spec.run == other.spec.run && a.node_uid == b.node_uid {
                assert!(task.spec.attempt > other.spec.attempt);
                // One that succeeded is not repeated, but for a region that was made again.
                assert!(
                    a.place != b.place
                        || !matches!(other.status.as_ref().and_then(|status| status.target.as_ref()), Some(half) if half.state == SideState::Succeeded)
                );
            }
        }
        assert_eq!(task.metadata.finalizers.as_deref(), Some(&[TASK_FINALIZER.to_string()][..]));
        task.metadata.uid = Some(self.fresh("task"));
        task.metadata.creation_timestamp = Some(Time(self.now));
        assert!(self.tasks.insert(name, task).is_none(), "created twice");
    }
}
