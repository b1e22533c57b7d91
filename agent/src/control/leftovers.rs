//! Which runs' partial files are still of use on this node, by the tasks that it receives for, and the collection of the
//! others. Deciding is pure; the collection does I/O in a thread of its own.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use kube::Resource;
use nixl_transfer_crds::{TransferTask, task::Side};
use tokio::sync::watch as value;
use tracing::{error, info, warn};

use super::{hop, watch::Change};
use crate::volume::{Left, RunPlace, Volume};

/// The places that tasks name, as the watch shows them.
#[derive(Debug, Default)]
pub struct Places {
    /// By UID of the task: its place, and whether the task has it kept.
    tasks: HashMap<String, (RunPlace, bool)>,
    /// UIDs that tasks have for this node. Nobody else tells us ours; a node that comes back under its name has another.
    nodes: HashSet<String>,
    /// All tasks were seen once. Before that a place that nobody names may be one that was not told yet.
    listed: bool,
}

impl Places {
    /// Takes a change. Says whether there may be something to collect since.
    pub fn take(&mut self, change: &Change) -> bool {
        let due = match change {
            Change::Listed(Side::Target) => !std::mem::replace(&mut self.listed, true),
            Change::Seen((uid, Side::Target), task) => {
                let (place, keeps) = (hop::place(task), keeps(task));
                // What was another's for all we knew may be ours.
                let learnt = self.nodes.insert(place.node_uid.clone());
                let before = self.tasks.insert(uid.clone(), (place, keeps));
                learnt || before.is_some_and(|(_, kept)| kept) && !keeps
            }
            Change::Gone((uid, Side::Target)) => self.tasks.remove(uid).is_some(),
            Change::Listed(Side::Source)
            | Change::Seen((_, Side::Source), _)
            | Change::Gone((_, Side::Source)) => false,
        };
        due && self.listed
    }

    /// Whether a place is to be kept.
    pub fn judge(&self, place: &RunPlace) -> Left {
        if self.tasks.values().any(|(named, kept)| *kept && named == place) {
            Left::Kept
        } else if self.nodes.contains(&place.node_uid) {
            Left::Dead
        } else {
            Left::Foreign
        }
    }
}

/// Whether a further attempt may follow this task and go on with what it has left.
pub fn keeps(task: &TransferTask) -> bool {
    !task.spec.discard && task.meta().deletion_timestamp.is_none()
}

/// Collects whenever there may be something to, until nobody can say so any more. What comes meanwhile is one further
/// collection. What is to be kept is asked anew for each place: a collection can take long, and runs come up meanwhile.
pub async fn collect(volumes: Vec<Arc<Volume>>, mut wanted: value::Receiver<Places>) {
    while wanted.changed().await.is_ok() {
        let (volumes, places) = (volumes.clone(), wanted.clone());
        let collected = tokio::task::spawn_blocking(move || {
            volumes.iter().for_each(|volume| collect_one(volume, &places));
        });
        if let Err(failure) = collected.await {
            error!(%failure, "what dead runs have left could not be looked for");
        }
    }
}

fn collect_one(volume: &Volume, places: &value::Receiver<Places>) {
    match volume.collect_leftovers(|place| places.borrow().judge(place)) {
        Ok(0) => {}
        Ok(files) => info!(volume = volume.name, files, "what dead runs have left was removed"),
        Err(failure) => warn!(volume = volume.name, %failure, "partial files could not be removed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn task(job: &str, discard: bool, deleted: bool) -> Arc<TransferTask> {
        let mut task: TransferTask = serde_json::from_value(json!({
            "apiVersion": "nixl-transfer.io/v1alpha1", "kind": "TransferTask",
            "metadata": {"name": "t", "namespace": "default", "uid": "u"},
            "spec": {
                "jobRef": {"name": "j", "uid": job}, "run": 1, "attempt": 0, "failures": 0, "direction": "Write",
                "source": {"nodeName": "a", "instance": "ours", "volume": {"name": "v", "path": "p"}},
                "target": {"nodeName": "b", "nodeUID": "n", "instance": "other", "destination": "d",
                           "volume": {"name": "v", "path": "p"}},
                "transport": {}, "integrity": {}, "writePolicy": "Overwrite",
                "deadlines": {"pendingSeconds": 1, "progressSeconds": 1}, "discard": discard
            }
        }))
        .unwrap();
        if deleted {
            task.metadata.deletion_timestamp =
                Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        }
        Arc::new(task)
    }

    fn place(job: &str) -> RunPlace {
        RunPlace { job_uid: job.into(), run: 1, destination: "d".into(), node_uid: "n".into() }
    }

    #[test]
    fn nothing_is_collected_before_all_tasks_were_seen_and_once_for_each_that_ends() {
        let seen = |uid: &str, task| Change::Seen((uid.into(), Side::Target), task);
        let gone = |uid: &str| Change::Gone((uid.into(), Side::Target));
        let mut places = Places::default();
        for (step, (change, expected)) in [
            (seen("1", task("one", false, false)), None),
            (seen("2", task("two", false, false)), None),
            (seen("3", task("three", true, false)), None),
            (gone("2"), None),
            (Change::Listed(Side::Source), None),
            (Change::Listed(Side::Target), Some(&["one"][..])),
            (Change::Listed(Side::Target), None),
            (seen("1", task("one", false, false)), None),
            // A further attempt keeps what the one before it has left, however that goes.
            (seen("4", task("one", false, false)), None),
            (seen("1", task("one", false, true)), Some(&["one"][..])),
            (gone("1"), Some(&["one"][..])),
            (seen("5", task("five", false, false)), None),
            (seen("4", task("one", true, false)), Some(&["five"][..])),
            (seen("4", task("one", true, false)), None),
            (Change::Seen(("6".into(), Side::Source), task("six", false, false)), None),
            (Change::Gone(("5".into(), Side::Source)), None),
            (gone("5"), Some(&[][..])),
            (gone("5"), None),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(places.take(&change), expected.is_some(), "step {step}");
            let kept = ["one", "two", "three", "four", "five", "six"]
                .map(|job| (places.judge(&place(job)) == Left::Kept).then_some(job));
            let kept: Vec<&str> = kept.into_iter().flatten().collect();
            assert!(expected.is_none_or(|expected: &[&str]| kept == expected), "step {step}: {kept:?}");
        }
    }

    fn volume() -> (tempfile::TempDir, Arc<Volume>) {
        let directory = tempfile::Builder::new().prefix("nixl-transfer-collect-").tempdir().unwrap();
        let config = crate::volume::VolumeConfig {
            name: "data".into(),
            path: directory.path().into(),
            read_only: false,
            allowed_namespaces: vec!["*".into()],
        };
        let volume = Arc::new(Volume::open(&config).unwrap());
        (directory, volume)
    }

    #[test]
    fn a_place_is_this_nodes_when_a_task_has_said_so() {
        let here = |place: RunPlace| RunPlace { node_uid: "n".into(), ..place };
        let elsewhere = |place: RunPlace| RunPlace { node_uid: "m".into(), ..place };
        let mut places = Places::default();
        places.take(&Change::Listed(Side::Target));
        assert_eq!(places.judge(&here(place("one"))), Left::Foreign, "nobody has said so yet");
        places.take(&Change::Seen(("2".into(), Side::Source), task("two", false, false)));
        assert_eq!(places.judge(&here(place("one"))), Left::Foreign, "of a task that we send for");
        let seen = Change::Seen(("2".into(), Side::Target), task("two", false, false));
        assert_eq!([places.take(&seen), places.take(&seen)], [true, false], "what is left may be ours now");
        assert_eq!(places.judge(&here(place("two"))), Left::Kept);
        assert_eq!(places.judge(&here(place("one"))), Left::Dead);
        assert_eq!(places.judge(&elsewhere(place("two"))), Left::Foreign);
        places.take(&Change::Gone(("2".into(), Side::Target)));
        assert_eq!(places.judge(&here(place("two"))), Left::Dead);
        assert_eq!(places.judge(&elsewhere(place("two"))), Left::Foreign);
    }

    #[tokio::test]
    async fn a_collection_follows_each_word_and_ends_with_the_last_speaker() {
        let (directory, volume) = volume();
        let left = |name: &str| directory.path().join(".nixl-transfer").join(name);
        for name in ["one.1.d.n", "two.1.d.n", "a-tasks-uid"] {
            std::fs::create_dir_all(left(name)).unwrap();
            std::fs::write(left(name).join("0"), "partial").unwrap();
        }
        let (tell, wanted) = value::channel(Places::default());
        tell.send_modify(|places| {
            places.take(&Change::Seen(("2".into(), Side::Target), task("two", false, false)));
        });
        drop(tell);
        // Word that came before the last speaker left is still heard.
        collect(vec![volume], wanted).await;
        assert!(!left("one.1.d.n").exists() && !left("a-tasks-uid").exists() && left("two.1.d.n/0").exists());
    }

    #[test]
    fn a_collection_under_way_sees_what_has_come_up_since() {
        let (directory, volume) = volume();
        let (tell, mut wanted) = value::channel(Places::default());
        let earlier = Change::Seen(("2".into(), Side::Target), task("two", false, false));
        for change in [earlier, Change::Listed(Side::Target)] {
            tell.send_if_modified(|places| places.take(&change));
        }
        wanted.mark_unchanged();
        // It has begun, and is still at other places.
        let seen = Change::Seen(("1".into(), Side::Target), task("one", false, false));
        tell.send_if_modified(|places| places.take(&seen));
        assert!(!wanted.has_changed().unwrap(), "this is nothing to begin another one for");
        let left = directory.path().join(".nixl-transfer/one.1.d.n");
        std::fs::create_dir_all(&left).unwrap();
        std::fs::write(left.join("0"), "partial").unwrap();
        collect_one(&volume, &wanted);
        assert!(left.join("0").exists());
    }
}
