//! placeholder shell
mod protocol;
fn main() {}
