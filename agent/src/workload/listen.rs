//! Takes connections in, and bounds them: those that have not said who they are push each other out, oldest first; of each
//! pod there are few.

use std::{
    collections::{HashMap, VecDeque},
    io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::UnixListener,
    sync::{oneshot, watch},
    task::JoinSet,
};
use tracing::{debug, warn};

use super::{Desk, Identity, Pod, Refusal, line::Line, session::Session};

/// Connections that have not said who they are.
const MAX_UNKNOWN: usize = 64;
/// Connections whose token the API server is asked about.
const MAX_ASKING: usize = 256;
/// Connections of one pod.
const MAX_OF_A_POD: usize = 4;
/// Connections of all pods.
const MAX_KNOWN: usize = 1024;
/// After a failed accept: the limit of open files is reached.
const BREATH: Duration = Duration::from_millis(100);

/// The socket.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

/// Connections as they are counted; clones share it.
#[derive(Clone, Default)]
struct Doors(Arc<Mutex<Counts>>);

#[derive(Default)]
struct Counts {
    /// Those that have not said who they are, oldest first.
    unknown: VecDeque<(u64, oneshot::Sender<()>)>,
    /// Those whose token is being looked at.
    asking: usize,
    /// Number of connections by UID of the pod.
    pods: HashMap<String, usize>,
}

/// A connection that was let in and has not said who it is.
pub(super) struct Admitted {
    doors: Doors,
    number: u64,
    asking: bool,
}

/// A connection of a pod, counted until it is dropped.
pub(super) struct Connection {
    doors: Doors,
    number: u64,
    pod: String,
}

impl Doors {
    /// Every change leaves the counts whole, so a panic elsewhere does no harm.
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets one in, and the oldest stranger out if there are too many. The receiver hears when this one is pushed out.
    fn admit(&self, number: u64) -> (Admitted, oneshot::Receiver<()>) {
        let (push, pushed) = oneshot::channel();
        let mut counts = self.lock();
        counts.unknown.push_back((number, push));
        if counts.unknown.len() > MAX_UNKNOWN
            && let Some((_, push)) = counts.unknown.pop_front()
        {
            let _ = push.send(());
        }
        (Admitted { doors: self.clone(), number, asking: false }, pushed)
    }
}

impl Admitted {
    /// It has said who it is: nobody pushes it out while that is looked at.
    pub(super) fn asks(&mut self) -> Result<(), Refusal> {
        let mut counts = self.doors.lock();
        if counts.asking >= MAX_ASKING {
            return Err(Refusal::new(
                "TooMany",
                "too many connections say who they are; connect again later",
            ));
        }
        counts.unknown.retain(|(number, _)| *number != self.number);
        counts.asking += 1;
        self.asking = true;
        Ok(())
    }

    /// It is this pod.
    pub(super) fn as_pod(&self, pod: &Pod) -> Result<Connection, Refusal> {
        let mut counts = self.doors.lock();
        let all: usize = counts.pods.values().sum();
        let of_pod = counts.pods.entry(pod.uid.clone()).or_default();
        let too_many = |what: String| Err(Refusal::new("TooMany", format!("{what}; close one first")));
        if *of_pod >= MAX_OF_A_POD {
            return too_many(format!("a pod may have {MAX_OF_A_POD} connections"));
        }
        if all >= MAX_KNOWN {
            return too_many(format!("there are {MAX_KNOWN} connections of pods of this node"));
        }
        *of_pod += 1;
        Ok(Connection { doors: self.doors.clone(), number: self.number, pod: pod.uid.clone() })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut counts = self.doors.lock();
        counts.unknown.retain(|(number, _)| *number != self.number);
        counts.asking -= usize::from(self.asking);
    }
}

impl Connection {
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut counts = self.doors.lock();
        if let Some(count) = counts.pods.get_mut(&self.pod) {
            *count -= 1;
            if *count == 0 {
                counts.pods.remove(&self.pod);
            }
        }
    }
}

impl Listener {
    /// Listens there. A socket that nobody listens at any more is replaced; any pod that sees the path may connect.
    ///
    /// # Errors
    /// When something else is there, somebody listens, or the directory cannot be written.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "something that is no socket stands there",
                ));
            }
            Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another agent listens there"));
            }
            Ok(_) => std::fs::remove_file(path)?,
            Err(_) => {}
        }
        let socket = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
        Ok(Self { socket, path: path.to_owned() })
    }

    /// Serves whoever connects until `stop`.
    pub async fn serve(self, identity: Identity, desk: Desk, node: String, mut stop: watch::Receiver<bool>) {
        let session = Arc::new(Session { identity: Arc::new(identity), desk, node });
        let doors = Doors::default();
        let numbers = AtomicU64::new(0);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.socket.accept() => match accepted {
                    Ok((socket, _)) => {
                        let (admitted, pushed) = doors.admit(numbers.fetch_add(1, Ordering::Relaxed));
                        let session = Arc::clone(&session);
                        connections.spawn(async move {
                            let known = session.run(Line::new(socket), admitted);
                            tokio::select! {
                                () = known => {}
                                // The sender is dropped, and says nothing, when it is known who is there.
                                Ok(()) = pushed => debug!("a connection that did not say who it is was pushed out"),
                            }
                        });
                    }
                    Err(error) => {
                        warn!(%error, "no connection of a workload can be taken in");
                        tokio::time::sleep(BREATH).await; // back-off
                    }
                },
                Some(_) = connections.join_next() => {}
                () = async { drop(stop.wait_for(|stop| *stop).await) } => break,
            }
        }
        connections.shutdown().await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // If it is gone already, that is what was wanted.
        let _ = std::fs::remove_file(&self.path);
    }
}
