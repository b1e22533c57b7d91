//! What operator and agents asked the API server for, in all that the test did, against what the chart's roles grant.

use std::fs;

use anyhow::{Context, Result, ensure};
use devcluster::{Told, asked, granted};

use crate::cluster::control_plane;
use crate::cluster::record::Place;
use crate::paths;
use crate::progress::Step;
use crate::test::suite::ROLES;

/// How the audit calls the program with which a token was stolen.
const OF_KUBECTL: &str = "\"userAgent\":\"kubectl/";

/// Nothing is refused, and nothing is used that a rule of another's would have to grant. That every right is used, the whole suite
/// of tests shows, and not this one.
pub fn as_granted(place: &Place) -> Result<()> {
    let step = Step::start("rights used against rights granted");
    let granted = granted(&fs::read_to_string(paths::root().join(ROLES))?).context(ROLES)?;
    let log = control_plane::audit_log(place);
    let audit = fs::read_to_string(&log).with_context(|| log.display().to_string())?;
    let ours: Vec<&str> = audit.lines().filter(|line| !line.contains(OF_KUBECTL)).collect();
    let asked = asked(&ours.join("\n"), Told::ByAccount);
    ensure!(asked.refused.is_empty(), "refused by RBAC: {:?}", asked.refused);
    let beyond: Vec<String> = asked.allowed.difference(&granted).map(ToString::to_string).collect();
    ensure!(beyond.is_empty(), "used without a rule of {ROLES}: {beyond:?}");
    ensure!(!asked.allowed.is_empty(), "{} says nothing of operator and agents", log.display());
    step.done(&format!(
        "{} requests, {} rights used of {} granted, nothing refused",
        ours.len(),
        asked.allowed.len(),
        granted.len()
    ));
    Ok(())
}
