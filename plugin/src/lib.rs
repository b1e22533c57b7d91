//! `kubectl transfer`: what a person does with TransferJobs from a terminal. It reads and writes the API server alone, with the
//! rights of whoever calls it; everything that it shows is computed from objects by pure code in `render` and `diagnosis`.

pub mod cli;
mod cluster;
mod commands;
pub mod diagnosis;
pub mod ends;
pub mod failure;
pub mod manifest;
pub mod next;
mod output;
pub mod render;
pub mod terminal;

pub use commands::run;
