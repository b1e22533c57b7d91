//! The system as a whole, on a real control plane with real NIXL. One program, so that tests that wait for a deadline and
//! tests that move bytes run beside each other.

mod bad_input;
mod bad_regions;
mod both_lead;
mod bounds;
mod chains;
mod clears;
mod external;
mod faults;
mod following;
mod gitops;
mod gpu_workloads;
mod gpus;
mod health;
mod helm;
mod inventory;
mod leaders;
mod main_job;
mod monitoring;
mod network;
mod operations;
mod plugin;
mod policies;
mod refusals;
mod region_lives;
mod regions;
mod resume;
mod sealed;
mod within;
mod workload_socket;
mod workloads;
