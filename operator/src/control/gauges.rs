//! Sets the gauges from the world. No decisions.

use std::collections::HashMap;

use crate::{memory::Memory, metrics::Metrics, world::World};

/// Sets every gauge anew, so that what is gone leaves none behind.
pub fn set(metrics: &Metrics, world: &World, memories: &HashMap<String, Memory>) {
    metrics.jobs.reset();
    for (namespace, phase, count) in world.phases() {
        let gauge = metrics.jobs.with_label_values(&[namespace, &format!("{phase:?}")]);
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    metrics.progress.reset();
    metrics.eta.reset();
    for job in world.open_jobs() {
        let labels = [
            job.metadata.namespace.as_deref().unwrap_or_default(),
            job.metadata.name.as_deref().unwrap_or_default(),
        ];
        let progress = job.status.as_ref().and_then(|status| status.progress.as_ref());
        let Some(progress) = progress.filter(|progress| progress.bytes_total > 0) else { continue };
        metrics
            .progress
            .with_label_values(&labels)
            .set(progress.bytes_done as f64 / progress.bytes_total as f64);
        let rate = job.metadata.uid.as_ref().and_then(|uid| memories.get(uid)).map_or(0, Memory::rate);
        if rate > 0 {
            let left = (progress.bytes_total - progress.bytes_done).max(0);
            metrics.eta.with_label_values(&labels).set(left as f64 / rate as f64);
        }
    }
    let agents = world.cluster.nodes.values().filter(|node| node.agent.is_some());
    let (ready, unready): (Vec<_>, Vec<_>) = agents.partition(|node| node.ready_agent().is_ok());
    metrics.agents.with_label_values(&["true"]).set(i64::try_from(ready.len()).unwrap_or(i64::MAX));
    metrics.agents.with_label_values(&["false"]).set(i64::try_from(unready.len()).unwrap_or(i64::MAX));
}
