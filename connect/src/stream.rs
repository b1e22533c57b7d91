//! The staged stream: chunks in order, verified, through a ring of slots, from one sender to one receiver. The sender
//! writes a chunk into the receiver's slot with a notification (sequence, slot, length, digest); the receiver verifies
//! and returns the slot by notification. A chunk with a wrong digest is sent again. A relay forwards chunks from the slots
//! they came in. What a receiver has to say beside that goes back as answers. No files, no Kubernetes here.

mod answers;
#[cfg(feature = "fault-injection")]
mod corruption;
mod error;
mod message;
mod progress;
mod receive_state;
mod receiver;
mod ring;
mod send_slot;
mod send_state;
mod sender;
mod sending;
mod slot_mut;
mod target;

pub use answers::{AnswerReceiver, AnswerSender, MAX_ANSWER};
pub use error::StreamError;
pub use progress::{Progress, ProgressSnapshot};
pub use receiver::{Chunk, Receiver};
pub use sender::Sender;
pub use slot_mut::SlotMut;

/// How often one chunk is sent again before the stream fails with [`StreamError::Integrity`].
pub const MAX_RESENDS: u32 = 3;
