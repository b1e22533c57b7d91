//! Listens, and takes connections in as fast as `doors` allows.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with},
};
use tokio::{net::UnixListener, sync::watch, task::JoinSet};
use tracing::warn;

use super::{Desk, Identity, doors::Doors, line::Line, session::Session};
use crate::control::gpus::Gpus;

/// After a failed accept: the limit of open files is reached.
const BREATH: Duration = Duration::from_millis(100);

/// The socket.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl Listener {
    /// Listens there. A socket that nobody listens at any more is replaced; any pod that sees the path may connect.
    ///
    /// # Errors
    /// When something else is there, somebody listens, or the directory cannot be written.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "something that is no socket stands there",
                ));
            }
            Ok(_) if !is_abandoned(path)? => {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another agent listens there"));
            }
            _ => {}
        }
        // It gets its name when it can be used, so that nobody finds one that cannot.
        let mut beside = path.to_owned().into_os_string();
        beside.push(".new");
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = UnixListener::bind(&beside)?;
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o666))?;
        let inode = fs::symlink_metadata(&beside)?.ino();
        fs::rename(&beside, path)?;
        Ok(Self { socket, path: path.to_owned(), inode })
    }

    /// Serves whoever connects until `stop`.
    pub async fn serve(
        self,
        identity: Identity,
        desk: Desk,
        (gpus, takes_ipc): (Gpus, bool),
        node: String,
        mut stop: watch::Receiver<bool>,
    ) {
        let session = Arc::new(Session { identity: Arc::new(identity), desk, gpus, takes_ipc, node });
        let doors = Doors::default();
        let numbers = AtomicU64::new(0);
        let mut connections = JoinSet::new();
        loop {
            let full_for = doors.full_for(Instant::now());
            tokio::select! {
                () = tokio::time::sleep(full_for), if !full_for.is_zero() => {}
                accepted = self.socket.accept(), if full_for.is_zero() => match accepted {
                    Ok((socket, _)) => {
                        let number = numbers.fetch_add(1, Ordering::Relaxed);
                        let (admitted, open) = doors.admit(number, Instant::now());
                        let (session, line) = (Arc::clone(&session), Line::new(socket, open));
                        connections.spawn(async move { session.run(line, admitted).await });
                    }
                    Err(error) => {
                        warn!(%error, "no connection of a workload can be taken in");
                        tokio::time::sleep(BREATH).await; // back-off
                    }
                },
                Some(Err(error)) = connections.join_next() => warn!(%error, "a connection of a workload ended badly"),
                () = async { drop(stop.wait_for(|stop| *stop).await) } => break,
            }
        }
        connections.shutdown().await;
    }
}

/// Whether nobody listens at a socket. Does not wait: whoever has a full queue is there.
fn is_abandoned(path: &Path) -> io::Result<bool> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&socket, &SocketAddrUnix::new(path)?) {
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(true),
        Ok(()) | Err(Errno::AGAIN) => Ok(false),
        Err(other) => Err(other.into()),
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode);
        if is_ours {
            // If it is gone meanwhile, that is what was wanted.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn what_a_crash_has_left_is_replaced_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = Listener::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        assert_eq!(Listener::bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        // One that takes nobody in listens all the same, and nobody waits for it.
        let full = directory.path().join("full");
        let _full = UnixListener::from_std(listening(&full, 0)).unwrap();
        let _queue = UnixStream::connect(&full).unwrap();
        assert_eq!(Listener::bind(&full).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        // Another one's socket stays when this one ends.
        fs::remove_file(&path).unwrap();
        let second = Listener::bind(&path).unwrap();
        drop(first);
        assert!(UnixStream::connect(&path).is_ok());
        drop(second);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "only the full one");
        fs::write(&path, "a file").unwrap();
        assert_eq!(Listener::bind(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    fn listening(path: &Path, queue: i32) -> std::os::unix::net::UnixListener {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        rustix::net::bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
        rustix::net::listen(&socket, queue).unwrap();
        socket.into()
    }
}
