//! A blocking call on a thread of its own, one at a time: a driver or a file system that hangs costs one thread, and control
//! goes on.

use std::future::pending;

use tokio::task::JoinHandle;
use tracing::error;

/// A call that may be under way.
#[derive(Debug)]
pub struct Call<T> {
    running: Option<JoinHandle<T>>,
}

impl<T> Default for Call<T> {
    fn default() -> Self {
        Self { running: None }
    }
}

impl<T: Send + 'static> Call<T> {
    /// Starts the call, unless one is under way.
    pub fn start(&mut self, call: impl FnOnce() -> T + Send + 'static) {
        if self.running.is_none() {
            self.running = Some(tokio::task::spawn_blocking(call));
        }
    }

    /// Whether a call has begun and its result is not taken.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// The result of the call under way, `None` if it panicked; without a call for ever. May be dropped at any time.
    pub async fn result(&mut self) -> Option<T> {
        let Some(running) = &mut self.running else { return pending().await };
        let result = running.await;
        self.running = None;
        result.inspect_err(|failure| error!(%failure, "a look at the node has failed")).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::mpsc, time::Duration};

    #[tokio::test]
    async fn a_call_that_hangs_is_the_only_one_and_its_late_result_is_taken() {
        let mut call = Call::default();
        let (release, released) = mpsc::channel::<u8>();
        call.start(move || released.recv().unwrap_or_default());
        let short = Duration::from_millis(10);
        assert!(tokio::time::timeout(short, call.result()).await.is_err());
        call.start(|| unreachable!("one is under way"));
        assert!(call.is_running());
        release.send(7).unwrap();
        assert_eq!(call.result().await, Some(7));
        assert!(!call.is_running());
        assert!(tokio::time::timeout(short, call.result()).await.is_err(), "there is none");
        call.start(|| panic!("on purpose"));
        assert_eq!(call.result().await, None);
        call.start(|| 8);
        assert_eq!(call.result().await, Some(8));
    }
}
