//! Two operators that both write, as without the election or after somebody has deleted the leader's Lease.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use devcluster::{OperatorOptions, Right, SECOND_OPERATOR, binary};
use nixl_transfer_tests::{
    Setup,
    data::{assert_same, write_file},
    jobs::one_to_one,
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
const AT_ONCE: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn two_that_write_at_once_do_each_job_once() -> Result<()> {
    let cluster = Setup::nodes(&["a", "b"]).audited().start().await?;
    let mut options = OperatorOptions::new(binary("transfer-operator")?);
    options.name = "operator-2".into();
    options.user = SECOND_OPERATOR;
    let second = cluster.another_operator(options)?;
    second.wait_ready()?;
    write_file(&cluster.path("a", "file"), 10_000, 1)?;

    // Whether they meet is chance, so there are jobs until one has found a task that the other had made, and looked at it.
    let look =
        Right { role: "operator".into(), verb: "get".into(), what: "nixl-transfer.io/transfertasks".into() };
    let since = Instant::now();
    let mut names = Vec::new();
    while !cluster.plane.asked()?.allowed.contains(&look) {
        ensure!(since.elapsed() < SOON, "in {} jobs the two never made the same task", names.len());
        let more: Vec<String> = (0..AT_ONCE).map(|at| format!("job-{}", names.len() + at)).collect();
        let jobs: Vec<Value> = more.iter().map(|name| one_to_one(name, ("a", "file"), ("b", name))).collect();
        cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": jobs}))?;
        for name in more {
            cluster.wait_complete(&name, SOON).await?;
            names.push(name);
        }
    }
    println!("they met within {} jobs", names.len());
    for name in &names {
        assert_same(&cluster.path("a", "file"), &cluster.path("b", name))?;
        let tasks = cluster.tasks_of(name).await?;
        let attempts: Vec<(i32, i32)> =
            tasks.iter().map(|task| (task.spec.attempt, task.spec.failures)).collect();
        ensure!(attempts == [(0, 0)], "attempts and failures of {name}: {attempts:?}\n{}", cluster.logs());
    }
    cluster.assert_nothing_left(&["a", "b"], SOON).await
}
