//! What a connection asks of the keeper of regions, and how it hears of what becomes of its memory.

use nixl_transfer_client::wire::FromAgent;
use tokio::sync::{mpsc, oneshot, watch};

use super::Refusal;
use crate::region::Memory;

/// The way to the keeper.
pub type Desk = mpsc::Sender<Request>;

/// A pod, as its token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// Who holds a region: one connection of a pod.
#[derive(Clone, Debug)]
pub struct Holder {
    /// Number of the connection, unique in this process.
    pub connection: u64,
    /// The pod.
    pub pod: Pod,
    events: mpsc::Sender<FromAgent>,
    too_slow: watch::Sender<bool>,
}

/// Resolves, with an error, when memory is out of everybody's reach.
pub type Gone = oneshot::Receiver<()>;

/// What a connection asks for.
#[derive(Debug)]
pub enum Request {
    /// To take memory as a region.
    Offer {
        /// Who hands it over.
        holder: Holder,
        /// Name of the region, in the pod's namespace.
        region: String,
        /// The memory.
        memory: Memory,
        /// Whether it was taken. When nobody waits for this any more, it is not.
        answer: oneshot::Sender<Result<(), Refusal>>,
    },
    /// Whether memory would be taken as a region: asked before it is looked at, where that costs something.
    Ask {
        /// Who would hand it over.
        holder: Holder,
        /// Name of the region, in the pod's namespace.
        region: String,
        /// Whether it would.
        answer: oneshot::Sender<Result<(), Refusal>>,
    },
    /// To let go of a region; answered when that has begun.
    Withdraw {
        /// Who holds it.
        holder: Holder,
        /// Its name.
        region: String,
        /// Done.
        answer: oneshot::Sender<()>,
    },
}

impl Holder {
    /// A connection of that number; events go to one receiver, and to the other one word when they are not taken in time.
    pub fn new(
        connection: u64,
        pod: Pod,
        room: usize,
    ) -> (Self, mpsc::Receiver<FromAgent>, watch::Receiver<bool>) {
        let (events, heard) = mpsc::channel(room);
        let (too_slow, is_too_slow) = watch::channel(false);
        (Self { connection, pod, events, too_slow }, heard, is_too_slow)
    }

    /// Resolves when the connection is closed, however it came to its end.
    pub fn gone(&self) -> impl Future<Output = ()> + Send + use<> {
        let events = self.events.clone();
        async move { events.closed().await }
    }

    /// Tells the workload something. One that does not listen loses its connection, and nobody waits for it.
    pub fn tell(&self, event: FromAgent) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.events.try_send(event) {
            self.too_slow.send_replace(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_does_not_listen_loses_its_connection_and_nobody_waits() {
        let pod = Pod { namespace: "ml".into(), name: "p".into(), uid: "u".into() };
        let (holder, heard, mut too_slow) = Holder::new(1, pod, 2);
        for told in 1..=4 {
            holder.tell(FromAgent::Withdrawn { region: "kv".into() });
            assert_eq!(*too_slow.borrow_and_update(), told > 2, "{told}");
        }
        drop(heard);
        holder.tell(FromAgent::Withdrawn { region: "kv".into() });
    }
}
