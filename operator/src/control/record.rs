//! Logs and counts what a plan decides. No decisions.

use jiff::Timestamp;
use nixl_transfer_crds::{TransferJob, condition};

use crate::{
    metrics::Metrics,
    plan::{Action, Plan, run},
};

/// Logs and counts what the plan decides.
pub fn record(metrics: &Metrics, job: Option<&TransferJob>, plan: &Plan) {
    let name = job.and_then(|job| job.metadata.name.as_deref());
    let namespace = job.and_then(|job| job.metadata.namespace.as_deref()).unwrap_or_default();
    let run = job.and_then(|job| job.status.as_ref()).map_or(0, |status| status.run);
    for action in &plan.actions {
        match action {
            Action::Create(tasks) => {
                for task in tasks {
                    tracing::info!(
                        namespace,
                        job = name,
                        run = task.spec.run,
                        task = task.metadata.name,
                        node = task.spec.target.node_name,
                        source = task.spec.source.node_name,
                        relay = task.spec.source.relay.as_ref().map(|relay| relay.task_name.as_str()),
                        attempt = task.spec.attempt,
                        failures = task.spec.failures,
                        "attempt"
                    );
                }
            }
            Action::Verdict(task, verdict) => tracing::warn!(
                namespace,
                job = name,
                run,
                task = task.name,
                reason = verdict.reason,
                message = verdict.message,
                "verdict"
            ),
            Action::Cancel(task) => {
                tracing::info!(namespace, job = name, run, task = task.name, "cancel")
            }
            Action::Discard(task) => {
                tracing::debug!(namespace, job = name, run, task = task.name, "discard");
            }
            Action::Delete(task) => {
                tracing::debug!(namespace, job = name, run, task = task.name, "delete")
            }
            Action::Release { task, .. } => {
                tracing::debug!(namespace, job = name, run, task = task.name, "release");
            }
            Action::Label(label) => tracing::info!(
                namespace,
                job = name,
                run,
                node = label.node,
                label = label.key,
                holds = label.holds,
                "label"
            ),
            Action::Expire { .. } => tracing::info!(namespace, job = name, run, "its time is over"),
        }
    }
    for note in &plan.notes {
        let run = plan.status.as_ref().map_or(run, |status| status.run);
        tracing::info!(
            namespace,
            job = name,
            run,
            task = note.task,
            reason = note.reason.as_str(),
            message = note.message,
            action = note.action
        );
    }
    let Some(status) = plan.status.as_ref().filter(|status| run::has_ended(status)) else { return };
    if !plan.notes.iter().any(|note| matches!(note.action, "CompleteRun" | "FailRun")) {
        return;
    }
    let result = if run::has_failed(status) { "failed" } else { "complete" };
    let ready = condition::find(&status.conditions, condition::READY);
    let reason = ready.map_or("", |condition| condition.reason.as_str());
    metrics.jobs_total.with_label_values(&[namespace, result, reason]).inc();
    // How long a failed run took is that of a deadline, most of the time.
    if let Some(start) = status.start_time.as_ref().filter(|_| result == "complete") {
        metrics.duration.observe(Timestamp::now().duration_since(start.0).as_secs_f64());
    }
}
