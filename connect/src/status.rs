//! The states of an operation, with the numbers and words of `nixl_connect`. No I/O.

use std::fmt;

/// State of one operation. The numbers are `nixl_connect`'s, the text is what its `str()` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OperationStatus {
    /// Not made yet; never the state of an operation that a caller holds.
    Uninitialized = 0,
    /// Made, nothing posted.
    Initialized = 1,
    /// Posted, bytes may move.
    InProgress = 2,
    /// All bytes arrived and the other side was told.
    Complete = 3,
    /// Ended on request.
    Cancelled = 4,
    /// Ended by a failure.
    Errored = 5,
}

impl OperationStatus {
    /// Whether no further change can come.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Complete | Self::Cancelled | Self::Errored)
    }
}

impl fmt::Display for OperationStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Uninitialized => "<invalid>",
            Self::Initialized => "INIT",
            Self::InProgress => "PROC",
            Self::Complete => "DONE",
            Self::Cancelled => "STOP",
            Self::Errored => "ERR",
        })
    }
}
