//! Jobs between ends of any kind, as words: `memory:NAME` or `NODE:PATH`.

use anyhow::{Context, Result};
use nixl_transfer_tests::{
    Cluster,
    regions::{file, held_by_agent, job, memory},
};
use serde_json::Value;

use crate::{
    LONGEST,
    moves::{Moved, complete},
};

/// Makes a region that the agent of a node holds.
pub async fn region(cluster: &Cluster, name: &str, node: &str, bytes: u64) -> Result<()> {
    cluster.apply(&held_by_agent(name, node, bytes))?;
    cluster.wait_region_ready(name, LONGEST).await?;
    Ok(())
}

/// From one end to another.
pub async fn between(cluster: &Cluster, name: &str, from: &str, to: &str) -> Result<Moved> {
    complete(cluster, &job(name, end(from)?, &[end(to)?])).await
}

fn end(words: &str) -> Result<Value> {
    let (place, name) = words.split_once(':').with_context(|| format!("{words:?} is no end"))?;
    Ok(if place == "memory" { memory(name) } else { file(place, name) })
}
