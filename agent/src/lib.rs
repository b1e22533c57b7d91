//! The agent of a node: control (Kubernetes, volumes), launcher (processes) and workers (NIXL), three processes of one
//! binary. What each may do stands in its own module.

pub mod config;
pub mod control;
pub mod devices;
pub mod digest;
pub mod launcher;
pub mod logging;
pub mod manifest;
pub mod metrics;
pub mod protocol;
pub mod region;
pub mod run;
pub mod seal;
pub mod serve;
pub mod volume;
pub mod wire;
pub mod worker;
pub mod workload;
