//! The socket by which pods of this node hand memory over: who they are is proven by a token, what they hand over is
//! checked, and what one of them does wrong harms nobody else. Messages and framing are those of `nixl-transfer-client`;
//! what becomes of the memory is decided in `control::regions`.

mod apart;
pub mod desk;
mod doors;
pub mod identity;
mod line;
pub mod listen;
mod session;

pub use desk::{Desk, Holder, Pod, Request};
pub use identity::{Identity, Refusal};
pub use listen::Listener;
