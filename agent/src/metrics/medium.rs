//! What a hop's end is, as a label. Pure.

/// What this node's end of a hop is.
#[derive(Clone, Copy, Debug)]
pub enum Medium {
    /// Files of a volume.
    File,
    /// A memory region.
    Memory,
    /// The slots of a chain's node: what it sends on it has just received.
    Slots,
}

impl Medium {
    /// Of something that is memory, or not.
    pub fn of(is_memory: bool) -> Self {
        if is_memory { Self::Memory } else { Self::File }
    }

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Memory => "memory",
            Self::Slots => "slots",
        }
    }
}
