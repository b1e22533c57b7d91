//! Puts finished files together into few messages: a batch goes out when nothing more comes, when it is old, or when it
//! is large. Waits on a channel; the clock is the real one.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::protocol::StoredFile;

/// A batch waits no longer than this for more.
const OLDEST: Duration = Duration::from_millis(50);
/// So long nothing came: the store is idle, and control may be waiting for the window to move.
const IDLE: Duration = Duration::from_millis(4);
/// Files of one message.
const LARGEST: usize = 128;

/// Reports until the last sender is gone.
pub(super) fn run(finished: &Receiver<StoredFile>, mut report: impl FnMut(Vec<StoredFile>)) {
    while let Ok(first) = finished.recv() {
        let oldest = Instant::now() + OLDEST;
        let mut batch = vec![first];
        let mut open = true;
        while open && batch.len() < LARGEST {
            let left = oldest.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            match finished.recv_timeout(left.min(IDLE)) {
                Ok(file) => batch.push(file),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => open = false,
            }
        }
        report(batch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_everything_once_in_few_messages() {
        let (sender, finished) = std::sync::mpsc::channel();
        for index in 0..300 {
            sender.send(StoredFile { index, digest: vec![1], identical: false }).expect("open");
        }
        drop(sender);
        let mut batches = Vec::new();
        run(&finished, |files| batches.push(files));
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [128, 128, 44]);
        let indices: Vec<u32> = batches.iter().flatten().map(|file| file.index).collect();
        assert_eq!(indices, (0..300).collect::<Vec<_>>());
    }
}
