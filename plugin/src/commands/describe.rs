//! `describe`: one job in full.

use nixl_transfer_crds::TransferJob;
use serde_json::json;

use super::Context;
use crate::{
    cli::{Describe, Global, ReportOutput},
    cluster::{Cluster, typed},
    failure::Failure,
    next,
    output::{self, Format},
    render::describe::{self, Tasks},
};

pub(super) async fn describe(
    arguments: &Describe,
    global: &Global,
    context: &mut Context<'_>,
) -> Result<(), Failure> {
    let cluster = Cluster::open(global).await?;
    let (object, tasks) = tokio::try_join!(cluster.job(&arguments.name), cluster.tasks(&arguments.name))?;
    let job: TransferJob = typed(object.clone())?;
    let now = context.now();
    let format = match arguments.output {
        None => {
            let tasks = tasks.map_or(Tasks::Forbidden, Tasks::Seen);
            return context.print(&describe::describe(&job, &tasks, (context.look)().style, now));
        }
        Some(ReportOutput::Json) => Format::Json,
        Some(ReportOutput::Yaml) => Format::Yaml,
    };
    // `tasks` is null for one who may not read them.
    let report = json!({"job": object, "tasks": tasks, "next": next::advice(&job, now)});
    output::data(&report, format, context.out)
}
