//! `cargo xtask cluster`: a real Kubernetes cluster of several nodes on this machine, without Docker. Needs root.
//!
//! The hub and each node are a space: namespaces of the kernel with a first process that keeps them. Whatever was made is
//! written down before it is used and goes when those processes go, so that nothing is left, whoever was killed when.

mod certificates;
mod cgroups;
mod control_plane;
mod down;
mod images;
mod init;
mod logs;
mod network;
mod node;
mod plan;
mod record;
mod space;
mod test;
mod up;

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;

use record::Place;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Makes a cluster: a control plane, and nodes with containerd, kubelet and kube-proxy. It stays until `down`.
    Up {
        /// How many nodes, beside the control plane.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=network::MOST_NODES as i64))]
        nodes: u8,
        /// Without the images of operator and agent, which need them built.
        #[arg(long)]
        bare: bool,
    },
    /// Ends the cluster, or what a killed command has left of one, and removes all of it.
    Down,
    /// Installs the chart in a cluster, moves data through kubectl, compares it. A cluster that is up is used, and left up.
    Test {
        /// How many nodes a cluster of its own gets.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=26))]
        nodes: u8,
        /// Another chart than that of this repository.
        #[arg(long, value_name = "DIRECTORY")]
        chart: Option<PathBuf>,
    },
    /// The first process of a space.
    #[command(hide = true)]
    Init { plan: PathBuf },
}

/// An error says what is missing, and how to get it.
pub fn possible() -> Result<()> {
    up::needs()
}

pub fn run(command: &Command) -> Result<()> {
    if !matches!(command, Command::Init { .. }) {
        up::needs()?;
    }
    match command {
        Command::Up { nodes, bare } => up::run(&Place::lock()?, (*nodes).into(), *bare),
        Command::Down => down::run(&Place::lock()?),
        Command::Test { nodes, chart } => test::run(&Place::lock()?, (*nodes).into(), chart.clone()),
        Command::Init { plan } => init::run(plan),
    }
}
