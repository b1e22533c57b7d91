//! `ttlSecondsAfterFinished`: when a job that is over is deleted, and who would make it again if it were. Pure.

use jiff::Timestamp;
use kube::api::ObjectMeta;
use nixl_transfer_crds::{Reason, TransferJob, job::TransferJobStatus};

use super::{Action, Note, Plan, deadline, run};

/// Where a tool writes that an object is its own.
#[derive(Clone, Copy)]
enum Mark {
    Label(&'static str),
    /// A label that means it with this value only.
    LabelWith(&'static str, &'static str),
    Annotation(&'static str),
}
use Mark::{Annotation, Label, LabelWith};

/// Who tracks an object, the sure signs first; and whether it leaves the deletion of its hooks to others.
const TRACKERS: [(&str, Mark, bool); 7] = [
    // Flux applies what it finds in Git, and knows no hooks there.
    ("Flux", Label("kustomize.toolkit.fluxcd.io/name"), false),
    ("Flux", Label("helm.toolkit.fluxcd.io/name"), true),
    ("Argo CD", Annotation("argocd.argoproj.io/tracking-id"), true),
    ("Argo CD", Label("argocd.argoproj.io/instance"), true),
    ("Helm", Annotation("meta.helm.sh/release-name"), true),
    ("Helm", LabelWith("app.kubernetes.io/managed-by", "Helm"), true),
    // By default before Argo CD 3, and in most charts.
    ("Argo CD or Helm", Label("app.kubernetes.io/instance"), true),
];
/// Annotations of hooks: they are made for one time.
const HOOKS: [&str; 2] = ["argocd.argoproj.io/hook", "helm.sh/hook"];

/// Whether the annotation is one that is read here; the world keeps no other.
pub fn reads_annotation(key: &str) -> bool {
    HOOKS.contains(&key)
        || TRACKERS.iter().any(|(_, mark, _)| matches!(mark, Annotation(name) if *name == key))
}

/// Who would make the object again, and by what that is seen.
fn tracker(metadata: &ObjectMeta) -> Option<String> {
    let label = |key: &str| metadata.labels.as_ref().and_then(|labels| labels.get(key));
    let annotation = |key: &str| metadata.annotations.as_ref().and_then(|all| all.get(key));
    let is_hook = HOOKS.iter().any(|hook| annotation(hook).is_some());
    TRACKERS.iter().filter(|(.., leaves_hooks)| !(is_hook && *leaves_hooks)).find_map(|(who, mark, _)| {
        match mark {
            Label(key) => label(key).map(|_| format!("{who}: label {key}")),
            LabelWith(key, value) => {
                label(key).filter(|is| is == value).map(|_| format!("{who}: label {key}={value}"))
            }
            Annotation(key) => annotation(key).map(|_| format!("{who}: annotation {key}")),
        }
    })
}

/// Notes in the status of a job that is over what makes its TTL void.
pub fn mark(job: &TransferJob, status: &mut TransferJobStatus) {
    let bounded = job.spec.ttl_seconds_after_finished.filter(|_| run::is_over(job, status));
    status.ttl_ignored = bounded.and_then(|_| tracker(&job.metadata));
}

/// The event, when that is written for the first time: the status is its record, so that a restart repeats none.
pub fn ignored(before: &TransferJobStatus, after: &TransferJobStatus) -> Option<Note> {
    let tracked = after.ttl_ignored.as_ref().filter(|_| before.ttl_ignored != after.ttl_ignored)?;
    let reason = Reason::TTLIgnored;
    let message = format!(
        "`spec.ttlSecondsAfterFinished` does nothing, for the job is tracked ({tracked}): deleted, it would be made \
         again and run again. {}",
        reason.entry().remedy
    );
    Some(Note { reason, action: "KeepJob", message, warning: true, news: true, task: None })
}

/// Deletes the job in its time, when all else about it is done and written.
pub fn delete(job: &TransferJob, status: &TransferJobStatus, now: Timestamp, plan: &mut Plan) {
    let (Some(seconds), Some(ended)) = (job.spec.ttl_seconds_after_finished, &status.completion_time) else {
        return;
    };
    if tracker(&job.metadata).is_some() {
        return;
    }
    let due = deadline::after(ended.0, seconds);
    if now < due {
        plan.wake(due);
    } else if plan.is_empty() {
        let resource_version = job.metadata.resource_version.clone().unwrap_or_default();
        plan.actions.push(Action::Expire { resource_version });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tool_tracks_stays_and_its_hooks_do_not() {
        let table = [
            ("", "", None),
            ("team=a app.kubernetes.io/managed-by=kustomize", "note=n", None),
            ("", "argocd.argoproj.io/tracking-id=app:g/TransferJob:ns/j", Some("Argo CD: annotation argocd")),
            ("argocd.argoproj.io/instance=app", "", Some("Argo CD: label argocd")),
            ("app.kubernetes.io/instance=app", "", Some("Argo CD or Helm: label app")),
            ("kustomize.toolkit.fluxcd.io/name=apps", "", Some("Flux: label kustomize")),
            ("helm.toolkit.fluxcd.io/name=apps", "", Some("Flux: label helm")),
            ("app.kubernetes.io/managed-by=Helm", "", Some("Helm: label app.kubernetes.io/managed-by=Helm")),
            ("", "meta.helm.sh/release-name=r", Some("Helm: annotation meta")),
            ("argocd.argoproj.io/instance=app", "argocd.argoproj.io/hook=PreSync", None),
            (
                "app.kubernetes.io/managed-by=Helm app.kubernetes.io/instance=r",
                "helm.sh/hook=pre-install",
                None,
            ),
            ("helm.toolkit.fluxcd.io/name=apps", "helm.sh/hook=pre-install", None),
            (
                "kustomize.toolkit.fluxcd.io/name=apps",
                "helm.sh/hook=pre-install",
                Some("Flux: label kustomize"),
            ),
        ];
        let map = |text: &str| {
            let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
            Some(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
        };
        for (labels, annotations, expected) in table {
            let metadata =
                ObjectMeta { labels: map(labels), annotations: map(annotations), ..ObjectMeta::default() };
            let found = tracker(&metadata);
            match expected {
                None => assert_eq!(found, None, "{labels} {annotations}"),
                Some(start) => assert!(
                    found.as_ref().is_some_and(|found| found.starts_with(start)),
                    "{labels} {annotations}: {found:?}"
                ),
            }
            for key in metadata.annotations.iter().flat_map(|all| all.keys()) {
                assert_eq!(reads_annotation(key), key != "note", "{key}");
            }
        }
    }
}
