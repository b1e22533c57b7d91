//! `create`: a TransferJob from two or more ends.

use std::io::{Write, stderr};

use super::{Context, watch};
use crate::{
    cli::{Create, DryRun, Global, Output},
    cluster::Cluster,
    ends::SelectedEnd,
    failure::{Failure, Kind},
    manifest::{self, Wish},
    output,
};

pub(super) async fn create(
    arguments: Create,
    global: &Global,
    context: &mut Context<'_>,
) -> Result<(), Failure> {
    let (dry_run, printed, follow) = (arguments.dry_run, arguments.output, arguments.watch);
    let wish = wish(arguments);
    let usage = |error| Failure::new(Kind::Usage, error);
    if dry_run == Some(DryRun::Client) {
        // As kubectl does it: a namespace stands in the document only when one was given.
        let document = manifest::document(&wish, global.namespace.as_deref()).map_err(usage)?;
        return output::object(&document, printed.unwrap_or(Output::Yaml), context.out);
    }
    let cluster = Cluster::open(global).await?;
    let document = manifest::document(&wish, Some(&cluster.namespace)).map_err(usage)?;
    let made = cluster.create(&document, dry_run.is_some()).await?;
    match printed {
        Some(printed) => output::object(&made, printed, context.out)?,
        None => {
            let how = if dry_run.is_some() { " (server dry run)" } else { "" };
            context.print(&format!("{} created{how}\n", output::name(&made)))?;
        }
    }
    let name = made["metadata"]["name"].as_str().unwrap_or_default();
    if follow {
        return watch::follow(&cluster, name, None, context).await;
    }
    if dry_run.is_none() && printed.is_none() {
        // For people; what a script reads is the line above.
        writeln!(stderr(), "To follow it: kubectl transfer watch {name} -n {}", cluster.namespace)?;
    }
    Ok(())
}

fn wish(arguments: Create) -> Wish {
    let selected = arguments.selected.into_iter().map(|SelectedEnd(end)| end);
    Wish {
        name: arguments.name,
        source: arguments.source,
        destinations: arguments.destinations.into_iter().chain(selected).collect(),
        include: arguments.include,
        exclude: arguments.exclude,
        write_policy: arguments.write_policy.unwrap_or_default(),
        algorithm: arguments.digest.unwrap_or_default(),
        read_back: arguments.read_back,
        require: arguments.require.unwrap_or_default(),
        fan_out: arguments.fan_out.unwrap_or_default(),
        bandwidth_limit: arguments.bandwidth_limit,
        suspend: arguments.suspend,
    }
}
