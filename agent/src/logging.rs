//! Log lines as JSON on standard error, for all three processes.

use tracing_subscriber::EnvFilter;

/// What is logged where nothing else is asked for.
pub const DEFAULT_FILTER: &str = "info";

/// Starts logging. To be called once, first thing in a process.
pub fn start(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).map_err(|error| anyhow::anyhow!("--log {filter:?}: {error}"))?;
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .try_init()
        .map_err(|error| anyhow::anyhow!("logging is on already: {error}"))
}
