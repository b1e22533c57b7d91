//! What users of the model's world write: jobs and their destinations.

use nixl_transfer_crds::{
    TransferJob,
    endpoint::{Destination, Place},
};
use serde_json::json;

/// A job from node `a` to what the second argument selects.
pub fn job(destinations: serde_json::Value) -> TransferJob {
    serde_json::from_value(json!({
        "apiVersion": "nixl-transfer.io/v1alpha1",
        "kind": "TransferJob",
        "metadata": {"name": "job", "namespace": "ns", "uid": "job-uid", "generation": 1},
        "spec": {
            "source": {"node": {"name": "a"}, "volume": {"name": "v", "path": "from"}},
            "destinations": destinations,
        }
    }))
    .unwrap()
}

/// Path of a destination in its volume.
pub fn path(to: &Destination) -> &str {
    &to.place.volume().expect("these jobs move files").path
}

/// Puts the first destination elsewhere.
pub fn redirect(job: &mut TransferJob, path: impl FnOnce(&str) -> String) {
    if let Place::Volume(volume) = &mut job.spec.destinations[0].place {
        volume.path = path(&volume.path);
    }
}

/// A destination at one node.
pub fn at(name: &str, node: &str) -> serde_json::Value {
    json!({"name": name, "node": {"name": node}, "volume": {"name": "v", "path": "to"}})
}

/// A destination at every node with the label `role: data`.
pub fn everywhere(name: &str, path: &str) -> serde_json::Value {
    json!({"name": name, "node": {"selector": {"matchLabels": {"role": "data"}}}, "volume": {"name": "v", "path": path}})
}
