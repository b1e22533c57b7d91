//! The shell: which of the three processes this is, and the signals that end it.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use transfer_agent::{
    config::{Cli, Command, Config, LauncherArgs},
    launcher, logging, run, worker,
};

fn main() -> ExitCode {
    match act() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain of causes, and no stack trace, whatever the environment asks for.
            eprintln!("transfer-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What control and workers have in memory opens other nodes' memory: it belongs into no core file. A limit of 1 byte is the one
/// that the kernel also heeds where core files go to a program.
fn leave_no_core() -> anyhow::Result<()> {
    let least = getrlimit(Resource::Core).maximum.map_or(1, |most| most.min(1));
    setrlimit(Resource::Core, Rlimit { current: Some(least), maximum: Some(least) })
        .context("the limit of core files")
}

fn act() -> anyhow::Result<()> {
    leave_no_core()?;
    match Cli::parse().command {
        Command::Control { config, node_name, log } => {
            logging::start(&log)?;
            control(Config::read(&config, node_name.as_deref())?)
        }
        Command::Launcher(LauncherArgs { socket, fd }) => {
            logging::start(logging::DEFAULT_FILTER)?;
            match (socket, fd) {
                (Some(path), _) => launcher::listen(&path),
                (None, Some(fd)) => launcher::serve_one(launcher::child::inherited_socket(fd)?),
                (None, None) => anyhow::bail!("give --socket or --fd"),
            }
        }
        Command::Worker { fd } => {
            logging::start(logging::DEFAULT_FILTER)?;
            worker::run(launcher::child::inherited_socket(fd)?)
        }
    }
}

/// What still blocks a thread after the agent has ended, such as a file system that hangs, is not waited for.
const ABANDON_AFTER: Duration = Duration::from_secs(1);

fn control(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build()?;
    let result = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        run::run(config, async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await
    });
    runtime.shutdown_timeout(ABANDON_AFTER);
    result
}
