//! `get`: the table of jobs, or the jobs.

use std::io::{Write, stderr};

use serde_json::Value;

use super::Context;
use crate::{
    cli::{Get, Global, ListOutput},
    cluster::Cluster,
    failure::Failure,
    output::{self, Format},
    render::jobs::{self, Shown},
};

pub(super) async fn get(arguments: &Get, global: &Global, context: &mut Context<'_>) -> Result<(), Failure> {
    let cluster = Cluster::open(global).await?;
    let found = if arguments.names.is_empty() {
        cluster.list_jobs(arguments.all_namespaces, arguments.selector.as_deref()).await?
    } else {
        let mut found = Vec::new();
        for name in &arguments.names {
            found.push(cluster.job(name).await?);
        }
        found
    };
    let data = |found: Vec<Value>| match (arguments.names.as_slice(), found) {
        ([_], mut found) if found.len() == 1 => found.remove(0),
        (_, found) => output::list(found),
    };
    match arguments.output {
        Some(ListOutput::Json) => output::data(&data(found), Format::Json, context.out),
        Some(ListOutput::Yaml) => output::data(&data(found), Format::Yaml, context.out),
        Some(ListOutput::Name) => {
            context.print(&found.iter().map(|job| output::name(job) + "\n").collect::<String>())
        }
        None | Some(ListOutput::Wide) if found.is_empty() => {
            let of = if arguments.all_namespaces {
                "any namespace".into()
            } else {
                format!("namespace {}", cluster.namespace)
            };
            Ok(writeln!(stderr(), "No TransferJobs found in {of}.")?)
        }
        wide => {
            let shown = Shown { namespaces: arguments.all_namespaces, wide: wide.is_some() };
            let text = jobs::jobs(&found, shown, (context.look)().style, context.now());
            context.print(&text)
        }
    }
}
