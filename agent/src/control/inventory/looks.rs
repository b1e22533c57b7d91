//! Looks at the node: volumes, sysfs and NVML, each by a blocking call of its own, so that one that hangs takes neither the
//! others nor control with it. What was seen last stands until something else is seen.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use nixl_transfer_crds::node::VolumeStatus;
use tracing::warn;

use super::{
    call::Call,
    gpus::Gpus,
    volumes::{self, Volumes},
};
use crate::{
    devices::{self, Absent, Address, Devices, Gpu, Shown},
    metrics::Metrics,
    volume::Volume,
};

/// A look waits for its answers so long; those that come later are taken when they come.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);

/// What was seen of the node.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Volumes that jobs may use.
    pub volumes: Vec<VolumeStatus>,
    /// Devices.
    pub devices: Shown,
    /// What an administrator should know.
    pub troubles: Vec<String>,
}

/// The looks, and what they have seen.
#[derive(Debug)]
pub struct Looks {
    sysfs: PathBuf,
    opened: Vec<Arc<Volume>>,
    metrics: Metrics,
    looking_at_volumes: Call<Volumes>,
    looking_at_sysfs: Call<Devices>,
    asking_nvml: Call<Result<Vec<Gpu>, Absent>>,
    volumes: Volumes,
    devices: Devices,
    gpus: Gpus,
    seen: Seen,
}

impl Looks {
    /// Nothing is seen yet.
    pub fn new(sysfs: PathBuf, opened: Vec<Arc<Volume>>, metrics: Metrics) -> Self {
        Self {
            sysfs,
            opened,
            metrics,
            looking_at_volumes: Call::default(),
            looking_at_sysfs: Call::default(),
            asking_nvml: Call::default(),
            volumes: Volumes::default(),
            devices: Devices::default(),
            gpus: Gpus::default(),
            seen: Seen::default(),
        }
    }

    /// What was seen last.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Looks at everything. May be dropped at any time; what is under way then is taken by `take_late`.
    pub async fn look(&mut self) {
        let opened = self.opened.clone();
        self.looking_at_volumes.start(move || volumes::look(&opened));
        let sysfs = self.sysfs.clone();
        self.looking_at_sysfs.start(move || devices::look(&sysfs));
        let all = async {
            while !self.under_way().is_empty() {
                self.take().await;
            }
        };
        let _ = tokio::time::timeout(ANSWERED_WITHIN, all).await;
        self.see();
    }

    /// Takes in an answer that comes between two looks; waits for ever if none is under way.
    pub async fn take_late(&mut self) {
        self.take().await;
        self.see();
    }

    async fn take(&mut self) {
        tokio::select! {
            found = self.looking_at_volumes.result() => if let Some(found) = found {
                self.volumes = found;
            },
            found = self.looking_at_sysfs.result() => if let Some(found) = found {
                self.devices = found;
                if self.gpus.shall_ask(&self.displays(), Instant::now()) {
                    self.asking_nvml.start(devices::gpus);
                }
            },
            answer = self.asking_nvml.result() => {
                let answer = answer.unwrap_or_else(|| Err(Absent::Failed("the call has panicked".into())));
                let displays = self.displays();
                self.gpus.take(answer, &displays, Instant::now());
            }
        }
    }

    fn displays(&self) -> Vec<Address> {
        self.devices.displays.iter().map(|place| place.address).collect()
    }

    /// What has not answered.
    fn under_way(&self) -> Vec<&'static str> {
        let calls = [
            ("the volumes' file systems", self.looking_at_volumes.is_running()),
            ("sysfs", self.looking_at_sysfs.is_running()),
            ("NVML", self.asking_nvml.is_running()),
        ];
        calls.into_iter().filter_map(|(name, running)| running.then_some(name)).collect()
    }

    /// Puts together what is known.
    fn see(&mut self) {
        let mut troubles = self.volumes.troubles.clone();
        troubles.extend(self.gpus.trouble.clone());
        let silent = self.under_way().into_iter();
        troubles.extend(silent.map(|what| format!("{what} has not answered, and is shown as last seen")));
        for trouble in troubles.iter().filter(|trouble| !self.seen.troubles.contains(trouble)) {
            warn!("{trouble}");
        }
        let shown = devices::shown(&self.gpus.known, &self.devices);
        self.metrics.devices(&shown.gpus, &devices::kept(&self.devices.nics));
        self.seen = Seen { volumes: self.volumes.published.clone(), devices: shown, troubles };
    }
}
