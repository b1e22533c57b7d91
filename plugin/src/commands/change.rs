//! `rerun`, `suspend`, `resume`: each changes one field of a job's spec.

use std::io::{Write, stderr};

use serde_json::{Value, json};

use super::Context;
use crate::{
    cli::{Change, Global, Rerun},
    cluster::Cluster,
    failure::Failure,
    output,
};

pub(super) async fn rerun(
    arguments: &Rerun,
    global: &Global,
    context: &mut Context<'_>,
) -> Result<(), Failure> {
    let trigger = arguments.trigger.clone().unwrap_or_else(|| context.now().to_string());
    change(&arguments.change, "trigger", &json!(trigger), &format!("rerun ({trigger})"), global, context)
        .await
}

pub(super) async fn suspend(
    arguments: &Change,
    suspend: bool,
    global: &Global,
    context: &mut Context<'_>,
) -> Result<(), Failure> {
    let done = if suspend { "suspended" } else { "resumed" };
    change(arguments, "suspend", &json!(suspend), done, global, context).await
}

/// The first that fails ends it; those before it are changed.
async fn change(
    arguments: &Change,
    field: &str,
    value: &Value,
    done: &str,
    global: &Global,
    context: &mut Context<'_>,
) -> Result<(), Failure> {
    let cluster = Cluster::open(global).await?;
    for name in &arguments.names {
        let before = cluster.job(name).await?;
        let changed = cluster.patch_spec(name, &json!({field: value})).await?;
        match arguments.output {
            Some(printed) => output::object(&changed, printed, context.out)?,
            None => {
                // The version changes with the status too, which others write meanwhile.
                let same = before["metadata"]["generation"] == changed["metadata"]["generation"];
                let done = if same { "unchanged" } else { done };
                context.print(&format!("{} {done}\n", output::name(&changed)))?;
            }
        }
        if field == "trigger" && changed["spec"]["suspend"] == true {
            writeln!(
                stderr(),
                "{name} is suspended, and runs when it is resumed: kubectl transfer resume {name} -n {}",
                cluster.namespace
            )?;
        }
        if let Some(tracker) = tracked_by(&changed) {
            writeln!(
                stderr(),
                "{name} is kept by {tracker}, which may set spec.{field} back; change it there to make it stay"
            )?;
        }
    }
    Ok(())
}

/// Who else writes the spec, by the marks that they put on objects.
fn tracked_by(object: &Value) -> Option<&'static str> {
    let has = |kind: &str, key: &str| object["metadata"][kind].get(key).is_some();
    if has("annotations", "argocd.argoproj.io/tracking-id") || has("labels", "argocd.argoproj.io/instance") {
        return Some("Argo CD");
    }
    if has("labels", "kustomize.toolkit.fluxcd.io/name") || has("labels", "helm.toolkit.fluxcd.io/name") {
        return Some("Flux");
    }
    has("annotations", "meta.helm.sh/release-name").then_some("Helm")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_else_writes_is_told_by_marks() {
        let marked = |kind: &str, key: &str| json!({"metadata": {kind: {key: "x"}}});
        assert_eq!(tracked_by(&marked("annotations", "argocd.argoproj.io/tracking-id")), Some("Argo CD"));
        assert_eq!(tracked_by(&marked("labels", "kustomize.toolkit.fluxcd.io/name")), Some("Flux"));
        assert_eq!(tracked_by(&marked("annotations", "meta.helm.sh/release-name")), Some("Helm"));
        assert_eq!(tracked_by(&marked("labels", "team")), None);
    }
}
