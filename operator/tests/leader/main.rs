//! The election: what follows from what was seen of the Lease, as a table, and that no two operators may write at once,
//! whatever order requests, answers, crashes and pauses come in.

mod never_two;
mod tables;
