//! A tenant names what is another's.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::Cluster;
use super::ask::{SOON, apply, get, until};
use super::chart::{PRIVATE, TENANT};
use super::theft::SPACE;
use super::work::{ended, slow_job, volume, volume_at};
use crate::cluster::node;
use crate::demo::dataset;
use crate::demo::jobs::Key;
use crate::progress::Step;

/// The volume `private` is one tenant's: from another's namespace neither its content nor its place can be had.
pub fn are_apart(cluster: &Cluster) -> Result<()> {
    let (a, b) = (node::name(0), node::name(1));
    dataset::write_files(&volume_at(cluster.place, &a, PRIVATE), [("secret".to_owned(), 1 << 20)])?;
    let jobs = [
        job("stolen", SPACE, (&a, "private", "secret"), (&b, "data")),
        job("planted", SPACE, (&a, "data", "slow"), (&b, "private")),
        job("own", TENANT, (&a, "private", "secret"), (&b, "private")),
    ];
    apply(&cluster.kubectl, &jobs)?;
    let mut step = Step::start("a tenant names another tenant's volume");
    for name in ["stolen", "planted"] {
        until(SOON, || {
            let job = get(&cluster.kubectl, &["transferjob", name, "--namespace", SPACE])?;
            let conditions = job["status"]["conditions"].to_string();
            ensure!(conditions.contains("VolumeForbidden"), "{name}: {conditions}");
            ensure!(job["status"]["phase"] == "Failed", "{name} is {}", job["status"]["phase"]);
            Ok(())
        })?;
    }
    let key: Key = (TENANT.to_owned(), "own".to_owned());
    ended(&cluster.kubectl, &key, &mut step)?;
    for path in
        [volume(cluster.place, &b).join("stolen"), volume_at(cluster.place, &b, PRIVATE).join("planted")]
    {
        ensure!(!path.exists(), "{} is there", path.display());
    }
    step.done("VolumeForbidden, and nothing moved; the tenant itself may");
    Ok(())
}

/// A slow one that does not wait for long.
pub fn job(name: &str, space: &str, from: (&str, &str, &str), to: (&str, &str)) -> Value {
    let mut job = slow_job(name, space, from, to);
    job["spec"]["pendingDeadlineSeconds"] = json!(10);
    job
}

/// What Kubernetes' own roles mean here: `view` sees jobs, `edit` makes them and regions, and nobody of them sees TransferTasks.
pub fn roles_mean_what_they_say(cluster: &Cluster) -> Result<()> {
    let step = Step::start("users with the roles view and edit");
    let table = [
        ("view", "get", "transferjobs", true),
        ("view", "create", "transferjobs", false),
        ("view", "get", "memoryregions", false),
        ("view", "get", "transfertasks", false),
        ("edit", "create", "transferjobs", true),
        ("edit", "create", "memoryregions", true),
        ("edit", "get", "memoryregions", true),
        ("edit", "get", "transfertasks", false),
        ("edit", "patch", "transfertasks/status", false),
        ("edit", "patch", "transferjobs/status", false),
    ];
    for role in ["view", "edit"] {
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": format!("tenant-{role}"), "namespace": SPACE},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": format!("tenant-{role}")}],
        });
        apply(&cluster.kubectl, &[binding])?;
    }
    for (role, verb, what, wanted) in table {
        until(SOON, || {
            let user = format!("--as=tenant-{role}");
            let (kind, part) = what.split_once('/').unwrap_or((what, ""));
            // `kind/part` would be an object's name here.
            let part = format!("--subresource={part}");
            let ask = ["auth", "can-i", verb, kind, &part, "--namespace", SPACE, &user];
            // It ends with a failure when the answer is no.
            let may = match cluster.kubectl.run(&ask) {
                Ok(said) => said.trim() == "yes",
                Err(error) if format!("{error:#}").trim().ends_with("failed:") => false,
                Err(error) => return Err(error),
            };
            ensure!(may == wanted, "that a user with the role {role} may {verb} {what} is {may}");
            Ok(())
        })?;
    }
    step.done(&format!("{} questions answered as the roles say", table.len()));
    Ok(())
}
