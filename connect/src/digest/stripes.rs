//! The loop of XXH3 over long input, which its 64 bits and its 128 bits share: compiled for AVX2 and AVX-512 too, and
//! chosen at run time, for a portable binary has SSE2 alone. Pure.
#![allow(unsafe_code)] // calling a function that was compiled for instructions found at run time

#[cfg(target_arch = "x86_64")]
mod avx512;

pub(super) const STRIPE: usize = 64;
const LANES: usize = STRIPE / 8;
const STRIPES_PER_BLOCK: usize = (SECRET.len() - STRIPE) / 8;
pub(super) const BLOCK: usize = STRIPE * STRIPES_PER_BLOCK;

const PRIME32_1: u64 = 0x9E37_79B1;
const PRIME32_2: u64 = 0x85EB_CA77;
const PRIME32_3: u64 = 0xC2B2_AE3D;
const PRIME64_1: u64 = 0x9E37_79B1_85EB_CA87;
const PRIME64_2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const PRIME64_3: u64 = 0x1656_67B1_9E37_79F9;
const PRIME64_4: u64 = 0x85EB_CA77_C2B2_AE63;
const PRIME64_5: u64 = 0x27D4_EB2F_1656_67C5;

/// The default secret of XXH3.
const SECRET: [u8; 192] = [
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c, 0xde,
    0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f, 0xcb, 0x79,
    0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21, 0xb8, 0x08, 0x46,
    0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c, 0x3c, 0x28, 0x52, 0xbb,
    0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3, 0x71, 0x64, 0x48, 0x97, 0xa2,
    0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8, 0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c,
    0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d, 0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59,
    0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64, 0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3,
    0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb, 0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3,
    0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e, 0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8,
    0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce, 0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb,
    0xca, 0xbb, 0x4b, 0x40, 0x7e,
];

/// The instructions of a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// What every processor of the kind has.
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(Proof),
    #[cfg(target_arch = "x86_64")]
    Avx512(Proof),
}

/// The processor was asked, and has them. Made here only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Proof(());

impl Way {
    /// The fastest here.
    pub(super) fn here() -> Self {
        Self::all().last().unwrap_or(Self::Portable)
    }

    /// All that this processor can go, the slowest first.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let ways = [
            Some(Self::Portable),
            #[cfg(target_arch = "x86_64")]
            std::arch::is_x86_feature_detected!("avx2").then_some(Self::Avx2(Proof(()))),
            #[cfg(target_arch = "x86_64")]
            std::arch::is_x86_feature_detected!("avx512f").then_some(Self::Avx512(Proof(()))),
        ];
        ways.into_iter().flatten()
    }
}

/// What the stripes so far have come to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lanes([u64; LANES]);

impl Lanes {
    pub(super) const NEW: Self =
        Self([PRIME32_3, PRIME64_1, PRIME64_2, PRIME64_3, PRIME64_4, PRIME32_2, PRIME64_5, PRIME32_1]);

    /// Takes whole blocks; bytes behind the last whole one are left out. More input must follow.
    pub(super) fn blocks(&mut self, way: Way, bytes: &[u8]) {
        match way {
            Way::Portable => blocks(self, bytes),
            // SAFETY: the proof says that the processor has the instructions that the function was compiled for.
            #[cfg(target_arch = "x86_64")]
            Way::Avx2(Proof(())) => unsafe { blocks_avx2(self, bytes) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Way::Avx512(Proof(())) => unsafe { avx512::blocks(self, bytes) },
        }
    }

    /// Takes what is left behind the last whole block, at least one byte and at most a block, and the input's last stripe.
    pub(super) fn end(&mut self, way: Way, rest: &[u8], last: &[u8; STRIPE]) {
        match way {
            Way::Portable => end(self, rest, last),
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Way::Avx2(Proof(())) => unsafe { end_avx2(self, rest, last) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Way::Avx512(Proof(())) => unsafe { avx512::end(self, rest, last) },
        }
    }

    /// The 64 bits for an input of so many bytes, which are the lower ones of the 128 too.
    pub(super) fn low(&self, length: u64) -> u64 {
        self.merge(secret(11), length.wrapping_mul(PRIME64_1))
    }

    /// The upper 64 of the 128 bits.
    pub(super) fn high(&self, length: u64) -> u64 {
        self.merge(secret(SECRET.len() - STRIPE - 11), !length.wrapping_mul(PRIME64_2))
    }

    fn merge(&self, secret: [u64; LANES], start: u64) -> u64 {
        let Self(lanes) = self;
        let mut digest = start;
        for pair in 0..LANES / 2 {
            let low = lanes[2 * pair] ^ secret[2 * pair];
            let high = lanes[2 * pair + 1] ^ secret[2 * pair + 1];
            let product = u128::from(low) * u128::from(high);
            digest = digest.wrapping_add(product as u64 ^ (product >> 64) as u64);
        }
        digest ^= digest >> 37;
        digest = digest.wrapping_mul(0x1656_6791_9E37_79F9);
        digest ^ (digest >> 32)
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn blocks_avx2(lanes: &mut Lanes, bytes: &[u8]) {
    blocks(lanes, bytes);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn end_avx2(lanes: &mut Lanes, rest: &[u8], last: &[u8; STRIPE]) {
    end(lanes, rest, last);
}

/// Lane by lane, so that the compiler makes vectors of it.
#[inline(always)]
fn blocks(lanes: &mut Lanes, bytes: &[u8]) {
    let Lanes(lanes) = lanes;
    for block in bytes.as_chunks::<BLOCK>().0 {
        for (number, stripe) in block.as_chunks::<STRIPE>().0.iter().enumerate() {
            accumulate(lanes, stripe, secret(number * 8));
        }
        scramble(lanes, secret(SECRET.len() - STRIPE));
    }
}

#[inline(always)]
fn end(lanes: &mut Lanes, rest: &[u8], last: &[u8; STRIPE]) {
    let Lanes(lanes) = lanes;
    // The last stripe is always taken from the end, so one that ends there is not a whole one.
    let before = rest.len().saturating_sub(1);
    for (number, stripe) in rest[..before].as_chunks::<STRIPE>().0.iter().enumerate() {
        accumulate(lanes, stripe, secret(number * 8));
    }
    accumulate(lanes, last, secret(SECRET.len() - STRIPE - 7));
}

#[inline(always)]
fn secret(at: usize) -> [u64; LANES] {
    words(SECRET[at..].first_chunk().unwrap_or(&[0; STRIPE]))
}

#[inline(always)]
fn words(stripe: &[u8; STRIPE]) -> [u64; LANES] {
    let mut words = [0; LANES];
    for (word, bytes) in words.iter_mut().zip(stripe.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}

#[inline(always)]
fn accumulate(lanes: &mut [u64; LANES], stripe: &[u8; STRIPE], secret: [u64; LANES]) {
    let input = words(stripe);
    for lane in 0..LANES {
        let keyed = input[lane] ^ secret[lane];
        let product = (keyed & 0xFFFF_FFFF).wrapping_mul(keyed >> 32);
        lanes[lane] = lanes[lane].wrapping_add(input[lane ^ 1]).wrapping_add(product);
    }
}

#[inline(always)]
fn scramble(lanes: &mut [u64; LANES], secret: [u64; LANES]) {
    for lane in 0..LANES {
        let mixed = lanes[lane] ^ (lanes[lane] >> 47) ^ secret[lane];
        lanes[lane] = mixed.wrapping_mul(PRIME32_1);
    }
}
