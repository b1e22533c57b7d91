//! The digests of what moves: XXH3-64 of a chunk, XXH3-128 of a content. Pure.

mod content;
mod stripes;

use xxhash_rust::xxh3::xxh3_64;

pub use content::ContentHasher;
use stripes::{BLOCK, Lanes, STRIPE, Way};

/// Below this `xxhash-rust` is as good. Its loop over long input is three times slower than ours, even in SSE2.
const LONG: usize = 4096;

#[cfg(all(feature = "null-digest", not(debug_assertions)))]
compile_error!("null-digest is for a benchmark: what is built with it notices no damage");

/// The digest that stands in a chunk's notification: XXH3-64 with seed 0.
pub fn chunk_digest(bytes: &[u8]) -> u64 {
    if cfg!(feature = "null-digest") {
        return 0;
    }
    match bytes.last_chunk::<STRIPE>() {
        Some(last) if bytes.len() >= LONG => long(Way::here(), bytes, last),
        _ => xxh3_64(bytes),
    }
}

/// For more than 240 bytes.
fn long(way: Way, bytes: &[u8], last: &[u8; STRIPE]) -> u64 {
    // The last stripe is always taken from the end, so a block that ends there is not a whole one.
    let (blocks, rest) = bytes.split_at((bytes.len() - 1) / BLOCK * BLOCK);
    let mut lanes = Lanes::NEW;
    lanes.blocks(way, blocks);
    lanes.end(way, rest, last);
    lanes.low(bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_xxh3_for_every_length_and_every_way() {
        let bytes: Vec<u8> =
            (0..3 * LONG as u32).map(|at| (at.wrapping_mul(0x9E37_79B1) >> 24) as u8).collect();
        // Every end within two blocks, where the cases of the last stripe lie, and all lengths around the threshold.
        for length in (0..300).chain(LONG - 70..LONG + 2 * BLOCK + 70).chain([bytes.len()]) {
            let part = &bytes[..length];
            assert_eq!(chunk_digest(part), xxh3_64(part), "length {length}");
            for way in Way::all().filter(|_| length > 240) {
                let last = part.last_chunk().expect("more than a stripe");
                assert_eq!(long(way, part, last), xxh3_64(part), "the loop itself, length {length}, {way:?}");
            }
        }
    }
}
