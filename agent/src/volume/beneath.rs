//! The only way to a file of a volume: from the root's descriptor, beneath it, through no symbolic link. The kernel
//! enforces it (`openat2`), not a check of strings. Does I/O.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nixl_transfer_crds::Reason;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat2};
use rustix::io::Errno;

use super::path::VolumePath;
use crate::protocol::Failure;

/// How often the kernel may ask for another try: it does when something on the way is renamed at the same time.
const TRIES: usize = 16;

/// Opens a path beneath a root. Never follows a symbolic link, not even as the last component.
pub fn open(root: BorrowedFd<'_>, path: &VolumePath, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    open_bytes(root, path.as_bytes(), flags, mode)
}

/// As [`open`], for a path that was put together here.
pub fn open_bytes(root: BorrowedFd<'_>, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        match openat2(root, path, flags, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) if tries < TRIES => tries += 1,
            other => return other,
        }
    }
}

/// A handle to whatever stands there, without opening it: no FIFO blocks, no device notices. A symbolic link as the
/// last component is what is found; one before it is an error.
pub fn locate(root: BorrowedFd<'_>, path: &VolumePath) -> Result<(OwnedFd, Stat), Errno> {
    let handle = open(root, path, OFlags::PATH, Mode::empty())?;
    let stat = fstat(&handle)?;
    Ok((handle, stat))
}

/// What stands there, if anything.
pub fn look(root: BorrowedFd<'_>, path: &VolumePath) -> Result<Option<Stat>, Errno> {
    match locate(root, path) {
        Ok((_, stat)) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens a located regular file for reading: the very one, whatever its name means by now.
pub fn read_located(handle: &OwnedFd) -> Result<OwnedFd, Errno> {
    // The link is one of the kernel's own, made from a descriptor that we hold.
    let own = format!("/proc/self/fd/{}", handle.as_fd().as_raw_fd());
    rustix::fs::open(own, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
}

/// A directory, opened so that it can be listed, changed and synced.
pub fn directory(root: BorrowedFd<'_>, path: &VolumePath) -> Result<OwnedFd, Errno> {
    open(root, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
}

/// What kind of thing it is.
pub fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// The failure for an error of the file system, with the reason that fits it. `place` names the path and the volume.
pub fn failure(doing: &str, place: &str, error: Errno) -> Failure {
    let (reason, why) = match error {
        Errno::LOOP => {
            (Reason::InvalidPath, "a symbolic link stands on the way; links are not followed".to_owned())
        }
        Errno::NOTDIR => {
            (Reason::InvalidPath, "something on the way is no directory, or a symbolic link".to_owned())
        }
        Errno::XDEV => (Reason::InvalidPath, "the path leaves the volume or its file system".to_owned()),
        Errno::NAMETOOLONG => {
            (Reason::InvalidPath, "the path is longer than the file system allows".to_owned())
        }
        Errno::NOSPC => (Reason::InsufficientSpace, "no space is left: free some on the volume".to_owned()),
        Errno::DQUOT => (Reason::InsufficientSpace, "the volume's quota is used up".to_owned()),
        Errno::ROFS => (Reason::VolumeReadOnly, "the volume's file system is read-only".to_owned()),
        other => (Reason::IoError, io::Error::from(other).to_string()),
    };
    Failure::new(reason, format!("{doing} {place}: {why}"))
}

/// As [`failure`], for an error that comes through the standard library.
pub fn io_failure(doing: &str, place: &str, error: &io::Error) -> Failure {
    match error.raw_os_error() {
        Some(code) => failure(doing, place, Errno::from_raw_os_error(code)),
        None => Failure::new(Reason::IoError, format!("{doing} {place}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No `VolumePath` can say these; the kernel would refuse them all the same.
    #[test]
    fn the_kernel_itself_lets_nothing_out_of_the_root() {
        let directory = tempfile::Builder::new().prefix("nixl-transfer-beneath-").tempdir().unwrap();
        std::fs::create_dir(directory.path().join("root")).unwrap();
        std::fs::write(directory.path().join("root/inside"), "").unwrap();
        std::fs::write(directory.path().join("outside"), "").unwrap();
        let root = std::fs::File::open(directory.path().join("root")).unwrap();
        let opened = |path: &[u8]| open_bytes(root.as_fd(), path, OFlags::RDONLY, Mode::empty()).map(drop);
        assert_eq!(opened(b"inside"), Ok(()));
        assert_eq!(opened(b"../outside"), Err(Errno::XDEV));
        assert_eq!(opened(b"/"), Err(Errno::XDEV));
    }
}
