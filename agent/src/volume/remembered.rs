//! Digests of files that were read before and have not changed since. In memory only, and bounded. Pure but for a lock.
//!
//! A digest comes from a worker, which only the namespace that it works for has reason to trust: what one namespace has
//! read is nothing to another. A writer through a memory mapping is seen when the kernel sees it, as by every tool that
//! goes by times.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use nixl_transfer_crds::Algorithm;

use super::identity::Identity;
use crate::protocol::entry::Time;

/// Files at most; some 150 bytes each.
const MOST: usize = 1 << 20;

/// A file that was changed less than so many seconds before the reading began is not remembered: the file system's clock
/// may stand still for a while, and a change that it does not show could have come after (git calls such a file racily
/// clean).
const SETTLED_SECONDS: i64 = 2;

/// The digests of all namespaces.
#[derive(Debug)]
pub struct Remembered {
    most: usize,
    generations: Mutex<Generations>,
}

/// When the young are half of what may be there they become the old, and the old are forgotten, but for those that were
/// asked for meanwhile.
#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Key, Known>,
    old: HashMap<Key, Known>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    namespace: Arc<str>,
    device: u64,
    inode: u64,
}

#[derive(Clone, Debug)]
struct Known {
    file: Identity,
    algorithm: Algorithm,
    digest: Box<[u8]>,
}

/// What one namespace may know.
#[derive(Clone, Debug)]
pub struct Memory {
    namespace: Arc<str>,
    remembered: Arc<Remembered>,
}

impl Default for Remembered {
    fn default() -> Self {
        Self::of_at_most(MOST)
    }
}

impl Remembered {
    fn of_at_most(most: usize) -> Self {
        Self { most, generations: Mutex::default() }
    }

    /// A namespace's share of it.
    pub fn of(self: &Arc<Self>, namespace: &str) -> Memory {
        Memory { namespace: namespace.into(), remembered: Arc::clone(self) }
    }
}

impl Memory {
    /// The digest of a file, if it is still the one that was read.
    pub(super) fn known(&self, file: &Identity, algorithm: Algorithm) -> Option<Vec<u8>> {
        let key = self.key(file);
        let mut generations = self.lock();
        let (known, aged) = match generations.young.get(&key) {
            Some(known) => (known.clone(), false),
            None => (generations.old.remove(&key)?, true),
        };
        if known.file != *file || known.algorithm != algorithm {
            return None;
        }
        let digest = known.digest.to_vec();
        if aged {
            generations.put(key, known, self.remembered.most);
        }
        Some(digest)
    }

    /// Keeps the digest of a file that was the same before and after it was read, from `began` on.
    pub(super) fn remember(&self, file: &Identity, algorithm: Algorithm, digest: &[u8], began: Time) {
        let settled = file.changed.seconds.saturating_add(SETTLED_SECONDS);
        if (settled, file.changed.nanoseconds) >= (began.seconds, began.nanoseconds) {
            return;
        }
        let known = Known { file: *file, algorithm, digest: digest.into() };
        self.lock().put(self.key(file), known, self.remembered.most);
    }

    fn key(&self, file: &Identity) -> Key {
        Key { namespace: Arc::clone(&self.namespace), device: file.device, inode: file.inode }
    }

    /// A panic elsewhere leaves at most one file forgotten.
    fn lock(&self) -> std::sync::MutexGuard<'_, Generations> {
        self.remembered.generations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn put(&mut self, key: Key, known: Known, most: usize) {
        if self.young.len() >= (most / 2).max(1) && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time { seconds: 1_000, nanoseconds: 5 };

    fn file(inode: u64) -> Identity {
        let long_ago = Time { seconds: 10, nanoseconds: 0 };
        Identity { device: 1, inode, size: 4, modified: long_ago, changed: long_ago }
    }

    fn known(memory: &Memory, file: &Identity) -> bool {
        memory.known(file, Algorithm::Xxh3).is_some()
    }

    #[test]
    fn only_the_very_file_is_known_and_only_to_its_namespace() {
        let remembered = Arc::new(Remembered::default());
        let memory = remembered.of("ml");
        memory.remember(&file(7), Algorithm::Xxh3, &[1, 2], NOW);
        assert_eq!(memory.known(&file(7), Algorithm::Xxh3), Some(vec![1, 2]));
        assert_eq!(remembered.of("ml").known(&file(7), Algorithm::Xxh3), Some(vec![1, 2]));
        assert!(!known(&remembered.of("other"), &file(7)));
        let other = Time { seconds: 10, nanoseconds: 1 };
        for changed in [
            Identity { device: 2, ..file(7) },
            Identity { inode: 8, ..file(7) },
            Identity { size: 5, ..file(7) },
            Identity { modified: other, ..file(7) },
            Identity { changed: other, ..file(7) },
        ] {
            assert!(!known(&memory, &changed), "{changed:?}");
        }
        assert_eq!(memory.known(&file(7), Algorithm::Blake3), None);
        assert!(known(&memory, &file(7)), "asking in vain forgets nothing");
    }

    #[test]
    fn what_was_changed_just_before_is_not_remembered() {
        for (seconds, nanoseconds, expected) in
            [(997, 999_999_999, true), (998, 4, true), (998, 5, false), (999, 0, false), (2_000, 0, false)]
        {
            let memory = Arc::new(Remembered::default()).of("ml");
            let file = Identity { changed: Time { seconds, nanoseconds }, ..file(7) };
            memory.remember(&file, Algorithm::Xxh3, &[1], NOW);
            assert_eq!(known(&memory, &file), expected, "{seconds} {nanoseconds}");
        }
    }

    #[test]
    fn it_is_bounded_and_what_is_asked_for_stays() {
        let remembered = Arc::new(Remembered::of_at_most(100));
        let memory = remembered.of("ml");
        memory.remember(&file(0), Algorithm::Xxh3, &[0], NOW);
        for inode in 1..1_000 {
            memory.remember(&file(inode), Algorithm::Xxh3, &[1], NOW);
            let generations = memory.lock();
            assert!(generations.young.len() + generations.old.len() <= 100);
            drop(generations);
            assert!(known(&memory, &file(0)) && known(&memory, &file(inode)), "{inode}");
        }
        assert!(!known(&memory, &file(1)));
    }
}
