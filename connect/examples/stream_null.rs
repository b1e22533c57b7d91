//! The example `stream`, built with null digests: what the digest costs is the difference. `cargo xtask bench digest` only.

#[path = "stream.rs"]
mod stream;

fn main() -> stream::Outcome {
    stream::main()
}
