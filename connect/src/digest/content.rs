//! XXH3-128 of what comes piece by piece, with the same result as `xxhash-rust`'s, from the loop of [`super::stripes`].
//! Pure.

use xxhash_rust::xxh3::xxh3_128;

use super::stripes::{BLOCK, Lanes, STRIPE, Way};

/// The XXH3-128 of a content, seed 0, in the making.
#[derive(Clone, Debug)]
pub struct ContentHasher(Box<State>);

impl ContentHasher {
    /// Nothing has come yet.
    pub fn new() -> Self {
        Self(Box::new(State::new(Way::here())))
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that has come. More may come.
    pub fn digest(&self) -> u128 {
        self.0.digest()
    }
}

impl Default for ContentHasher {
    fn default() -> Self {
        Self::new()
    }
}

/// What came last is held back, since the end of the input is digested in another way than its middle.
#[derive(Clone, Debug)]
struct State {
    way: Way,
    lanes: Lanes,
    length: u64,
    /// The last stripe of what the lanes have taken, then what they have not.
    buffer: [u8; STRIPE + BLOCK],
    /// Bytes that the lanes have not taken: all as long as there are no more than a block, and never none after that.
    held: usize,
}

impl State {
    fn new(way: Way) -> Self {
        Self { way, lanes: Lanes::NEW, length: 0, buffer: [0; STRIPE + BLOCK], held: 0 }
    }

    fn update(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if self.held > 0 {
            let (fill, rest) = bytes.split_at(bytes.len().min(BLOCK - self.held));
            self.hold(fill);
            if rest.is_empty() {
                return;
            }
            self.lanes.blocks(self.way, &self.buffer[STRIPE..]);
            self.buffer.copy_within(BLOCK.., 0);
            self.held = 0;
            bytes = rest;
        }
        let (blocks, rest) = bytes.split_at(bytes.len().saturating_sub(1) / BLOCK * BLOCK);
        if let Some(last) = blocks.last_chunk::<STRIPE>() {
            self.lanes.blocks(self.way, blocks);
            self.buffer[..STRIPE].copy_from_slice(last);
        }
        self.hold(rest);
    }

    fn hold(&mut self, bytes: &[u8]) {
        let at = STRIPE + self.held;
        self.buffer[at..at + bytes.len()].copy_from_slice(bytes);
        self.held += bytes.len();
    }

    fn digest(&self) -> u128 {
        let known = &self.buffer[..STRIPE + self.held];
        match known.last_chunk::<STRIPE>() {
            Some(last) if self.length > BLOCK as u64 => {
                let mut lanes = self.lanes;
                lanes.end(self.way, &known[STRIPE..], last);
                u128::from(lanes.high(self.length)) << 64 | u128::from(lanes.low(self.length))
            }
            // All of it is here. Up to 240 bytes the digest is another one altogether.
            _ => xxh3_128(&known[STRIPE..]),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every way that this processor can go.
    fn hashers() -> Vec<State> {
        Way::all().map(State::new).collect()
    }

    fn content(length: usize) -> Vec<u8> {
        (0..length as u32).map(|at| (at.wrapping_mul(0x9E37_79B1) >> 24) as u8).collect()
    }

    #[test]
    fn is_xxh3_for_every_length() {
        let bytes = content(6 * BLOCK);
        // Every end within two blocks, where the cases of the last stripe lie.
        for length in (0..2 * BLOCK + 2 * STRIPE).chain([5 * BLOCK, 5 * BLOCK + 1, 6 * BLOCK]) {
            let expected = xxh3_128(&bytes[..length]);
            for mut hasher in hashers() {
                hasher.update(&bytes[..length]);
                assert_eq!(hasher.digest(), expected, "length {length}, {:?}", hasher.way);
            }
        }
    }

    proptest! {
        /// As it comes: in pieces of any size, with the digest taken in between.
        #[test]
        fn is_xxh3_in_any_pieces(pieces in prop::collection::vec(0_usize..3 * BLOCK, 0..12)) {
            let bytes = content(pieces.iter().sum());
            for mut hasher in hashers() {
                let mut at = 0;
                for piece in &pieces {
                    hasher.update(&bytes[at..at + piece]);
                    at += piece;
                    prop_assert_eq!(hasher.digest(), xxh3_128(&bytes[..at]), "{} of {:?}, {:?}", at, pieces, hasher.way);
                }
            }
        }
    }

    /// Figures for people: `cargo test -p nixl-connect --lib -- --ignored --nocapture how_fast`.
    #[test]
    #[ignore = "measures, asserts nothing"]
    fn how_fast_digests_are() {
        let bytes = content(1 << 20);
        let rate = |what: &str, digest: &mut dyn FnMut(&[u8])| {
            let since = std::time::Instant::now();
            for _ in 0..4096 {
                digest(std::hint::black_box(&bytes));
            }
            println!("{what}: {:.1} GB/s", 4.294_967_296 / since.elapsed().as_secs_f64());
        };
        let mut theirs = xxhash_rust::xxh3::Xxh3Default::new();
        rate("XXH3-128 of xxhash-rust", &mut |bytes| theirs.update(bytes));
        for mut hasher in hashers() {
            rate(&format!("XXH3-128 of ours, {:?}", hasher.way), &mut |bytes| hasher.update(bytes));
        }
        rate("XXH3-64 of a chunk", &mut |bytes| {
            std::hint::black_box(crate::chunk_digest(bytes));
        });
    }
}
