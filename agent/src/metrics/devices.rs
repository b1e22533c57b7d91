//! Metrics of the node's devices. Written anew with each look: what is no longer there is no longer shown.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use nixl_transfer_crds::node::devices::GpuStatus;
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

use crate::devices::Nic;

/// Values of labels, in the order of the metric's labels.
type Labels = Vec<String>;

/// All of them.
#[derive(Clone, Debug)]
pub(super) struct DeviceMetrics {
    nics: IntGaugeVec,
    gpus: IntGaugeVec,
    sent: IntCounterVec,
    shown: Arc<Mutex<Shown>>,
}

/// What stands there now.
#[derive(Debug, Default)]
struct Shown {
    nics: BTreeSet<Labels>,
    gpus: BTreeSet<Labels>,
    sent: BTreeSet<Labels>,
}

impl DeviceMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let opts = |name: &str, help: &str| Opts::new(format!("nixl_transfer_{name}"), help);
        let metrics = Self {
            nics: IntGaugeVec::new(
                opts("nic_info", "A port of an RDMA device, or an Ethernet interface (no port), always 1."),
                &["nic", "port", "netdev", "link_layer", "state", "pci_bus_id", "pcie_root", "numa_node"],
            )?,
            gpus: IntGaugeVec::new(
                opts("gpu_info", "A GPU, always 1."),
                &["gpu", "uuid", "model", "pci_bus_id", "pcie_root", "numa_node"],
            )?,
            sent: IntCounterVec::new(
                opts(
                    "nic_transmit_bytes_total",
                    "Bytes that a NIC has sent, by the kernel's counters: counter=rdma is the port's port_xmit_data, \
                     counter=netdev the interface's tx_bytes, which an Ethernet port's RDMA is not part of.",
                ),
                &["nic", "port", "counter"],
            )?,
            shown: Arc::default(),
        };
        registry.register(Box::new(metrics.nics.clone()))?;
        registry.register(Box::new(metrics.gpus.clone()))?;
        registry.register(Box::new(metrics.sent.clone()))?;
        Ok(metrics)
    }

    pub(super) fn show(&self, gpus: &[GpuStatus], nics: &[Nic]) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        replace(&self.nics, &mut shown.nics, nics.iter().map(nic_labels).collect());
        replace(&self.gpus, &mut shown.gpus, gpus.iter().map(gpu_labels).collect());
        let mut counted = BTreeSet::new();
        for nic in nics {
            for (counter, bytes) in [("rdma", nic.rdma_sent), ("netdev", nic.netdev_sent)] {
                let Some(bytes) = bytes else { continue };
                let labels = vec![nic.name.clone(), port(nic), counter.to_owned()];
                self.count(&labels, bytes);
                counted.insert(labels);
            }
        }
        for labels in shown.sent.difference(&counted) {
            let _ = self.sent.remove_label_values(labels);
        }
        shown.sent = counted;
    }

    /// The kernel's counter becomes ours. It begins anew when a driver is loaded again.
    fn count(&self, labels: &Labels, bytes: u64) {
        let counter = self.sent.with_label_values(labels);
        if bytes < counter.get() {
            counter.reset();
        }
        counter.inc_by(bytes - counter.get());
    }
}

fn replace(gauge: &IntGaugeVec, shown: &mut BTreeSet<Labels>, now: BTreeSet<Labels>) {
    for labels in &now {
        gauge.with_label_values(labels).set(1);
    }
    for labels in shown.difference(&now) {
        // An error says that it is not there, which is what is wanted.
        let _ = gauge.remove_label_values(labels);
    }
    *shown = now;
}

fn nic_labels(nic: &Nic) -> Labels {
    let place = nic.place.as_ref();
    vec![
        nic.name.clone(),
        port(nic),
        nic.netdev.clone().unwrap_or_default(),
        nic.link_layer.clone(),
        nic.state.as_str().to_owned(),
        place.map(|place| place.address.to_string()).unwrap_or_default(),
        place.and_then(|place| place.root.clone()).unwrap_or_default(),
        place.and_then(|place| place.numa).map(|numa| numa.to_string()).unwrap_or_default(),
    ]
}

fn gpu_labels(gpu: &GpuStatus) -> Labels {
    vec![
        gpu.index.to_string(),
        gpu.uuid.clone(),
        gpu.model.clone(),
        gpu.pci_bus_id.clone(),
        gpu.pcie_root.clone(),
        gpu.numa_node.map(|numa| numa.to_string()).unwrap_or_default(),
    ]
}

/// Empty for an interface without RDMA.
fn port(nic: &Nic) -> String {
    nic.port.map(|port| port.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use nixl_transfer_crds::node::devices::LinkState;

    fn nic(state: LinkState, rdma_sent: Option<u64>) -> Nic {
        Nic {
            name: "mlx5_0".into(),
            port: Some(1),
            netdev: Some("eth0".into()),
            state,
            link_layer: "Ethernet".into(),
            rate: None,
            place: None,
            rdma_sent,
            netdev_sent: Some(9),
        }
    }

    #[test]
    fn what_is_there_is_shown_and_what_is_gone_is_not() {
        let metrics = Metrics::new().unwrap();
        let rows = |name: &str| -> Vec<String> {
            let text = metrics.render().unwrap();
            let prefix = format!("nixl_transfer_{name}{{");
            text.lines().filter_map(|line| line.strip_prefix(&prefix)).map(str::to_owned).collect()
        };
        let gpu = GpuStatus { index: 3, uuid: "GPU-x".into(), model: "M".into(), ..GpuStatus::default() };
        metrics.devices(&[gpu], &[nic(LinkState::Active, Some(1000))]);
        let info = rows("nic_info");
        assert!(info.len() == 1 && info[0].contains(r#"state="Active""#), "{info:?}");
        assert!(info[0].contains(r#"nic="mlx5_0""#) && info[0].contains(r#"netdev="eth0""#), "{info:?}");
        let gpus = rows("gpu_info");
        assert!(gpus.len() == 1 && gpus[0].contains(r#"gpu="3""#) && gpus[0].ends_with("} 1"), "{gpus:?}");
        let sent = |expected: &[&str]| assert_eq!(rows("nic_transmit_bytes_total"), expected);
        let rdma = |bytes: u64| format!(r#"counter="rdma",nic="mlx5_0",port="1"}} {bytes}"#);
        let netdev = r#"counter="netdev",nic="mlx5_0",port="1"} 9"#;
        sent(&[netdev, &rdma(1000)]);

        metrics.devices(&[], &[nic(LinkState::Down, Some(1500))]);
        let info = rows("nic_info");
        assert!(info.len() == 1 && info[0].contains(r#"state="Down""#), "one row per port: {info:?}");
        assert!(rows("gpu_info").is_empty());
        sent(&[netdev, &rdma(1500)]);

        metrics.devices(&[], &[nic(LinkState::Down, Some(200))]);
        sent(&[netdev, &rdma(200)]);
        metrics.devices(&[], &[nic(LinkState::Down, None)]);
        sent(&[netdev]);
        metrics.devices(&[], &[]);
        sent(&[]);
        assert!(rows("nic_info").is_empty());
    }
}
