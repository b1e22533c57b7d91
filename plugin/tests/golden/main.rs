//! What people see, held against files. `render`: every state at every width, made in this process. `binary`: the program itself, on a
//! terminal and on a pipe, against an API server named fake that serves the same objects. `failures`: the program against an API
//! server that never answers, and without one.
//!
//! `NIXL_TRANSFER_WRITE_GOLDEN=1 cargo test -p kubectl-transfer --test golden` writes the files anew, and docs/plugin.md
//! when it is run again; then read the difference.

mod binary;
mod compare;
mod documents;
mod failures;
mod fake;
mod fixtures;
mod pty;
mod render;
