//! `doctor`: reads what there is to read, and has it looked at.

use std::collections::BTreeMap;

use k8s_openapi::api::coordination::v1::Lease;

use super::Context;
use crate::{
    cli::{Doctor, Global, ReportOutput},
    cluster::{Cluster, typed},
    diagnosis::{self, Right, Seen},
    failure::Failure,
    output::{self, Format},
    render::doctor,
};

pub(super) async fn doctor(
    arguments: &Doctor,
    global: &Global,
    context: &mut Context<'_>,
) -> Result<(), Failure> {
    let cluster = Cluster::open(global).await?;
    let seen = look(arguments, &cluster).await?;
    let report = diagnosis::diagnose(&seen, context.now());
    match arguments.output {
        None => context.print(&doctor::doctor(&report, (context.look)().style))?,
        Some(ReportOutput::Json) => output::data(&report, Format::Json, context.out)?,
        Some(ReportOutput::Yaml) => output::data(&report, Format::Yaml, context.out)?,
    }
    // Everything was said.
    if report.is_broken() { Err(Failure::other("")) } else { Ok(()) }
}

async fn look(arguments: &Doctor, cluster: &Cluster) -> Result<Seen, Failure> {
    // The first alone: what it says of the way to the API server need not be said six times.
    let server = cluster.version().await?;
    let (mut nodes, jobs, mut names, leases, create, change) = tokio::try_join!(
        cluster.nodes(),
        cluster.list_jobs(false, None),
        cluster.node_names(),
        cluster.leases(&arguments.system_namespace),
        cluster.may("create"),
        cluster.may("patch"),
    )?;
    let wanted = &arguments.nodes;
    if !wanted.is_empty() {
        let exists = |name: &String| nodes.iter().any(|node| node.metadata.name.as_ref() == Some(name));
        if let Some(unknown) =
            wanted.iter().find(|name| !exists(name) && !names.iter().flatten().any(|it| it == *name))
        {
            return Err(Failure::other(format!(
                "there is no node {unknown} with an agent; `kubectl transfer doctor` lists those that have one"
            )));
        }
        nodes.retain(|node| node.metadata.name.as_ref().is_some_and(|name| wanted.contains(name)));
        names = names.map(|names| names.into_iter().filter(|name| wanted.contains(name)).collect());
    }
    let right = |what: &str, allowed| Right { what: what.into(), allowed };
    Ok(Seen {
        server,
        namespace: cluster.namespace.clone(),
        nodes,
        names,
        leases: leases.filter(|leases| !leases.is_empty()).map(renewals),
        jobs: jobs.into_iter().map(typed).collect::<Result<_, _>>()?,
        rights: vec![
            right("create TransferJobs", create),
            right("change them (suspend, resume, rerun)", change),
        ],
    })
}

fn renewals(leases: Vec<Lease>) -> BTreeMap<String, Option<jiff::Timestamp>> {
    let renewed = |lease: Lease| {
        let at = lease.spec.and_then(|spec| spec.renew_time).map(|time| time.0);
        Some((lease.metadata.name?, at))
    };
    leases.into_iter().filter_map(renewed).collect()
}
