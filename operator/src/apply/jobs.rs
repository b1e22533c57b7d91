//! Deletes a job whose time is over. I/O.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Api,
    api::{DeleteParams, ObjectMeta, Preconditions},
};
use nixl_transfer_crds::TransferJob;

use super::{is_missing, writer::Writer};
use crate::world::Change;

/// Deletes the job, if it is the one that was decided about and nobody has changed it since.
pub async fn expire(
    job: &ObjectReference,
    resource_version: &str,
    writer: &Writer,
) -> Result<Change<TransferJob>, kube::Error> {
    let jobs: Api<TransferJob> =
        Api::namespaced(writer.client(), job.namespace.as_deref().unwrap_or_default());
    let preconditions =
        Preconditions { uid: job.uid.clone(), resource_version: Some(resource_version.to_owned()) };
    let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
    let request = jobs.delete(job.name.as_deref().unwrap_or_default(), &parameters);
    let gone = || Change::Gone(Box::new(named(job)));
    match writer.write("TransferJob", "delete", request).await {
        // Finalizers of others may keep it for a while.
        Ok(deleted) => Ok(deleted.either(Change::Put, |_| gone())),
        Err(error) if is_missing(&error) => Ok(gone()),
        Err(error) => Err(error),
    }
}

fn named(job: &ObjectReference) -> ObjectMeta {
    ObjectMeta {
        name: job.name.clone(),
        namespace: job.namespace.clone(),
        uid: job.uid.clone(),
        ..ObjectMeta::default()
    }
}
