//! Harness of the end-to-end tests: a real control plane, our operator, and agents that are nodes of their own, all as
//! processes; real files, real NIXL over loopback. What the architecture promises is checked here, not assumed.

pub mod canary;
pub mod cluster;
pub mod copies;
pub mod data;
pub mod dynamo;
pub mod gpus;
pub mod jobs;
mod nodes;
mod own_mount;
pub mod plugin;
pub mod raw_client;
pub mod reasons;
mod recording;
pub mod refusals;
pub mod regions;
pub mod rules;
pub mod workloads;

pub use cluster::{Cluster, Setup};
pub use own_mount::OwnMount;
