//! The TransferTask of one attempt: everything resolved, no question left open for an agent. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, api::ObjectMeta};
use nixl_transfer_crds::{
    Direction, FanOut, Reason, TransferJob, TransferTask, TransferTaskSpec, Transport, names,
    policy::Deadlines,
    task::{JobRef, TaskSource, TaskTarget},
};

use crate::plan::{
    Input, labels,
    nodes::{Block, Chosen, Receiving, Wanted},
};

/// What the API server cannot check and an attempt cannot do without.
pub fn check(input: &Input<'_>) -> Result<(), Block> {
    labels::check(input)?;
    let transport = &input.job.spec.transport;
    let limit = transport.bandwidth_limit.as_ref().map(|limit| ("bandwidthLimit", limit));
    for (field, quantity) in [("chunkSize", &transport.chunk_size)].into_iter().chain(limit) {
        if let Err(error) = quantity.bytes() {
            return Err(Block {
                reason: Reason::InvalidSpec,
                message: format!("spec.transport.{field}: {error}"),
            });
        }
    }
    Ok(())
}

/// The name of the task for one attempt of a hop.
pub fn name(job: &TransferJob, run: i64, hop: &Wanted<'_>, attempt: i32) -> String {
    let job_name = job.metadata.name.as_deref().unwrap_or_default();
    let job_uid = job.metadata.uid.as_deref().unwrap_or_default();
    let node_uid = hop.uid.as_deref().unwrap_or_default();
    names::task_name(job_name, job_uid, run, &hop.destination.name, node_uid, attempt)
}

/// The task for one attempt of a hop, straight from the source.
pub fn build(
    job: &TransferJob,
    run: i64,
    hop: &Wanted<'_>,
    source: &Chosen,
    to: &Receiving,
    attempt: i32,
    failures: i32,
) -> TransferTask {
    let job_name = job.metadata.name.clone().unwrap_or_default();
    let job_uid = job.metadata.uid.clone().unwrap_or_default();
    let node_uid = hop.uid.clone().unwrap_or_default();
    let labels = BTreeMap::from([
        (names::LABEL_JOB.to_string(), job_name.clone()),
        (names::LABEL_JOB_UID.into(), job_uid.clone()),
        (names::LABEL_RUN.into(), run.to_string()),
        (names::LABEL_DESTINATION.into(), hop.destination.name.clone()),
        (names::LABEL_ATTEMPT.into(), attempt.to_string()),
    ]);
    let owner = OwnerReference {
        api_version: TransferJob::api_version(&()).into_owned(),
        kind: TransferJob::kind(&()).into_owned(),
        name: job_name.clone(),
        uid: job_uid.clone(),
        controller: Some(true),
        // A foreground deletion of the job must not wait for the agents.
        block_owner_deletion: Some(false),
    };
    let spec = TransferTaskSpec {
        job_ref: JobRef { name: job_name.clone(), uid: job_uid.clone() },
        run,
        attempt,
        failures,
        direction: Direction::Write,
        source: TaskSource {
            node_name: source.node.clone(),
            instance: source.instance.clone(),
            place: source.place.clone(),
            relay: None,
        },
        target: TaskTarget {
            node_name: hop.node.clone(),
            node_uid,
            instance: to.instance.clone(),
            destination: hop.destination.name.clone(),
            place: to.place.clone(),
            forward_to: None,
        },
        transport: Transport { fan_out: FanOut::Direct, ..job.spec.transport.clone() },
        integrity: job.spec.integrity,
        write_policy: job.spec.write_policy,
        deadlines: Deadlines {
            pending_seconds: job.spec.pending_deadline_seconds,
            progress_seconds: job.spec.progress_deadline_seconds,
        },
        cancel: false,
        discard: false,
    };
    TransferTask {
        metadata: ObjectMeta {
            name: Some(name(job, run, hop, attempt)),
            namespace: job.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![owner]),
            finalizers: Some(vec![names::TASK_FINALIZER.into()]),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    }
}
