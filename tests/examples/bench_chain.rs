//! A chain of plain sockets, to compare with: each receiver stores a chunk and sends it on while the next one comes. No
//! digests, no credits, no other process told.
//!
//! `bench_chain receive ADDRESS FILE [NEXT]` prints `ready` when it listens, and ends when it and all behind it have
//! stored everything. `bench_chain send ADDRESS FILE` ends then, too.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc::{Receiver, sync_channel},
    thread,
};

use anyhow::{Context, Result, bail, ensure};

const CHUNK: usize = 1 << 20;
/// Chunks between receiving and sending on.
const IN_FLIGHT: usize = 8;
const STORED: u8 = 1;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["send", address, file] => send(address, file),
        ["receive", address, file] => receive(address, file, None),
        ["receive", address, file, next] => receive(address, file, Some(next)),
        _ => bail!("{arguments:?} is nothing to do"),
    }
}

fn send(address: &str, file: &str) -> Result<()> {
    let mut file = File::open(file).context(file.to_owned())?;
    let size = file.metadata()?.len();
    let mut to = connect(address)?;
    to.write_all(&size.to_le_bytes())?;
    ensure!(io::copy(&mut file, &mut to)? == size, "the file has changed");
    all_stored(&mut to)
}

fn receive(address: &str, file: &str, next: Option<&str>) -> Result<()> {
    let listener = TcpListener::bind(address).with_context(|| address.to_owned())?;
    println!("ready");
    io::stdout().flush()?;
    let (mut from, _) = listener.accept()?;
    let mut size = [0; 8];
    from.read_exact(&mut size)?;
    let mut file = File::create(file).context(file.to_owned())?;
    let (chunks, behind) = sync_channel(IN_FLIGHT);
    let forwarding = next.map(|next| {
        let next = next.to_owned();
        thread::spawn(move || forward(&next, size, behind))
    });
    let mut left = u64::from_le_bytes(size);
    while left > 0 {
        let mut chunk = vec![0; usize::try_from(left.min(CHUNK as u64))?];
        from.read_exact(&mut chunk)?;
        file.write_all(&chunk)?;
        left -= chunk.len() as u64;
        if forwarding.is_some() {
            chunks.send(chunk).context("the next one is gone")?;
        }
    }
    drop(chunks);
    if let Some(forwarding) = forwarding {
        forwarding.join().map_err(|_| anyhow::anyhow!("sending on panicked"))??;
    }
    Ok(from.write_all(&[STORED])?)
}

fn forward(next: &str, size: [u8; 8], chunks: Receiver<Vec<u8>>) -> Result<()> {
    let mut to = connect(next)?;
    to.write_all(&size)?;
    for chunk in chunks {
        to.write_all(&chunk)?;
    }
    all_stored(&mut to)
}

fn connect(address: &str) -> Result<TcpStream> {
    TcpStream::connect(address).with_context(|| address.to_owned())
}

fn all_stored(to: &mut TcpStream) -> Result<()> {
    let mut word = [0];
    to.read_exact(&mut word).context("somebody in the chain has not stored everything")?;
    ensure!(word == [STORED], "{word:?} is no answer");
    Ok(())
}
