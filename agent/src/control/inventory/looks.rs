//! Looks at the node: volumes, sysfs and NVML, each by a blocking call of its own, so that one that hangs takes neither the
//! others nor control with it. What was seen last stands until something else is seen.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use nixl_transfer_crds::node::VolumeStatus;
use tokio::sync::watch;
use tracing::warn;

use super::{
    call::Call,
    gpus::Gpus,
    volumes::{self, Volumes},
};
use crate::{
    devices::{self, Absent, Address, Devices, Gpu, Hardware, Shown},
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
    nvml: String,
    opened: Vec<Arc<Volume>>,
    metrics: Metrics,
    tell: watch::Sender<Option<Arc<Hardware>>>,
    looking_at_volumes: Call<Volumes>,
    looking_at_sysfs: Call<Devices>,
    asking_nvml: Call<Result<Vec<Gpu>, Absent>>,
    volumes: Volumes,
    devices: Devices,
    gpus: Gpus,
    /// Calls that had not answered when the last look ended, and have not since.
    silent: Vec<&'static str>,
    seen: Seen,
}

impl Looks {
    /// Nothing is seen yet.
    pub fn new(
        (sysfs, nvml): (PathBuf, String),
        opened: Vec<Arc<Volume>>,
        metrics: Metrics,
        tell: watch::Sender<Option<Arc<Hardware>>>,
    ) -> Self {
        Self {
            sysfs,
            nvml,
            opened,
            metrics,
            tell,
            looking_at_volumes: Call::default(),
            looking_at_sysfs: Call::default(),
            asking_nvml: Call::default(),
            volumes: Volumes::default(),
            devices: Devices::default(),
            gpus: Gpus::default(),
            silent: Vec::new(),
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
        self.silent = self.under_way();
        self.see();
    }

    /// Takes in an answer that comes between two looks; waits for ever if none is under way.
    pub async fn take_late(&mut self) {
        self.take().await;
        let under_way = self.under_way();
        self.silent.retain(|what| under_way.contains(what));
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
                    let nvml = self.nvml.clone();
                    self.asking_nvml.start(move || devices::gpus(&nvml));
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
        troubles.extend(
            self.silent.iter().map(|what| format!("{what} has not answered, and is shown as last seen")),
        );
        for trouble in troubles.iter().filter(|trouble| !self.seen.troubles.contains(trouble)) {
            warn!("{trouble}");
        }
        let shown = devices::shown(&self.gpus.known, &self.devices);
        self.metrics.devices(&shown.gpus, &devices::kept(&self.devices.nics));
        self.tell.send_if_modified(|told| {
            let gpus = self.gpus.is_answered().then(|| self.gpus.known.clone());
            let now = Hardware { devices: self.devices.clone(), gpus };
            let news = told.as_deref() != Some(&now);
            if news {
                *told = Some(Arc::new(now));
            }
            news
        });
        self.seen = Seen { volumes: self.volumes.published.clone(), devices: shown, troubles };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::VolumeConfig;
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::{fs, path::Path};

    fn looks(directory: &Path) -> Looks {
        fs::create_dir_all(directory.join("volume")).unwrap();
        let volume = Volume::open(&VolumeConfig {
            name: "data".into(),
            path: directory.join("volume"),
            read_only: false,
            allowed_namespaces: vec!["*".into()],
        });
        let (tell, _) = watch::channel(None);
        let libraries = (directory.join("sys"), devices::NVML.into());
        Looks::new(libraries, vec![Arc::new(volume.unwrap())], Metrics::new().unwrap(), tell)
    }

    #[tokio::test]
    async fn a_sysfs_that_hangs_holds_up_nothing_else_and_its_late_answer_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let ports = directory.path().join("sys/devices/pci0000:00/0000:00:01.0/infiniband/mlx5_0/ports/1");
        fs::create_dir_all(&ports).unwrap();
        fs::create_dir_all(directory.path().join("sys/class/infiniband")).unwrap();
        let link = "../../devices/pci0000:00/0000:00:01.0/infiniband/mlx5_0";
        std::os::unix::fs::symlink(link, directory.path().join("sys/class/infiniband/mlx5_0")).unwrap();
        fs::write(ports.join("state"), "4: ACTIVE\n").unwrap();
        let mut looks = looks(directory.path());
        looks.look().await;
        assert_eq!((looks.seen().devices.nics.len(), looks.seen().volumes.len()), (1, 1));
        assert_eq!(looks.seen().troubles, [""; 0]);

        // Opening a FIFO waits until somebody writes, as a driver may until its card answers.
        fs::remove_file(ports.join("state")).unwrap();
        mknodat(CWD, ports.join("state"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        fs::rename(directory.path().join("volume"), directory.path().join("gone")).unwrap();
        looks.look().await;
        assert!(looks.seen().volumes.is_empty(), "the volumes are looked at");
        assert_eq!(looks.seen().devices.nics[0].state.as_str(), "Active", "as last seen");
        assert!(looks.seen().troubles.iter().any(|trouble| trouble.contains("sysfs has not answered")));

        fs::write(ports.join("state"), "1: DOWN\n").unwrap();
        while looks.looking_at_sysfs.is_running() {
            looks.take_late().await;
        }
        assert_eq!(looks.seen().devices.nics[0].state.as_str(), "Down");
        assert_eq!(looks.seen().troubles.len(), 1, "the volume's: {:?}", looks.seen().troubles);
    }
}
