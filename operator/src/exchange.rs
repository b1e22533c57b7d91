//! How the two ends of a hop meet: how large is what each publishes in the TransferTask for the other, and how long it took
//! until both had. Pure.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use nixl_transfer_crds::TransferTask;

/// Hops whose ends have not ended yet, by the UID of their task.
#[derive(Debug, Default)]
pub struct Exchanges {
    open: HashMap<String, Seen>,
}

#[derive(Debug)]
struct Seen {
    /// `None` when the first to be seen of it was not its beginning, as after a start of the operator.
    since: Option<Instant>,
    source: bool,
    target: bool,
}

/// What a task says that it did not say before.
#[derive(Debug, Default, PartialEq)]
pub struct News {
    /// Bytes of each half's metadata.
    pub published: Vec<usize>,
    /// How long it took until both had it.
    pub took: Option<Duration>,
}

impl Exchanges {
    /// Takes in a task as it is now, before its capabilities are taken away.
    pub fn see(&mut self, task: &TransferTask, now: Instant) -> News {
        let uid = task.metadata.uid.as_deref().unwrap_or_default();
        let status = task.status.as_ref();
        let source = status.and_then(|status| status.source.as_ref());
        let target = status.and_then(|status| status.target.as_ref());
        let over = source.is_some_and(|half| half.state.is_terminal())
            || target.is_some_and(|half| half.state.is_terminal());
        if over || task.metadata.deletion_timestamp.is_some() {
            self.open.remove(uid);
            return News::default();
        }
        let offers = source.and_then(|half| half.agent_metadata.as_ref()).map(String::len);
        let accepts = target.and_then(|half| half.rdma_metadata.as_ref()).map(String::len);
        let since = (offers.is_none() && accepts.is_none()).then_some(now);
        let seen = self.open.entry(uid.to_owned()).or_insert(Seen { since, source: false, target: false });
        let met = seen.source && seen.target;
        let mut news = News::default();
        for (known, bytes) in [(&mut seen.source, offers), (&mut seen.target, accepts)] {
            news.published.extend(bytes.filter(|_| !*known));
            *known |= bytes.is_some();
        }
        if seen.source && seen.target && !met {
            news.took = seen.since.map(|since| now.duration_since(since));
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn task(uid: &str, status: Value) -> TransferTask {
        serde_json::from_value(json!({
            "apiVersion": "nixl-transfer.io/v1alpha1", "kind": "TransferTask",
            "metadata": {"name": "t", "uid": uid},
            "spec": {
                "jobRef": {"name": "j", "uid": "1"}, "run": 1, "attempt": 0, "failures": 0, "direction": "Write",
                "source": {"nodeName": "a", "instance": "i", "volume": {"name": "v", "path": "p"}},
                "target": {"nodeName": "b", "nodeUID": "n", "instance": "i", "destination": "d",
                           "volume": {"name": "v", "path": "p"}},
                "transport": {}, "integrity": {}, "writePolicy": "Overwrite",
                "deadlines": {"pendingSeconds": 1, "progressSeconds": 1}, "cancel": false
            },
            "status": status,
        }))
        .unwrap()
    }

    fn source(state: &str) -> Value {
        json!({"state": state, "agentMetadata": "12345"})
    }

    fn target(state: &str) -> Value {
        json!({"state": state, "rdmaMetadata": "1234567"})
    }

    #[test]
    fn each_half_is_told_once_and_the_time_is_that_of_the_second() {
        let (mut exchanges, start) = (Exchanges::default(), Instant::now());
        let mut see = |millis: u64, status: Value| {
            let news = exchanges.see(&task("1", status), start + Duration::from_millis(millis));
            (news.published, news.took)
        };
        assert_eq!(see(0, json!({})), (vec![], None));
        assert_eq!(see(10, json!({"target": target("Prepared")})), (vec![7], None));
        assert_eq!(see(20, json!({"target": target("Prepared")})), (vec![], None));
        let both = |state: &str| json!({"source": source("Prepared"), "target": target(state)});
        assert_eq!(see(30, both("Prepared")), (vec![5], Some(Duration::from_millis(30))));
        assert_eq!(see(40, both("Active")), (vec![], None));
        assert_eq!(see(50, both("Succeeded")), (vec![], None));
        assert!(exchanges.open.is_empty(), "what has ended is forgotten");
    }

    #[test]
    fn what_was_under_way_at_the_start_has_sizes_and_no_time() {
        let mut exchanges = Exchanges::default();
        let mut see = |status: Value| exchanges.see(&task("1", status), Instant::now());
        let first = see(json!({"source": source("Prepared")}));
        assert_eq!(first, News { published: vec![5], took: None });
        let second = see(json!({"source": source("Active"), "target": target("Active")}));
        assert_eq!(second, News { published: vec![7], took: None });
    }

    #[test]
    fn a_task_that_is_being_deleted_is_forgotten() {
        let mut exchanges = Exchanges::default();
        let mut gone = task("1", json!({}));
        exchanges.see(&gone, Instant::now());
        gone.metadata.deletion_timestamp =
            serde_json::from_value(json!("2026-01-01T00:00:00Z")).expect("a time");
        exchanges.see(&gone, Instant::now());
        assert!(exchanges.open.is_empty());
    }
}
