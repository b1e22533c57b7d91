//! The developer's commands: `cargo xtask demo`, `test`, `sanitize`, `endure`, `tools`, `bench`, `figures`, `cluster`,
//! `image`, `doctor`. Reads the command line; the work is in the modules.

mod bench;
mod cluster;
mod demo;
mod doctor;
mod endure;
mod exec;
mod figures;
mod image;
mod interrupt;
mod paths;
mod progress;
mod sanitize;
mod test;
mod tools;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Commands for people who work on nixl-transfer, or look at it.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Moves real files between nodes on this machine: a real control plane, the operator, and agents as processes.
    Demo(demo::Arguments),
    /// Checks everything: format, lints, generated files, unit and integration tests on the real control plane.
    Test(test::Arguments),
    /// Runs the tests of nixl-connect's operations with AddressSanitizer.
    Sanitize,
    /// Runs the tests that take minutes: hundreds of cycles that must leave nothing behind.
    Endure,
    /// Gets NIXL, libclang, Dynamo's Python module, etcd, Kubernetes' programs and Prometheus, into the user's cache; links
    /// them into the checkout.
    Tools,
    /// Measures ours beside what others would use, in turn and on the same bytes, and says which goals are reached.
    Bench(bench::Arguments),
    /// Measures what jobs cost in API writes and memory, or the operations of nixl-connect beside Dynamo's; prints it.
    Figures(figures::Arguments),
    /// A real Kubernetes cluster of several nodes on this machine, without Docker. Needs root.
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Writes the files of a container image: what stands in it is decided here, for every way to build it.
    Image(image::Arguments),
    /// Says what is missing on this machine, and how to get it.
    Doctor,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(_) if interrupt::requested() => ExitCode::from(interrupt::EXIT_CODE as u8),
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    interrupt::install()?;
    match command {
        Command::Demo(arguments) => demo::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Test(arguments) => test::run(&arguments),
        Command::Sanitize => sanitize::run().map(|()| ExitCode::SUCCESS),
        Command::Endure => endure::run().map(|()| ExitCode::SUCCESS),
        Command::Tools => tools::run().map(|()| ExitCode::SUCCESS),
        Command::Bench(arguments) => bench::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Figures(arguments) => figures::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Cluster(command) => cluster::run(&command).map(|()| ExitCode::SUCCESS),
        Command::Image(arguments) => image::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Doctor => doctor::run(),
    }
}
