//! XXH3-64 of a chunk. `xxhash-rust` chooses its instructions when it is compiled, which for a portable binary means
//! SSE2; here the loop over long input is compiled for AVX-512 and AVX2 too and chosen at run time. Same result. Pure.
#![allow(unsafe_code)] // calling a function that was compiled for instructions found at run time

use xxhash_rust::xxh3::xxh3_64;

const STRIPE: usize = 64;
const LANES: usize = STRIPE / 8;
const STRIPES_PER_BLOCK: usize = (SECRET.len() - STRIPE) / 8;
const BLOCK: usize = STRIPE * STRIPES_PER_BLOCK;
/// Below this the portable code is as good.
const LONG: usize = 4096;

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

#[cfg(all(feature = "null-digest", not(debug_assertions)))]
compile_error!("null-digest is for a benchmark: what is built with it notices no damage");

/// The digest that stands in a chunk's notification: XXH3-64 with seed 0.
pub fn chunk_digest(bytes: &[u8]) -> u64 {
    if cfg!(feature = "null-digest") {
        return 0;
    }
    if bytes.len() < LONG {
        return xxh3_64(bytes);
    }
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512dq") {
            // SAFETY: the processor has the instructions that the function was compiled for.
            return unsafe { long_avx512(bytes) };
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { long_avx2(bytes) };
        }
    }
    xxh3_64(bytes)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq")]
fn long_avx512(bytes: &[u8]) -> u64 {
    long(bytes)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn long_avx2(bytes: &[u8]) -> u64 {
    long(bytes)
}

/// XXH3's loop for input beyond 240 bytes, lane by lane, so that the compiler makes vectors of it.
#[inline(always)]
fn long(bytes: &[u8]) -> u64 {
    let mut lanes = [PRIME32_3, PRIME64_1, PRIME64_2, PRIME64_3, PRIME64_4, PRIME32_2, PRIME64_5, PRIME32_1];
    // The last stripe is always taken from the end, so a block that ends there is not a whole one.
    let whole = (bytes.len() - 1) / BLOCK * BLOCK;
    let (blocks, rest) = bytes.split_at(whole);
    for block in blocks.as_chunks::<BLOCK>().0 {
        for (number, stripe) in block.as_chunks::<STRIPE>().0.iter().enumerate() {
            accumulate(&mut lanes, stripe, secret(number * 8));
        }
        scramble(&mut lanes, secret(SECRET.len() - STRIPE));
    }
    let stripes = rest[..rest.len() - 1].as_chunks::<STRIPE>().0;
    for (number, stripe) in stripes.iter().enumerate() {
        accumulate(&mut lanes, stripe, secret(number * 8));
    }
    if let Some(last) = bytes.last_chunk::<STRIPE>() {
        accumulate(&mut lanes, last, secret(SECRET.len() - STRIPE - 7));
    }
    merge(&lanes, (bytes.len() as u64).wrapping_mul(PRIME64_1))
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

#[inline(always)]
fn merge(lanes: &[u64; LANES], start: u64) -> u64 {
    let secret = secret(11);
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
            if length > 240 {
                assert_eq!(long(part), xxh3_64(part), "the loop itself, length {length}");
            }
        }
    }
}
