//! What a report of stored files comes to: whether each may be committed at all, and afterwards what the hop has to know
//! of it. What happens to the files themselves is in `naming`.

use nixl_transfer_crds::Reason;

use super::naming::{Outcome, Stored};
use super::parents::DirectoryId;
use super::{Committed, Destination, FileState, MayCommit};
use crate::protocol::{Failure, StoredFile};
use crate::volume::parallel;
use crate::volume::path::VolumePath;

impl Destination {
    /// Gives stored files their names, or leaves the identical ones alone, and tells `done` of each. `may_commit` is
    /// asked right before each naming. After a failure no further one is begun; the failure is that of the first file in
    /// the manifest's order that has one.
    ///
    /// # Errors
    /// `AgentNotReady` when `may_commit` says no; `IntegrityError` when the partial is not what it should be;
    /// `DestinationExists` when something has come to stand there; `IoError` when what was compared stands there no more.
    pub fn commit(
        &mut self,
        files: &[StoredFile],
        may_commit: &MayCommit,
        mut done: impl FnMut(Committed),
    ) -> Result<(), Failure> {
        let (stored, refused) = self.committable(files);
        let outcomes = parallel::each(&stored, |file| self.commit_file(file, may_commit));
        let mut failure = None;
        for (file, outcome) in stored.into_iter().zip(outcomes) {
            match outcome.and_then(|outcome| self.committed(file, outcome)) {
                Ok(committed) => done(committed),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.or(refused).map_or(Ok(()), Err)
    }

    /// The files that may be committed, in the manifest's order, up to the first that may not: the worker is not trusted
    /// to name each once.
    fn committable<'a>(&self, files: &'a [StoredFile]) -> (Vec<Stored<'a>>, Option<Failure>) {
        let mut files: Vec<&StoredFile> = files.iter().collect();
        files.sort_by_key(|file| file.index);
        let mut good: Vec<Stored> = Vec::with_capacity(files.len());
        for file in files {
            let again = good.last().is_some_and(|last| last.file.index == file.index);
            match self.stored(file, again) {
                Ok(stored) => good.push(stored),
                Err(failure) => return (good, Some(failure)),
            }
        }
        (good, None)
    }

    fn stored<'a>(&self, file: &'a StoredFile, again: bool) -> Result<Stored<'a>, Failure> {
        let (path, _) = self.file(file.index)?;
        match self.files.get(&file.index) {
            Some(FileState::Partial { inode, durable, compared }) if !again => {
                let name = self.partial_name(file.index)?;
                Ok(Stored { file, path, name, inode: *inode, durable: *durable, compared: *compared })
            }
            Some(_) => Err(self.disagrees(&path, "was committed before")),
            None => Err(self.disagrees(&path, "was never begun")),
        }
    }

    /// What the hop knows of a file from now on.
    fn committed(&mut self, file: Stored, outcome: Outcome) -> Result<Committed, Failure> {
        self.files.insert(file.file.index, FileState::Committed { digest: file.file.digest.clone() });
        match outcome {
            Outcome::Skipped => Ok(Committed::Skipped),
            Outcome::Named(named) => {
                self.touch(named.parent, named.id)?;
                Ok(Committed::Replaced)
            }
        }
    }

    /// A directory has a new name in it.
    pub(super) fn touch(&mut self, path: VolumePath, id: DirectoryId) -> Result<(), Failure> {
        match self.touched.insert(path.as_bytes().to_vec(), id) {
            Some(before) if before != id => Err(self.moved(&self.volume.place(&path))),
            _ => Ok(()),
        }
    }

    pub(super) fn moved(&self, place: &str) -> Failure {
        let message = format!("{place} was moved or replaced while files were put into it: leave it alone");
        Failure::new(Reason::IoError, message)
    }
}
