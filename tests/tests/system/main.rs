//! The system as a whole, on a real control plane with real NIXL. One program, so that tests that wait for a deadline and
//! tests that move bytes run beside each other.

mod bad_input;
mod bounds;
mod chains;
mod faults;
mod inventory;
mod main_job;
mod operations;
mod refusals;
mod regions;
mod resume;
mod within;
mod workload_socket;
mod workloads;
