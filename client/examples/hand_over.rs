//! A pod that lends its memory: fills it, hands it over, and prints what becomes of it.
//!
//!     hand_over SOCKET TOKEN_FILE REGION SIZE [TEXT]
//!
//! Ends after the first transfer has finished.

use std::{error::Error, fs, os::unix::fs::FileExt, path::Path, time::Duration};

use nixl_transfer_client::{Workload, shared_memory};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, token, region, size, text @ ..] = arguments.as_slice() else {
        return Err("usage: hand_over SOCKET TOKEN_FILE REGION SIZE [TEXT]".into());
    };
    let size = size.parse()?;
    let memory = shared_memory(size)?;
    if let Some(text) = text.first() {
        memory.write_all_at(text.as_bytes(), 0)?;
    }
    let token = fs::read_to_string(token)?;
    let mut agent = Workload::connect(Path::new(socket), &token, Duration::from_secs(10))?;
    agent.hand_over(region, &memory, size, Duration::from_secs(60))?;
    println!("ready");
    println!("{:?}", agent.next(Duration::from_secs(600))?);
    agent.withdraw(region, Duration::from_secs(60))?;
    let mut start = [0; 32];
    let start = &mut start[..usize::try_from(size.min(32))?];
    memory.read_exact_at(start, 0)?;
    println!("{}", start.escape_ascii());
    Ok(())
}
