//! A copy within one node, alone and beside one that leaves it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nixl_transfer_tests::{
    Setup,
    data::{assert_same, write_file},
    jobs::one_to_one,
};
use serde_json::json;

const SOON: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_within_a_node_goes_through_its_memory_and_one_elsewhere_does_not() -> Result<()> {
    let cluster = Setup::nodes(&["a", "b"]).start().await?;
    write_file(&cluster.path("a", "file"), 40 * MIB, 1)?;
    let mut job = one_to_one("within", ("a", "file"), ("a", "copy"));
    let elsewhere =
        json!({"name": "elsewhere", "node": {"name": "b"}, "volume": {"name": "data", "path": "copy"}});
    job["spec"]["destinations"].as_array_mut().context("destinations")?.push(elsewhere);
    cluster.apply(&job)?;
    cluster.wait_complete("within", SOON).await?;
    for task in cluster.tasks_of("within").await? {
        let node = task.spec.target.node_name.clone();
        let target = task.status.and_then(|status| status.target).context("a half")?;
        let transport = target.transport.context("a transport")?;
        let expected = if node == "a" { ("sm", None) } else { ("tcp", Some("NoRdmaDevice")) };
        ensure!(
            (transport.network.as_str(), transport.fallback_reason.as_deref()) == expected,
            "{transport:?}"
        );
        assert_same(&cluster.path("a", "file"), &cluster.path(&node, "copy"))?;
    }
    cluster.assert_nothing_left(&["a", "b"], SOON).await
}
