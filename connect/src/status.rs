//! The states of an operation, with the numbers and words of `nixl_connect`. No I/O.

use std::fmt;

/// State of one operation. The numbers are `nixl_connect`'s, the text is what its `str()` shows.
///
/// A passive operation goes from `Initialized` to one of the last three, an active one from `InProgress`. The first of them
/// stays.
///
/// ```
/// use nixl_connect::OperationStatus;
///
/// assert_eq!(OperationStatus::Complete as u8, 3);
/// assert_eq!(OperationStatus::Complete.to_string(), "DONE");
/// assert!(!OperationStatus::InProgress.is_terminal());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OperationStatus {
    /// `<invalid>`: not made yet; never the state of an operation that a caller holds.
    Uninitialized = 0,
    /// `INIT`: a passive operation whose peer is not done.
    Initialized = 1,
    /// `PROC`: an active operation whose bytes move.
    InProgress = 2,
    /// `DONE`: all bytes arrived and the other side was told.
    Complete = 3,
    /// `STOP`: ended by `cancel`. What was in flight may still arrive.
    Cancelled = 4,
    /// `ERR`: ended by a failure, which a wait gives.
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
