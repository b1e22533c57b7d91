//! The operator's metrics. Labels are namespaces, phases, reasons and kinds; names of jobs only on gauges of jobs that run.

use prometheus::{
    Encoder, GaugeVec, Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// All metrics of one operator, in a registry of its own: several operators can live in one process.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    /// Jobs by namespace and phase.
    pub jobs: IntGaugeVec,
    /// Ended runs by namespace, result and reason.
    pub jobs_total: IntCounterVec,
    /// Seconds from the begin of a run to its end, of runs that are complete.
    pub duration: Histogram,
    /// Share of the bytes that are there, of jobs that run.
    pub progress: GaugeVec,
    /// Seconds until a running job is done at its present rate.
    pub eta: GaugeVec,
    /// Seconds that one plan takes.
    pub reconcile: Histogram,
    /// Failed writes by reason.
    pub errors: IntCounterVec,
    /// Successful writes by kind and verb.
    pub writes: IntCounterVec,
    /// 1 on the operator that writes.
    pub leader: IntGauge,
    /// Agents by whether they take transfers.
    pub agents: IntGaugeVec,
    /// Seconds that the API server's answers to writes took.
    pub write_seconds: Histogram,
    /// Bytes of the metadata that an agent publishes in its half of a task.
    pub metadata_bytes: Histogram,
    /// Seconds from a task's first sight to the metadata of both halves in it.
    pub metadata_exchange: Histogram,
}

impl Metrics {
    /// New metrics, all zero.
    pub fn new() -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(format!("nixl_transfer_{name}"), help);
        let histogram = |name: &str, help: &str, first: f64, factor: f64, count: usize| {
            prometheus::exponential_buckets(first, factor, count)
                .map(|buckets| HistogramOpts::from(opts(name, help)).buckets(buckets))
        };
        let metrics = Self {
            registry: Registry::new(),
            jobs: IntGaugeVec::new(opts("jobs", "TransferJobs by phase."), &["namespace", "phase"])?,
            jobs_total: IntCounterVec::new(
                opts("jobs_total", "Ended runs."),
                &["namespace", "result", "reason"],
            )?,
            duration: Histogram::with_opts(histogram(
                "duration_seconds",
                "Seconds from the begin of a run to its end, of runs that are complete.",
                0.1,
                2.0,
                17,
            )?)?,
            progress: GaugeVec::new(
                opts("job_progress_ratio", "Share of the bytes that are at the destinations."),
                &["namespace", "name"],
            )?,
            eta: GaugeVec::new(
                opts("job_eta_seconds", "Seconds until the job is done at its present rate."),
                &["namespace", "name"],
            )?,
            reconcile: Histogram::with_opts(histogram(
                "operator_reconcile_duration_seconds",
                "Seconds that one plan takes.",
                0.000_01,
                4.0,
                10,
            )?)?,
            errors: IntCounterVec::new(
                opts("operator_reconcile_errors_total", "Failed API writes."),
                &["reason"],
            )?,
            writes: IntCounterVec::new(
                opts("api_writes_total", "Successful API writes."),
                &["kind", "verb"],
            )?,
            leader: IntGauge::with_opts(opts(
                "operator_leader",
                "1 on the operator that writes, 0 on one that stands by.",
            ))?,
            agents: IntGaugeVec::new(opts("agents", "Agents by whether they take transfers."), &["ready"])?,
            write_seconds: Histogram::with_opts(histogram(
                "operator_api_write_duration_seconds",
                "Seconds until the API server answered a write.",
                0.001,
                2.0,
                14,
            )?)?,
            metadata_bytes: Histogram::with_opts(histogram(
                "metadata_bytes",
                "Bytes of what one end of a hop publishes for the other, as it stands in the TransferTask.",
                128.0,
                4.0,
                7,
            )?)?,
            metadata_exchange: Histogram::with_opts(histogram(
                "metadata_exchange_seconds",
                "Seconds until both ends of a hop had published, from when this operator first saw the TransferTask.",
                0.001,
                2.0,
                18,
            )?)?,
        };
        let build = IntGaugeVec::new(opts("build_info", "Version of this program."), &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let all: [Box<dyn prometheus::core::Collector>; 14] = [
            Box::new(build),
            Box::new(metrics.jobs.clone()),
            Box::new(metrics.jobs_total.clone()),
            Box::new(metrics.duration.clone()),
            Box::new(metrics.progress.clone()),
            Box::new(metrics.eta.clone()),
            Box::new(metrics.reconcile.clone()),
            Box::new(metrics.errors.clone()),
            Box::new(metrics.writes.clone()),
            Box::new(metrics.leader.clone()),
            Box::new(metrics.agents.clone()),
            Box::new(metrics.write_seconds.clone()),
            Box::new(metrics.metadata_bytes.clone()),
            Box::new(metrics.metadata_exchange.clone()),
        ];
        for collector in all {
            metrics.registry.register(collector)?;
        }
        Ok(metrics)
    }

    /// The metrics in Prometheus' text format.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
