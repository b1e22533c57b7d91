//! `kubectl transfer` against a real API server: all of it on a cluster that works, and what it says where it may not, where
//! nothing is installed, and where the API server goes away. What it shows to the letter, and a server that never answers, is in
//! `plugin/tests/golden`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nixl_transfer_crds::{condition, job::status::Phase};
use nixl_transfer_tests::{
    Cluster, Setup,
    data::{assert_same, assert_same_content, write_file, write_tree},
    jobs::{one_to_one, with},
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

/// Every command, about a job that need not exist.
const COMMANDS: [&[&str]; 8] = [
    &["create", "a:data/in", "b:data/out"],
    &["get"],
    &["describe", "job"],
    &["watch", "job"],
    &["doctor"],
    &["rerun", "job"],
    &["suspend", "job"],
    &["resume", "job"],
];

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_made_followed_shown_and_run_again() -> Result<()> {
    let cluster = Setup::nodes(&["a", "b", "c"]).start().await?;
    let plugin = cluster.plugin();
    write_tree(&cluster.path("a", "in"), 20, 5 * MIB)?;

    // What a dry run prints is what kubectl takes.
    let ends = ["create", "a:data/in", "-l", "role=receiver:data/out"];
    let document = plugin.ok(&[&ends[..], &["--dry-run", "-o", "yaml"]].concat()).await?;
    ensure!(cluster.plane.apply_text(&document)?.contains("in-to-receiver created"), "{document}");
    ensure!(cluster.plane.apply_text(&document)?.contains("in-to-receiver unchanged"), "{document}");
    let followed = plugin.ok(&["watch", "in-to-receiver", "--timeout", "60s"]).await?;
    ensure!(followed.contains("\nComplete: 2 nodes have the data, verified"), "{followed}");
    for node in ["b", "c"] {
        assert_same(&cluster.path("a", "in"), &cluster.path(node, "out"))?;
    }
    // The same name again, and the server's own rules.
    let again = plugin.run(&ends).await?;
    ensure!(
        again.code == 1 && again.error.contains("--name") && again.error.contains("transfer rerun"),
        "{again:?}"
    );
    let refused = plugin
        .run(&["create", "a:data/in", "b:data/x", "--bandwidth-limit", "1", "--dry-run=server"])
        .await?;
    ensure!(refused.code == 1 && refused.error.contains("from 64Ki to 1Pi"), "{refused:?}");

    // The columns and values of kubectl.
    let cells = |table: &str| -> Vec<String> { table.split_whitespace().map(str::to_owned).collect() };
    let (ours, theirs) = (plugin.ok(&["get"]).await?, cluster.plane.kubectl(&["get", "transferjobs"])?);
    let without_age = |table: &str| {
        table.lines().map(|line| cells(line).split_last().map(|it| it.1.to_vec())).collect::<Vec<_>>()
    };
    ensure!(without_age(&ours) == without_age(&theirs), "{ours}\n{theirs}");

    // A run again, told apart from the one that is over.
    let rerun = plugin.ok(&["rerun", "in-to-receiver", "--trigger", "again"]).await?;
    ensure!(rerun == "transferjob.nixl-transfer.io/in-to-receiver rerun (again)\n", "{rerun}");
    plugin.ok(&["watch", "in-to-receiver", "--timeout", "60s"]).await?;
    let status = cluster.jobs().get("in-to-receiver").await?.status.context("status")?;
    ensure!((status.run, status.last_handled_trigger.as_str()) == (2, "again"), "{status:?}");
    let described = plugin.ok(&["describe", "in-to-receiver"]).await?;
    for text in [
        "Phase:       Complete",
        "Run:         2, took",
        "nodes with role=receiver",
        "xxh3:",
        "NoRdmaDevice: ",
    ] {
        ensure!(described.contains(text), "{text}: {described}");
    }

    // Everything about the cluster.
    let doctor = plugin.ok(&["doctor"]).await?;
    for text in [
        "NIXL",
        "UCX (",
        "a, b, c: NoRdmaDevice",
        "TCP between all nodes",
        "An operator looks at jobs",
        "Nothing is broken",
    ] {
        ensure!(doctor.contains(text), "{text}: {doctor}");
    }
    ensure!(doctor.lines().filter(|line| line.contains(" True ")).count() == 3, "{doctor}");
    ensure!(!doctor.contains("unseen"), "an administrator sees all: {doctor}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_stopped_and_goes_on_and_one_that_fails_says_what_to_do() -> Result<()> {
    let cluster = Setup::nodes(&["a", "b"]).start().await?;
    let plugin = cluster.plugin();
    // A minute of it, which is there to be interrupted.
    write_file(&cluster.path("a", "file"), 16 * MIB, 1)?;
    plugin
        .ok(&["create", "a:data/file", "node/b:data/file", "--name", "slow", "--bandwidth-limit", "256Ki"])
        .await?;
    cluster.wait_moving("slow", 1, SOON).await?;

    // While bytes move, metadata stand in the tasks, and nowhere else.
    let (text, data) =
        (plugin.ok(&["describe", "slow"]).await?, plugin.ok(&["describe", "slow", "-o", "json"]).await?);
    ensure!(
        text.contains("Active") && text.contains("ATTEMPT   SENDS"),
        "an administrator sees tasks: {text}"
    );
    let described: Value = serde_json::from_str(&data)?;
    ensure!(described["tasks"][0]["spec"]["target"]["nodeName"] == "b", "{data}");
    let held = serde_json::to_string(&cluster.tasks_of("slow").await?)?;
    ensure!(held.contains("sealed:"), "the test is too late: {held}");
    for text in [&text, &data] {
        ensure!(!text.contains("sealed:") && !text.contains("Metadata\""), "a capability is shown: {text}");
    }

    let late = plugin.run(&["watch", "slow", "--timeout", "100ms"]).await?;
    ensure!(late.code == 6 && late.error.contains("--timeout"), "{late:?}");
    let suspended = plugin.ok(&["suspend", "slow"]).await?;
    ensure!(suspended == "transferjob.nixl-transfer.io/slow suspended\n", "{suspended}");
    ensure!(plugin.ok(&["suspend", "tj/slow"]).await?.ends_with("slow unchanged\n"));
    cluster
        .wait_for("slow", SOON, "suspended", |job| {
            job.status
                .as_ref()
                .is_some_and(|status| condition::is_true(&status.conditions, condition::SUSPENDED))
        })
        .await?;
    let described = plugin.ok(&["describe", "slow"]).await?;
    ensure!(described.contains("`kubectl transfer resume slow -n default`"), "{described}");
    // The attempt that follows is fast enough to be waited for.
    let faster = json!({"spec": {"transport": {"bandwidthLimit": "4Mi"}}}).to_string();
    cluster.plane.kubectl(&["patch", "transferjob", "slow", "--type=merge", "-p", &faster])?;
    let mut watch = plugin.start(&["watch", "slow", "--timeout", "80s"])?;
    watch.line("Suspended").await?;
    plugin.ok(&["resume", "slow"]).await?;
    watch.line("Transferring").await?;
    let ended = watch.end().await?;
    ensure!(ended.code == 0 && ended.out.contains("Complete: 1 node has the data, verified"), "{ended:?}");
    assert_same_content(&cluster.path("a", "file"), &cluster.path("b", "file"))?;

    plugin.ok(&["create", "a:data/fiel", "b:data/file", "--name", "wrong"]).await?;
    let failed = plugin.run(&["watch", "wrong", "--timeout", "60s"]).await?;
    ensure!(failed.code == 1 && failed.out.contains("Failed: 1 of 1 nodes failed"), "{failed:?}");
    for text in ["SourceNotFound on b: ", "`kubectl transfer rerun wrong -n default`"] {
        ensure!(failed.out.contains(text), "{text}: {failed:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_is_told_so_and_who_may_look_sees_enough() -> Result<()> {
    let cluster = Setup::nodes(&[]).without_operator().start().await?;
    with_a_job(&cluster)?;
    let nobody = cluster.plugin_as("nobody")?;
    for arguments in COMMANDS {
        let said = nobody.run(arguments).await?;
        ensure!(said.code == 4, "{arguments:?}: {said:?}");
        ensure!(
            said.error.starts_with("error: you may not ") && said.error.contains("the role `view`"),
            "{said:?}"
        );
        ensure!(said.error.contains("\"nobody\" cannot") && said.error.lines().count() == 1, "{said:?}");
    }

    let viewer = cluster.plugin_as("viewer")?;
    cluster.grant("viewer", "view")?;
    ensure!(viewer.ok(&["get"]).await?.contains("job"));
    let described = viewer.ok(&["describe", "job"]).await?;
    ensure!(described.contains("You may not read TransferTasks, and need not"), "{described}");
    let data: Value = serde_json::from_str(&viewer.ok(&["describe", "job", "-o", "json"]).await?)?;
    ensure!(data["tasks"] == Value::Null && data["job"]["metadata"]["name"] == "job", "{data}");
    for arguments in [COMMANDS[0], COMMANDS[5], COMMANDS[6], COMMANDS[7]] {
        let said = viewer.run(arguments).await?;
        ensure!(said.code == 4 && said.error.contains("(or `edit`"), "{arguments:?}: {said:?}");
    }
    let doctor = viewer.run(&["doctor"]).await?;
    ensure!(doctor.code == 1 && doctor.out.contains("No node has an agent"), "{doctor:?}");
    ensure!(
        doctor.out.contains("you may not create TransferJobs") && doctor.out.contains("no Lease"),
        "{doctor:?}"
    );

    cluster.grant("viewer", "edit")?;
    viewer.ok(&["suspend", "job"]).await?;
    ensure!(!viewer.run(&["doctor"]).await?.out.contains("you may not"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_installed_that_is_what_it_says() -> Result<()> {
    let cluster = Setup::nodes(&[]).without_operator().without_crds().start().await?;
    let plugin = cluster.plugin();
    for arguments in COMMANDS {
        let said = plugin.run(arguments).await?;
        ensure!(said.code == 5, "{arguments:?}: {said:?}");
        ensure!(
            said.error.contains("CRDs are not installed") && said.error.contains("install the chart"),
            "{said:?}"
        );
    }
    ensure!(plugin.run(&["get", "-A"]).await.is_ok_and(|said| said.code == 2), "-n and -A");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_outlives_the_api_server_and_not_the_job() -> Result<()> {
    let mut cluster = Setup::nodes(&[]).without_operator().start().await?;
    with_a_job(&cluster)?;
    let plugin = cluster.plugin();
    let missing = plugin.run(&["watch", "other"]).await?;
    ensure!(missing.code == 1 && missing.error.contains("no such object"), "{missing:?}");

    let mut watch = plugin.start(&["watch", "job"])?;
    watch.line("waiting for the operator").await?;
    report(&cluster, Phase::Transferring)?;
    watch.line("Transferring").await?;
    cluster.plane.pause();
    cluster.plane.resume()?;
    report(&cluster, Phase::Retrying)?;
    watch.line("Retrying").await?;
    report(&cluster, Phase::Complete)?;
    let ended = watch.end().await?;
    ensure!(ended.code == 0 && ended.out.contains("Complete"), "{ended:?}");
    ensure!(ended.error.matches("lost the API server, trying again").count() == 1, "said once: {ended:?}");

    report(&cluster, Phase::Preparing)?;
    let mut watch = plugin.start(&["watch", "job"])?;
    watch.line("Preparing").await?;
    cluster.plane.kubectl(&["delete", "transferjob", "job"])?;
    let ended = watch.end().await?;
    ensure!(ended.code == 1 && ended.error.contains("job was deleted while it was watched"), "{ended:?}");
    Ok(())
}

fn with_a_job(cluster: &Cluster) -> Result<()> {
    cluster.apply(&with(one_to_one("job", ("a", "in"), ("b", "out")), "suspend", json!(false))).map(drop)
}

/// What an operator would write.
fn report(cluster: &Cluster, phase: Phase) -> Result<()> {
    let status = json!({"status": {"observedGeneration": 1, "run": 1, "phase": phase}});
    let patch = status.to_string();
    let arguments = ["patch", "transferjob", "job", "--subresource=status", "--type=merge", "-p", &patch];
    cluster.plane.kubectl(&arguments).map(drop)
}
