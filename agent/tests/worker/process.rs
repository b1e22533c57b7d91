//! A real worker process and the test's end of its socket: a thread that reads, a thread that keeps the heartbeat.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use transfer_agent::protocol::channel::Channel;
use transfer_agent::protocol::{FromWorker, Network, ToWorker, WorkerName};

use super::Outcome;

/// Everything in these tests happens within this time, or has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Only one socket may be inheritable at a time, or a worker would hold another's open.
static SPAWNING: Mutex<()> = Mutex::new(());

pub struct Worker {
    pub name: WorkerName,
    pub events: mpsc::Receiver<FromWorker>,
    child: Child,
    channel: Arc<Mutex<Channel>>,
    // Dropped with the worker: ends the heartbeat.
    _heart: mpsc::Sender<()>,
}

impl Worker {
    /// Starts a worker, loads NIXL and assigns it to the loopback device.
    pub fn start(role: &str, corrupt_chunk: Option<u64>) -> Outcome<Self> {
        let (transports, devices) = (vec!["tcp".into()], vec!["lo".into()]);
        Self::start_on(role, corrupt_chunk, Network { transports, devices, cpus: Vec::new() })
    }

    /// As `start`, on another network.
    pub fn start_on(role: &str, corrupt_chunk: Option<u64>, network: Network) -> Outcome<Self> {
        let (ours, theirs) = Channel::pair()?;
        let theirs: OwnedFd = theirs.into_fd();
        let child = {
            let _one = SPAWNING.lock().unwrap_or_else(PoisonError::into_inner);
            rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty())?;
            let spawned = Command::new(env!("CARGO_BIN_EXE_transfer-agent"))
                .env_clear()
                .args(["worker", "--fd", &theirs.as_raw_fd().to_string()])
                .spawn();
            drop(theirs);
            spawned?
        };
        ours.set_timeouts(Some(PATIENCE), None)?;
        let (reader, channel) = (ours.try_clone()?, Arc::new(Mutex::new(ours)));
        let (sender, events) = mpsc::channel();
        std::thread::spawn(move || {
            while let Ok((message, _)) = reader.receive::<FromWorker>() {
                if !matches!(message, FromWorker::Pong { .. }) && sender.send(message).is_err() {
                    return;
                }
            }
        });
        let (heart, stopped) = mpsc::channel::<()>();
        let beating = Arc::clone(&channel);
        std::thread::spawn(move || {
            while stopped.recv_timeout(Duration::from_secs(2)) == Err(mpsc::RecvTimeoutError::Timeout) {
                let channel = beating.lock().unwrap_or_else(PoisonError::into_inner);
                if channel.send(&ToWorker::Ping { sequence: 1 }, &[]).is_err() {
                    return;
                }
            }
        });
        let name = WorkerName(format!("{role}-{}", uuid::Uuid::new_v4().simple()));
        let worker = Self { name, events, child, channel, _heart: heart };
        let (library, plugins) = nixl();
        worker.say(&ToWorker::Load {
            cuda: nixl_transfer_gpu::LIBRARY.into(),
            worker: worker.name.clone(),
            library: library.display().to_string(),
            plugins: plugins.display().to_string(),
            corrupt_chunk,
        })?;
        match worker.next()? {
            FromWorker::Ready { backends, nixl_version, .. } => {
                assert!(!nixl_version.is_empty());
                assert_eq!(backends.len(), 1);
                assert_eq!(backends[0].name, "UCX");
                assert!(backends[0].memory_types.contains(&"DRAM".to_owned()), "{backends:?}");
            }
            other => return Err(format!("not ready: {other:?}").into()),
        }
        worker.say(&ToWorker::Assign { network })?;
        Ok(worker)
    }

    pub fn say(&self, message: &ToWorker) -> Outcome {
        self.say_with(message, &[])
    }

    pub fn say_with(&self, message: &ToWorker, descriptors: &[BorrowedFd<'_>]) -> Outcome {
        Ok(self.channel.lock().unwrap_or_else(PoisonError::into_inner).send(message, descriptors)?)
    }

    pub fn next(&self) -> Outcome<FromWorker> {
        Ok(self.events.recv_timeout(PATIENCE)?)
    }

    pub fn kill(&mut self) -> Outcome {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Stops it where it is, as a hang would.
    pub fn stop(&self) -> Outcome {
        let pid = rustix::process::Pid::from_child(&self.child);
        Ok(rustix::process::kill_process(pid, rustix::process::Signal::STOP)?)
    }

    /// The processors that each of its threads may run on, as the kernel writes them.
    pub fn processors(&self) -> Outcome<Vec<String>> {
        let mut lists = Vec::new();
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let status = std::fs::read_to_string(thread?.path().join("status"))?;
            let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            lists.push(list.ok_or("no list")?.trim().to_owned());
        }
        Ok(lists)
    }

    /// Processor time so far, in the kernel's ticks of 10 ms.
    pub fn processor_ticks(&self) -> Outcome<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields = stat.rsplit(')').next().ok_or("no stat")?;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
        Ok(ticks.sum::<Result<u64, _>>()?)
    }

    /// Closes the socket, as a control does that dies, and waits for the process.
    pub fn hang_up(mut self) -> Outcome<ExitStatus> {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner).shutdown();
        self.exit()
    }

    /// Waits for the process to end by itself.
    pub fn exit(&mut self) -> Outcome<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            // A process has no handle to wait on with a deadline without more machinery than this.
            std::thread::park_timeout(Duration::from_millis(10));
        }
        Err("the worker did not end".into())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Gone already when the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn borrowed(descriptors: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    descriptors.iter().map(OwnedFd::as_fd).collect()
}

/// NIXL's library and the directory of its plugins.
pub fn nixl() -> (PathBuf, PathBuf) {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/nixl");
    let path = |variable: &str, otherwise: &str| {
        std::env::var_os(variable).map_or(tools.join(otherwise), PathBuf::from)
    };
    (
        path("NIXL_TRANSFER_NIXL_LIBRARY", ".nixl_cu12.mesonpy.libs/libnixl_capi.so"),
        path("NIXL_TRANSFER_NIXL_PLUGINS", "nixl_cu12.libs/nixl"),
    )
}
