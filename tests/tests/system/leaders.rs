//! Two operators, of which one leads: who takes over when, that no job is lost or done twice by it, and that one which
//! stood still writes nothing when it goes on.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use devcluster::{OPERATOR, Operator, OperatorOptions, SECOND_OPERATOR, binary, http_get};
use nixl_transfer_tests::{
    Cluster, Setup,
    data::{assert_same, write_file},
    jobs::{is_complete, one_to_one, with},
};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::operations::metric;

const SOON: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;
const USERS: [&str; 2] = [OPERATOR, SECOND_OPERATOR];
/// A Lease's duration, and what it takes to find out: the standby's last look before it, and on a slow machine a little.
const LAPSED: Duration = Duration::from_secs(15 + 2 + 2);
/// One look of the standby, and a little.
const LET_GO: Duration = Duration::from_secs(2 + 1);

/// A cluster and its two operators, which are dropped first.
struct Pair {
    operators: [Operator; 2],
    cluster: Cluster,
}

impl Pair {
    /// The first one leads when this returns, and the second one is ready.
    async fn start(setup: Setup, arguments: &[&str]) -> Result<Self> {
        let cluster = setup.without_operator().start().await?;
        let operator = |at: usize| -> Result<Operator> {
            let mut options = OperatorOptions::new(binary("transfer-operator")?);
            options.name = format!("operator-{at}");
            options.user = USERS[at];
            options.environment = vec![("POD_NAME".into(), options.name.clone())];
            let common = ["--leader-elect", "--backoff-base-seconds=1", "--writers=1"];
            options.extra_arguments = common.iter().chain(arguments).map(ToString::to_string).collect();
            let operator = cluster.another_operator(options)?;
            operator.wait_ready()?;
            Ok(operator)
        };
        let first = operator(0)?;
        until(SOON, "the first one leads", || leads(&first)).await?;
        let pair = Self { operators: [first, operator(1)?], cluster };
        ensure!(!leads(&pair.operators[1])?, "both lead");
        Ok(pair)
    }

    /// How long it takes from now until this one leads.
    async fn takeover(&self, by: usize, within: Duration) -> Result<Duration> {
        let since = Instant::now();
        let what = format!("operator {by} leads");
        let led = until(within, &what, || leads(&self.operators[by])).await;
        led.with_context(|| self.logs())?;
        println!("{what} after {:.2} s", since.elapsed().as_secs_f64());
        Ok(since.elapsed())
    }

    /// Jobs `name-0`, … from `a` to `b`, whose source files are there.
    fn apply(&self, name: &str, count: usize, bytes: u64, limit: Option<&str>) -> Result<()> {
        let mut jobs = Vec::new();
        for at in 0..count {
            let (job, from) = (format!("{name}-{at}"), format!("in-{name}-{at}"));
            write_file(&self.cluster.path("a", &from), bytes, at as u64)?;
            let job = one_to_one(&job, ("a", &from), ("b", &job));
            jobs.push(match limit {
                Some(limit) => with(job, "transport", json!({"bandwidthLimit": limit})),
                None => job,
            });
        }
        self.cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": jobs})).map(drop)
    }

    /// All of them are Complete, with equal files, and each took one attempt of one task.
    async fn complete(&self, name: &str, count: usize) -> Result<()> {
        for at in 0..count {
            let job = format!("{name}-{at}");
            self.cluster.wait_complete(&job, SOON).await.with_context(|| self.logs())?;
            assert_same(&self.cluster.path("a", &format!("in-{name}-{at}")), &self.cluster.path("b", &job))?;
            let tasks = self.cluster.tasks_of(&job).await?;
            let attempts: Vec<(i32, i32)> =
                tasks.iter().map(|task| (task.spec.attempt, task.spec.failures)).collect();
            ensure!(attempts == [(0, 0)], "attempts and failures of {job}: {attempts:?}\n{}", self.logs());
        }
        Ok(())
    }

    /// Requests of this operator that would change one of our objects, as the API server counts them.
    fn requests(&self, of: usize) -> Result<usize> {
        let text = self.cluster.plane.audited()?;
        let is_its = |line: &&str| {
            serde_json::from_str::<Value>(line).is_ok_and(|event| {
                let changes =
                    ["create", "update", "patch", "delete"].iter().any(|verb| event["verb"] == *verb);
                let is_lease = event["objectRef"]["resource"] == "leases";
                changes && !is_lease && event["user"]["username"] == USERS[of]
            })
        };
        Ok(text.lines().filter(is_its).count())
    }

    fn log(&self, of: usize) -> String {
        std::fs::read_to_string(self.operators[of].log()).unwrap_or_default()
    }

    fn logs(&self) -> String {
        let tail = |of: usize| {
            let log = self.log(of);
            let lines: Vec<&str> = log.lines().collect();
            format!("--- operator {of}\n{}\n", lines[lines.len().saturating_sub(30)..].join("\n"))
        };
        tail(0) + &tail(1)
    }
}

fn leads(operator: &Operator) -> Result<bool> {
    Ok(metric(&operator.metrics()?, "nixl_transfer_operator_leader", "") == 1.0)
}

async fn until(within: Duration, what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let since = Instant::now();
    while !done()? {
        if since.elapsed() > within {
            bail!("not after {within:?}: {what}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await; // polls with a deadline
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_writes_and_a_roll_hands_over_at_once() -> Result<()> {
    let mut pair = Pair::start(Setup::nodes(&["a", "b"]).audited(), &[]).await?;
    pair.apply("before", 1, MIB, None)?;
    pair.complete("before", 1).await?;
    ensure!(pair.requests(0)? > 0 && pair.requests(1)? == 0, "the standby wrote");
    let standby = pair.operators[1].metrics()?;
    ensure!(metric(&standby, "nixl_transfer_api_writes_total", "") == 0.0, "{standby}");
    ensure!(metric(&standby, "nixl_transfer_jobs", "") == 0.0, "two would report the same jobs: {standby}");

    pair.apply("roll", 3, 40 * MIB, Some("4Mi"))?;
    pair.cluster.wait_partial("b", MIB, SOON).await?;
    for old in [0, 1] {
        let new = 1 - old;
        pair.operators[old].signal(Signal::TERM)?;
        let took = pair.takeover(new, LET_GO).await?;
        ensure!(took < LET_GO, "{took:?}");
        until(SOON, "it has ended", || Ok(!pair.operators[old].is_running())).await?;
        ensure!(pair.log(old).contains("the Lease is let go"), "{}", pair.logs());
        pair.operators[old].restart()?;
        pair.operators[old].wait_ready()?;
        ensure!(!leads(&pair.operators[old])? && leads(&pair.operators[new])?);
        pair.apply(&format!("after-{old}"), 1, MIB, None)?;
        pair.complete(&format!("after-{old}"), 1).await?;
    }
    let lease = ["get", "lease", "nixl-transfer-operator", "-n", devcluster::SYSTEM_NAMESPACE, "-o", "json"];
    let spec = serde_json::from_str::<Value>(&pair.cluster.plane.kubectl(&lease)?)?["spec"].clone();
    ensure!(
        spec["holderIdentity"].as_str().is_some_and(|holder| holder.starts_with("operator-0_")),
        "{spec}"
    );
    ensure!(spec["leaseTransitions"] == 2 && spec["leaseDurationSeconds"] == 15, "{spec}");
    pair.complete("roll", 3).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_is_replaced_and_every_job_is_done_once() -> Result<()> {
    let mut pair = Pair::start(Setup::nodes(&["a", "b"]), &[]).await?;
    pair.apply("slow", 2, 60 * MIB, Some("3Mi"))?;
    pair.apply("many", 30, 10_000, None)?;
    pair.cluster.wait_complete("many-0", SOON).await?;
    pair.operators[0].kill9()?;
    let left = pair.cluster.jobs().list(&Default::default()).await?.items;
    let left = left.iter().filter(|job| !is_complete(job)).count();
    ensure!(left > 5, "only {left} jobs were left when the leader was killed");
    pair.apply("orphan", 3, MIB, None)?;
    pair.takeover(1, LAPSED).await?;
    for (name, count) in [("orphan", 3), ("many", 30), ("slow", 2)] {
        pair.complete(name, count).await?;
    }
    pair.cluster.assert_nothing_left(&["a", "b"], SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stood_still_for_longer_than_its_lease_writes_nothing_more() -> Result<()> {
    // It ends when it has lost the Lease; here it does not at once, or it would hardly have the time to do harm.
    let pair = Pair::start(Setup::nodes(&["a", "b"]).audited(), &["--linger-when-lost-seconds=8"]).await?;
    pair.apply("many", 60, 10_000, None)?;
    pair.cluster.wait_complete("many-0", SOON).await?;
    // With plans in its queue that it has not written yet.
    pair.operators[0].signal(Signal::STOP)?;
    let left = pair.cluster.jobs().list(&Default::default()).await?.items;
    let left = left.iter().filter(|job| !is_complete(job)).count();
    ensure!(left > 20, "only {left} jobs were left when the leader was stopped");
    pair.takeover(1, LAPSED).await?;
    pair.complete("many", 60).await?;
    let before = pair.requests(0)?;
    ensure!(before > 0, "the audit tells nothing");

    pair.operators[0].signal(Signal::CONT)?;
    let lost = || Ok(pair.log(0).contains("this operator has lost the Lease"));
    until(Duration::from_secs(5), "it has lost the Lease", lost).await.with_context(|| pair.logs())?;
    // It sees these as well, and would write for them.
    pair.apply("later", 5, 10_000, None)?;
    pair.complete("later", 5).await?;
    let ended = until(Duration::from_secs(20), "it has ended", || Ok(!pair.operators[0].is_running())).await;
    ended.with_context(|| pair.logs())?;
    let after = pair.requests(0)?;
    ensure!(after == before, "it sent {} requests after it had lost the Lease", after - before);
    pair.complete("many", 60).await
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_seconds_without_any_operator_lose_nothing() -> Result<()> {
    let mut pair = Pair::start(Setup::nodes(&["a", "b"]), &[]).await?;
    pair.apply("slow", 2, 60 * MIB, Some("2Mi"))?;
    pair.apply("short", 2, 20 * MIB, Some("4Mi"))?;
    pair.cluster.wait_partial("b", 4 * MIB, SOON).await?;
    pair.operators.iter_mut().try_for_each(Operator::kill9)?;
    pair.apply("meanwhile", 3, MIB, None)?;
    // The outage itself is the subject here; nothing is synchronised by this time.
    tokio::time::sleep(Duration::from_secs(20)).await;
    for operator in &mut pair.operators {
        operator.restart()?;
    }
    for operator in &pair.operators {
        operator.wait_ready()?;
        ensure!(http_get(operator.port(), "/healthz", Duration::from_secs(5))?.0 == 200);
    }
    let led =
        until(LAPSED, "one of them leads", || Ok(leads(&pair.operators[0])? || leads(&pair.operators[1])?));
    led.await.with_context(|| pair.logs())?;
    for (name, count) in [("meanwhile", 3), ("short", 2), ("slow", 2)] {
        pair.complete(name, count).await?;
    }
    ensure!(leads(&pair.operators[0])? != leads(&pair.operators[1])?, "not one of them leads");
    pair.cluster.assert_nothing_left(&["a", "b"], SOON).await
}
