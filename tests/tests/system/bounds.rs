//! The memory of a worker is its staging memory and a constant, whatever is moved.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use nixl_transfer_tests::{
    Cluster, Setup,
    data::{assert_same_content, write_file},
    jobs::{one_to_one, to_receivers},
};

const LONG: Duration = Duration::from_secs(150);
const MIB: u64 = 1 << 20;
/// 8 slots of 1 MiB on either side; a relay has both in one.
const STAGING: u64 = 8 * MIB;
/// The program, NIXL, UCX, the stacks of its threads, and what the allocator keeps.
const CONSTANT: u64 = 72 * MIB;

/// Runs a job while the peak of every worker is looked at; gives the highest.
async fn peak(cluster: &Cluster, nodes: &[&str], job: &serde_json::Value, name: &str) -> Result<u64> {
    let (highest, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let looking = {
        let (highest, done) = (Arc::clone(&highest), Arc::clone(&done));
        let roots: Vec<i32> = nodes.iter().filter_map(|node| cluster.agent(node).pid()).collect();
        std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                for process in roots.iter().flat_map(|root| devcluster::descendants(*root)) {
                    if process.arguments.iter().any(|argument| argument == "worker") {
                        highest.fetch_max(Cluster::peak_rss(process.pid).unwrap_or(0), Ordering::Relaxed);
                    }
                }
                std::thread::sleep(Duration::from_millis(20)); // samples a figure, waits for nobody
            }
        })
    };
    cluster.apply(job)?;
    let ended = cluster.wait_complete(name, LONG).await;
    done.store(true, Ordering::Relaxed);
    let looked = looking.join();
    ensure!(looked.is_ok(), "the memory of workers was not looked at");
    ended?;
    Ok(highest.load(Ordering::Relaxed))
}

fn assert_bounded(what: &str, peak: u64) -> Result<()> {
    println!("{what}: a worker's peak is {} MiB", peak / MIB);
    ensure!(peak > STAGING, "{what}: no worker was seen");
    ensure!(peak <= 2 * STAGING + CONSTANT, "{what}: a worker had {} MiB", peak / MIB);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: `cargo xtask endure` runs it"]
async fn a_workers_memory_is_bounded_whatever_is_moved() -> Result<()> {
    let nodes = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    let cluster = Setup::nodes(&nodes).start().await?;
    // 4 GiB without a byte on the disk of the source: what is read is zeros, what is written are holes no more.
    std::fs::File::create(cluster.path("a", "large"))?.set_len(4096 * MIB)?;
    let job = one_to_one("large", ("a", "large"), ("b", "large"));
    assert_bounded("4 GiB", peak(&cluster, &nodes[..2], &job, "large").await?)?;
    std::fs::remove_file(cluster.path("b", "large"))?;

    for at in 0..100_000 {
        let path = cluster.path("a", &format!("many/{:03}/{at}", at % 250));
        if at < 250 {
            std::fs::create_dir_all(path.parent().unwrap_or(&path))?;
        }
        std::fs::write(path, (at as u64).to_le_bytes())?;
    }
    let job = one_to_one("many", ("a", "many"), ("b", "many"));
    assert_bounded("100,000 files", peak(&cluster, &nodes[..2], &job, "many").await?)?;
    assert_same_content(&cluster.path("a", "many"), &cluster.path("b", "many"))?;

    write_file(&cluster.path("a", "fan"), 64 * MIB, 1)?;
    let job = to_receivers("fan", ("a", "fan"), "fan");
    assert_bounded("a fan-out of 8", peak(&cluster, &nodes, &job, "fan").await?)
}
