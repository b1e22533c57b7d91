//! The command line. What it says is checked as far as it can be without asking the API server.

mod values;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;
use nixl_transfer_crds::{Algorithm, FanOut, Quantity, Require, WritePolicy, names::SYSTEM_NAMESPACE};
use values::{duration, job_name, quantity, trigger, word};

use crate::{
    ends::{End, SYNTAX, SelectedEnd},
    failure::EXIT_CODES,
};

/// Move data between the nodes of a cluster with NVIDIA NIXL: make TransferJobs, follow them, find out what is wrong.
///
/// A job is a TransferJob; everything here can be done with `kubectl apply`, `get` and `patch` too.
#[derive(Debug, Parser)]
#[command(name = "kubectl-transfer", bin_name = "kubectl transfer", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// For every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Which cluster, and how long to wait for it.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Namespace of the jobs; without it that of the kubeconfig's context.
    #[arg(short, long, global = true, help_heading = "Cluster", value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Context of the kubeconfig.
    #[arg(long, global = true, help_heading = "Cluster", value_name = "NAME")]
    pub context: Option<String>,
    /// Kubeconfig file; without it $KUBECONFIG, ~/.kube/config, or the pod's service account.
    #[arg(long, global = true, help_heading = "Cluster", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// How long one request to the API server may take, for example 5s or 2m.
    #[arg(long, global = true, help_heading = "Cluster", default_value = "30s", value_parser = duration, value_name = "DURATION")]
    pub request_timeout: Duration,
    /// For tests: the time that it is taken to be.
    #[arg(long, global = true, help_heading = "Cluster", hide = true)]
    pub now: Option<Timestamp>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a job that moves SRC to every DST.
    #[command(after_help = SYNTAX)]
    Create(Box<Create>),
    /// List jobs, in the columns of `kubectl get transferjobs`.
    Get(Get),
    /// Show one job in full: conditions, nodes, tasks, and what to do next.
    Describe(Describe),
    /// Follow a job until it is over: bars on a terminal, else a line for each change. Ends with 0 when it is complete.
    Watch(Watch),
    /// Look at nodes, NIXL, backends and limits: what is broken, and what would limit a transfer.
    Doctor(Doctor),
    /// Run jobs again, by a new `spec.trigger`. What is there already is not sent again, unless `writePolicy` is Overwrite.
    Rerun(Rerun),
    /// Stop jobs for now, by `spec.suspend`. What was committed stays.
    Suspend(Change),
    /// Let suspended jobs go on, from what they have.
    Resume(Change),
}

/// How an object is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Kind and name.
    Name,
}

/// How a list is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ListOutput {
    /// The table with nodes, network and message.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Kind and name.
    Name,
}

/// How a report is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportOutput {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// What `--dry-run` leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DryRun {
    /// Nothing is asked of the API server.
    Client,
    /// The API server checks it and keeps nothing.
    Server,
}

/// The arguments of `create`.
#[derive(Debug, Args)]
pub struct Create {
    /// What is moved: NODE:VOLUME/PATH, SELECTOR:VOLUME/PATH or memory/REGION.
    #[arg(value_name = "SRC")]
    pub source: End,
    /// Where it goes, in the same form; one or more.
    #[arg(value_name = "DST", required_unless_present = "selected")]
    pub destinations: Vec<End>,
    /// A DST: every node with these labels, as SELECTOR:VOLUME/PATH. May be repeated.
    #[arg(short = 'l', long = "selector", value_name = "SELECTOR:VOLUME/PATH", id = "selected")]
    pub selected: Vec<SelectedEnd>,
    /// Name of the job; without it one is made of SRC and the first DST.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Print what would be made and make nothing: `client` asks nobody, `server` lets the API server check it.
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "client", value_name = "WHERE")]
    pub dry_run: Option<DryRun>,
    /// Print the object.
    #[arg(short, long, value_enum)]
    pub output: Option<Output>,
    /// Follow it, as `watch` does.
    #[arg(short, long, conflicts_with_all = ["dry_run", "output"])]
    pub watch: bool,
    /// Globs of files to move; without one all. May be repeated.
    #[arg(long, value_name = "GLOB")]
    pub include: Vec<String>,
    /// Globs of files and directories to leave out. May be repeated.
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// What happens to files that exist: SkipIdentical (the default), Overwrite, FailIfExists.
    #[arg(long, value_parser = word::<WritePolicy>, value_name = "POLICY")]
    pub write_policy: Option<WritePolicy>,
    /// The digest that proves the content: XXH3 (the default), CRC64NVME, BLAKE3.
    #[arg(long, value_parser = word::<Algorithm>, value_name = "ALGORITHM")]
    pub digest: Option<Algorithm>,
    /// Read every file back from the destination's disk before it gets its name.
    #[arg(long)]
    pub read_back: bool,
    /// Networks that are acceptable: Any (the default), Rdma.
    #[arg(long, value_parser = word::<Require>, value_name = "NETWORK")]
    pub require: Option<Require>,
    /// How many receivers get their copies: Auto (the default), Direct, Chain.
    #[arg(long, value_parser = word::<FanOut>, value_name = "HOW")]
    pub fan_out: Option<FanOut>,
    /// Most bytes per second of each hop, a quantity such as 500M or 1Gi.
    #[arg(long, value_parser = quantity, value_name = "QUANTITY")]
    pub bandwidth_limit: Option<Quantity>,
    /// Make it suspended; `resume` lets it begin.
    #[arg(long)]
    pub suspend: bool,
}

/// The arguments of `get`.
#[derive(Debug, Args)]
pub struct Get {
    /// Jobs; without a name all of the namespace.
    #[arg(value_name = "NAME", value_parser = job_name)]
    pub names: Vec<String>,
    /// Jobs of all namespaces.
    #[arg(short = 'A', long, conflicts_with_all = ["names", "namespace"])]
    pub all_namespaces: bool,
    /// Jobs with these labels.
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "names")]
    pub selector: Option<String>,
    /// How to print them.
    #[arg(short, long, value_enum)]
    pub output: Option<ListOutput>,
}

/// The arguments of `describe`.
#[derive(Debug, Args)]
pub struct Describe {
    /// The job.
    #[arg(value_name = "NAME", value_parser = job_name)]
    pub name: String,
    /// Print job, tasks and advice as data.
    #[arg(short, long, value_enum)]
    pub output: Option<ReportOutput>,
}

/// The arguments of `watch`.
#[derive(Debug, Args)]
pub struct Watch {
    /// The job.
    #[arg(value_name = "NAME", value_parser = job_name)]
    pub name: String,
    /// Give up after so long, with exit code 6; without it, when the job is over.
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub timeout: Option<Duration>,
}

/// The arguments of `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Look at these nodes only; without a name at all.
    #[arg(value_name = "NODE")]
    pub nodes: Vec<String>,
    /// Print the report as data.
    #[arg(short, long, value_enum)]
    pub output: Option<ReportOutput>,
    /// Namespace of operator and agents.
    #[arg(long, default_value = SYSTEM_NAMESPACE, value_name = "NAMESPACE")]
    pub system_namespace: String,
}

/// The arguments of `suspend` and `resume`.
#[derive(Debug, Args)]
pub struct Change {
    /// The jobs.
    #[arg(value_name = "NAME", value_parser = job_name, required = true)]
    pub names: Vec<String>,
    /// Print the changed objects.
    #[arg(short, long, value_enum)]
    pub output: Option<Output>,
}

/// The arguments of `rerun`.
#[derive(Debug, Args)]
pub struct Rerun {
    /// The jobs.
    #[command(flatten)]
    pub change: Change,
    /// The new value of `spec.trigger`; without it the time.
    #[arg(long, value_name = "TEXT", value_parser = trigger)]
    pub trigger: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_job_needs_both_ends() {
        let parse =
            |arguments: &[&str]| Cli::try_parse_from([&["kubectl-transfer", "create"], arguments].concat());
        assert!(parse(&["gpu-a:models", "gpu-b:models", "gpu-c:models", "-n", "ml"]).is_ok());
        assert!(parse(&["gpu-a:models", "-l", "role=decode:models", "--dry-run", "-o", "yaml"]).is_ok());
        let error = parse(&["gpu-a:models"]).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("<DST>"), "{error}");
        let error = parse(&["gpu-a", "gpu-b:models"]).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("gpu-a:VOLUME/PATH"), "{error}");
    }
}
