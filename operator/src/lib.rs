//! The operator of nixl-transfer: observe [I/O] → plan [pure, `now` passed in] → apply [I/O, the only writer] →
//! fold [pure]. Nothing is kept in memory that the API server does not have, but what was seen and when.

pub mod apply;
pub mod clear;
pub mod cluster;
pub mod config;
pub mod control;
pub mod events;
pub mod exchange;
pub mod fold;
pub mod leader;
pub mod memory;
pub mod metrics;
pub mod observe;
pub mod plan;
pub mod run;
pub mod schedule;
pub mod serve;
pub mod slots;
pub mod world;
