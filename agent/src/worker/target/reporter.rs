//! Puts finished files together into few messages: a batch goes out when nothing more comes, when it is old, or when it
//! is large. Waits on a channel; the clock is the real one.
//!
//! That nothing more comes is known when no file is at work in the store. Only while one is, time decides.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::protocol::StoredFile;

/// A batch waits no longer than this for more.
const OLDEST: Duration = Duration::from_millis(50);
/// So long nothing came: the disk is slow, and control may be waiting for the window to move.
const IDLE: Duration = Duration::from_millis(4);
/// A message with so many files waits for no more.
const LARGEST: usize = 128;

/// Reports until the last sender is gone. `all_came` says whether what was sent so far is all that is at work.
pub(super) fn run(
    finished: &Receiver<Vec<StoredFile>>,
    all_came: impl Fn() -> bool,
    mut report: impl FnMut(Vec<StoredFile>),
) {
    while let Ok(mut batch) = finished.recv() {
        let oldest = Instant::now() + OLDEST;
        let mut open = true;
        while open && batch.len() < LARGEST {
            // Asked first: what was sent before that is in the channel.
            let wait = if all_came() {
                Duration::ZERO
            } else {
                oldest.saturating_duration_since(Instant::now()).min(IDLE)
            };
            match finished.recv_timeout(wait) {
                Ok(files) => batch.extend(files),
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
        for all_came in [false, true] {
            let (sender, finished) = std::sync::mpsc::channel();
            for index in (0..300).step_by(3) {
                let file = |index| StoredFile { index, digest: vec![1], identical: false };
                sender.send((index..index + 3).map(file).collect()).expect("open");
            }
            drop(sender);
            let mut batches = Vec::new();
            run(&finished, || all_came, |files| batches.push(files));
            assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [129, 129, 42]);
            let indices: Vec<u32> = batches.iter().flatten().map(|file| file.index).collect();
            assert_eq!(indices, (0..300).collect::<Vec<_>>());
        }
    }
}
