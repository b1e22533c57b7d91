//! The shell: command line, logs, signals.

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use transfer_operator::{
    clear,
    config::{Cli, Command},
    run,
};

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let command = Cli::parse().command;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();

    let config = match command {
        Command::Run(config) => config,
        Command::Clear(how) => {
            return clear::clear(&how, &run::client(how.kubeconfig.as_deref()).await?).await;
        }
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let client = run::client(config.kubeconfig.as_deref()).await?;
    let listener = tokio::net::TcpListener::bind(config.listen)
        .await
        .map_err(|error| anyhow::anyhow!("--listen {}: {error}", config.listen))?;
    run::run(&config, client, listener, async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
    .await
}
