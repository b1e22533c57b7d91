//! The custom resources of nixl-transfer, `nixl-transfer.io/v1alpha1`: their types, their validation, and the one
//! table of conditions and reasons. No I/O; the operator, the agent and the tests agree through this crate alone.

// The derive takes one `printcolumn` per column; their arguments repeat, and the lint takes them for attributes.
#![allow(clippy::duplicated_attributes)]

pub mod condition;
pub mod digest;
pub mod endpoint;
pub mod job;
pub mod names;
pub mod node;
pub mod policy;
pub mod quantity;
pub mod reason;
pub mod region;
mod schema;
pub mod task;

pub use digest::ContentDigest;
pub use endpoint::{NodeRef, Source, VolumeRef};
pub use job::{TransferJob, TransferJobSpec};
pub use node::{TransferNode, TransferNodeSpec};
pub use policy::{Algorithm, Backend, Direction, FanOut, Integrity, Require, Transport, WritePolicy};
pub use quantity::Quantity;
pub use reason::Reason;
pub use region::{MemoryRegion, MemoryRegionSpec};
pub use task::{TransferTask, TransferTaskSpec};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// All custom resource definitions, in the order in which they are installed.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![TransferJob::crd(), TransferTask::crd(), TransferNode::crd(), MemoryRegion::crd()]
}
