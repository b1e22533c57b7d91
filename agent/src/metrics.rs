//! The agent's metrics, in a registry of their own: several agents can live in one process. Labels are namespaces and
//! words from closed lists; names of jobs are none.

mod devices;
mod medium;

use std::time::Duration;

use nixl_transfer_crds::{
    node::devices::GpuStatus,
    reason::{Class, TABLE},
};
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::devices::Nic;
use devices::DeviceMetrics;
pub use medium::Medium;

/// All metrics of one agent.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    bytes: IntCounterVec,
    files: IntCounterVec,
    stages: HistogramVec,
    verify_failures: IntCounter,
    registered: IntGauge,
    in_flight: IntGauge,
    throughput: Histogram,
    retries: IntCounterVec,
    fallbacks: IntCounterVec,
    workers: IntGaugeVec,
    workers_lost: IntCounterVec,
    api_writes: IntCounterVec,
    fenced: IntGauge,
    devices: DeviceMetrics,
}

/// Counts an amount for as long as it lives.
#[derive(Debug)]
pub struct Held {
    gauge: IntGauge,
    amount: i64,
}

impl Held {
    fn new(gauge: &IntGauge, bytes: u64) -> Self {
        let amount = i64::try_from(bytes).unwrap_or(i64::MAX);
        gauge.add(amount);
        Self { gauge: gauge.clone(), amount }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gauge.sub(self.amount);
    }
}

impl Metrics {
    /// New metrics, all zero.
    pub fn new() -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(format!("nixl_transfer_{name}"), help);
        // A quantile is no finer than its bucket.
        let buckets = prometheus::exponential_buckets(0.002, 2.0, 18)?;
        let registry = Registry::new();
        let metrics = Self {
            devices: DeviceMetrics::new(&registry)?,
            registry,
            bytes: IntCounterVec::new(
                opts("bytes_total", "Bytes of file content that were sent or received and verified."),
                &["namespace", "backend", "direction", "medium"],
            )?,
            files: IntCounterVec::new(
                opts("files_total", "Files that receiving is done with, by result."),
                &["result"],
            )?,
            stages: HistogramVec::new(
                HistogramOpts::from(opts("stage_duration_seconds", "Seconds that a stage of a hop took."))
                    .buckets(buckets),
                &["stage"],
            )?,
            verify_failures: IntCounter::with_opts(opts(
                "verify_failures_total",
                "Chunks whose digest differed.",
            ))?,
            registered: IntGauge::with_opts(opts("registered_bytes", "Staging memory of hops under way."))?,
            in_flight: IntGauge::with_opts(opts(
                "inflight_bytes",
                "Most bytes that may be under way now: the slots of the hops that are moving data, at either end.",
            ))?,
            throughput: Histogram::with_opts(
                HistogramOpts::from(opts(
                    "throughput_bytes_per_second",
                    "Bytes per second of each hop that was received, over the time in which it moved data.",
                ))
                .buckets(prometheus::exponential_buckets(1e6, 2.0, 19)?),
            )?,
            retries: IntCounterVec::new(
                opts(
                    "retries_total",
                    "Failures of this node's sides of hops that another attempt can follow.",
                ),
                &["reason"],
            )?,
            fallbacks: IntCounterVec::new(
                opts("fallbacks_total", "Hops received over another network than the best, by reason."),
                &["reason"],
            )?,
            workers: IntGaugeVec::new(opts("workers", "Worker processes by state."), &["state"])?,
            workers_lost: IntCounterVec::new(
                opts("workers_lost_total", "Worker processes that ended without being asked to, by cause."),
                &["cause"],
            )?,
            api_writes: IntCounterVec::new(
                opts("api_writes_total", "Successful API writes."),
                &["kind", "verb"],
            )?,
            fenced: IntGauge::with_opts(opts("fenced", "1 while the Lease is too old to commit anything."))?,
        };
        let build = IntGaugeVec::new(opts("build_info", "Version of this program."), &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let all: [Box<dyn prometheus::core::Collector>; 14] = [
            Box::new(build),
            Box::new(metrics.bytes.clone()),
            Box::new(metrics.files.clone()),
            Box::new(metrics.stages.clone()),
            Box::new(metrics.verify_failures.clone()),
            Box::new(metrics.registered.clone()),
            Box::new(metrics.in_flight.clone()),
            Box::new(metrics.throughput.clone()),
            Box::new(metrics.retries.clone()),
            Box::new(metrics.fallbacks.clone()),
            Box::new(metrics.workers.clone()),
            Box::new(metrics.workers_lost.clone()),
            Box::new(metrics.api_writes.clone()),
            Box::new(metrics.fenced.clone()),
        ];
        for collector in all {
            metrics.registry.register(collector)?;
        }
        metrics.begin();
        Ok(metrics)
    }

    /// Shows every row whose labels are known before: `increase` does not see the one by which a row begins.
    fn begin(&self) {
        let rows = |counters: &IntCounterVec, labels: &mut dyn Iterator<Item = &str>| {
            labels.for_each(|label| drop(counters.with_label_values(&[label])));
        };
        let reasons = |class: Class| TABLE.iter().filter(move |row| row.class == class).map(|row| row.name);
        rows(&self.retries, &mut reasons(Class::Retryable));
        rows(&self.fallbacks, &mut reasons(Class::Fallback));
        rows(&self.files, &mut ["committed", "skipped"].into_iter());
        rows(&self.workers_lost, &mut ["exited", "fault"].into_iter());
    }

    /// Bytes of file content that a hop of that namespace has moved; `direction` is `sent` or `received`.
    pub fn bytes(&self, namespace: &str, direction: &str, medium: Medium, count: u64) {
        self.bytes.with_label_values(&[namespace, "UCX", direction, medium.label()]).inc_by(count);
    }

    /// Files that receiving is done with; `result` is `committed` or `skipped`.
    pub fn files(&self, result: &str, count: u64) {
        self.files.with_label_values(&[result]).inc_by(count);
    }

    /// A stage of a hop has taken so long.
    pub fn stage(&self, stage: &str, took: Duration) {
        self.stages.with_label_values(&[stage]).observe(took.as_secs_f64());
    }

    /// Chunks whose digest differed.
    pub fn verify_failures(&self, count: u64) {
        self.verify_failures.inc_by(count);
    }

    /// Staging memory of a hop, counted until the guard is dropped.
    pub fn registered(&self, bytes: u64) -> Held {
        Held::new(&self.registered, bytes)
    }

    /// Slots of a hop that moves data, counted until the guard is dropped.
    pub fn in_flight(&self, bytes: u64) -> Held {
        Held::new(&self.in_flight, bytes)
    }

    /// A hop was received: so many bytes in that time.
    pub fn throughput(&self, bytes: u64, took: Duration) {
        if bytes > 0 && !took.is_zero() {
            self.throughput.observe(bytes as f64 / took.as_secs_f64());
        }
    }

    /// A side of a hop failed, and another attempt can follow.
    pub fn retry(&self, reason: &str) {
        self.retries.with_label_values(&[reason]).inc();
    }

    /// A hop goes over another network than the best.
    pub fn fallback(&self, reason: &str) {
        self.fallbacks.with_label_values(&[reason]).inc();
    }

    /// How many workers are in a state: `starting`, `warm`, `taken`, `ending`.
    pub fn workers(&self, state: &str, count: i64) {
        self.workers.with_label_values(&[state]).set(count);
    }

    /// A worker ended without being asked to; `cause` is `exited` or `fault`.
    pub fn worker_lost(&self, cause: &str) {
        self.workers_lost.with_label_values(&[cause]).inc();
    }

    /// A successful write to the API server.
    pub fn api_write(&self, kind: &str, verb: &str) {
        self.api_writes.with_label_values(&[kind, verb]).inc();
    }

    /// Whether the agent is fenced.
    pub fn fenced(&self, fenced: bool) {
        self.fenced.set(i64::from(fenced));
    }

    /// The node's devices as they are now, instead of those of the last look.
    pub fn devices(&self, gpus: &[GpuStatus], nics: &[Nic]) {
        self.devices.show(gpus, nics);
    }

    /// The metrics in Prometheus' text format.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_shown_and_guards_give_back() {
        let metrics = Metrics::new().unwrap();
        let begun = metrics.render().unwrap();
        for row in [r#"fallbacks_total{reason="LinkDown"} 0"#, r#"retries_total{reason="PeerLost"} 0"#] {
            assert!(begun.contains(row), "{begun}");
        }
        metrics.bytes("team", "sent", Medium::File, 7);
        metrics.bytes("team", "sent", Medium::Memory, 5);
        metrics.fallback("LinkDown");
        metrics.throughput(100 << 20, Duration::from_secs(2));
        metrics.throughput(0, Duration::from_secs(2));
        metrics.throughput(7, Duration::ZERO);
        let moving = metrics.in_flight(64);
        let held = metrics.registered(4096);
        let shown = metrics.render().unwrap();
        let row =
            r#"nixl_transfer_bytes_total{backend="UCX",direction="sent",medium="file",namespace="team"} 7"#;
        assert!(shown.contains(row), "{shown}");
        assert!(shown.contains("nixl_transfer_registered_bytes 4096"), "{shown}");
        for row in [
            r#"nixl_transfer_bytes_total{backend="UCX",direction="sent",medium="memory",namespace="team"} 5"#,
            r#"nixl_transfer_fallbacks_total{reason="LinkDown"} 1"#,
            "nixl_transfer_throughput_bytes_per_second_sum 52428800\n",
            "nixl_transfer_throughput_bytes_per_second_count 1\n",
            "nixl_transfer_inflight_bytes 64\n",
        ] {
            assert!(shown.contains(row), "{row}: {shown}");
        }
        drop(moving);
        assert!(metrics.render().unwrap().contains("nixl_transfer_inflight_bytes 0"));
        drop(held);
        assert!(metrics.render().unwrap().contains("nixl_transfer_registered_bytes 0"));
    }
}
