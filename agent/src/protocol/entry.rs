//! The manifest of a transfer: what the source has found, entry by entry, and how its digest is made. The same code
//! runs on both ends. Pure.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A path relative to the root of what is moved, as bytes: names on Linux need not be UTF-8. Empty for the root.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelativePath(pub Vec<u8>);

/// One thing in the tree that is moved. A file that is moved by itself is a manifest of one entry with an empty path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it stands, relative to the root.
    pub path: RelativePath,
    /// What it is.
    pub kind: EntryKind,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    /// A directory; entries inside it come after it.
    Directory {
        /// Permission bits.
        mode: u32,
        /// Last modification.
        mtime: Time,
    },
    /// A regular file.
    File {
        /// Its length in bytes.
        size: u64,
        /// Permission bits.
        mode: u32,
        /// Last modification.
        mtime: Time,
        /// Its number on the source's file system: tells a file that was replaced by one of the same size and time.
        inode: u64,
    },
    /// A symbolic link that stays inside the tree.
    Link {
        /// What it says, unresolved.
        target: RelativePath,
    },
}

/// A point in time as the file system has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Time {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nanoseconds: u32,
}

impl Time {
    /// This second.
    pub fn now() -> Self {
        Self { seconds: jiff::Timestamp::now().as_second(), nanoseconds: 0 }
    }
}

/// What a manifest adds up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Entries of any kind.
    pub entries: u64,
    /// Regular files.
    pub files: u64,
    /// Bytes in regular files.
    pub bytes: u64,
}

impl Totals {
    /// Adds one entry.
    pub fn add(&mut self, entry: &Entry) {
        self.entries += 1;
        if let EntryKind::File { size, .. } = entry.kind {
            self.files += 1;
            self.bytes = self.bytes.saturating_add(size);
        }
    }
}

impl RelativePath {
    /// For messages: what is no UTF-8 is replaced.
    pub fn display(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }
}

/// UTF-8 paths, nearly all, are plain strings on the wire; the rest are lists of bytes.
impl Serialize for RelativePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for RelativePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            Bytes(Vec<u8>),
        }
        Ok(Self(match Written::deserialize(deserializer)? {
            Written::Text(text) => text.into_bytes(),
            Written::Bytes(bytes) => bytes,
        }))
    }
}
