//! What pods have a hand in is closed on threads of its own. Closing a descriptor may take as long as who sent it likes: a
//! TCP socket that lingers, a file of a server that is gone. A connection's own end closes what is still in its queue.

use tokio::sync::oneshot;

/// Such a thread calls little.
const STACK: usize = 128 << 10;

/// Does something on a thread of its own; an error when that cannot be had, or ended badly.
pub async fn apart<T: Send + 'static>(
    what: impl FnOnce() -> T + Send + 'static,
) -> Result<T, oneshot::error::RecvError> {
    let (done, result) = oneshot::channel();
    // If nobody waits any more, nobody wants the result.
    start(move || drop(done.send(what())));
    result.await
}

fn start(what: impl FnOnce() + Send + 'static) {
    // Without a thread it is dropped here and now, which is better than never.
    drop(std::thread::Builder::new().name("apart".into()).stack_size(STACK).spawn(what));
}

/// Is dropped on a thread of its own.
#[derive(Debug)]
pub struct Apart<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> Apart<T> {
    /// This, from now on.
    pub fn new(what: T) -> Self {
        Self(Some(what))
    }

    /// What it is; there until the end.
    pub fn get(&self) -> Option<&T> {
        self.0.as_ref()
    }

    /// As [`Apart::get`].
    pub fn get_mut(&mut self) -> Option<&mut T> {
        self.0.as_mut()
    }

    /// Takes it out: whoever has it then sees to its end.
    pub fn take(mut self) -> Option<T> {
        self.0.take()
    }
}

impl<T: Send + 'static> Drop for Apart<T> {
    fn drop(&mut self) {
        if let Some(what) = self.0.take() {
            start(move || drop(what));
        }
    }
}
