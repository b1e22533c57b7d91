//! The loop in AVX-512, by hand: from the portable text the compiler makes gathers, which are slower than SSE2.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_loadu_si512, _mm512_mul_epu32, _mm512_set1_epi64, _mm512_shuffle_epi32,
    _mm512_slli_epi64, _mm512_srli_epi64, _mm512_storeu_si512, _mm512_xor_si512,
};

use super::{BLOCK, Lanes, PRIME32_1, SECRET, STRIPE};

/// Each pair of lanes the other way round.
const SWAPPED: i32 = 0b01_00_11_10;

#[target_feature(enable = "avx512f")]
pub(super) fn blocks(Lanes(lanes): &mut Lanes, bytes: &[u8]) {
    let mut sums = load(lanes);
    let prime = _mm512_set1_epi64(PRIME32_1 as i64);
    for block in bytes.as_chunks::<BLOCK>().0 {
        for (number, stripe) in block.as_chunks::<STRIPE>().0.iter().enumerate() {
            sums = accumulated(sums, stripe, number * 8);
        }
        let mixed = _mm512_xor_si512(sums, _mm512_srli_epi64::<47>(sums));
        let mixed = _mm512_xor_si512(mixed, load(secret(SECRET.len() - STRIPE)));
        // The product with a factor of 32 bits, of which 64 count.
        let upper = _mm512_mul_epu32(_mm512_srli_epi64::<32>(mixed), prime);
        sums = _mm512_add_epi64(_mm512_mul_epu32(mixed, prime), _mm512_slli_epi64::<32>(upper));
    }
    store(lanes, sums);
}

#[target_feature(enable = "avx512f")]
pub(super) fn end(Lanes(lanes): &mut Lanes, rest: &[u8], last: &[u8; STRIPE]) {
    let mut sums = load(lanes);
    let before = rest.len().saturating_sub(1);
    for (number, stripe) in rest[..before].as_chunks::<STRIPE>().0.iter().enumerate() {
        sums = accumulated(sums, stripe, number * 8);
    }
    store(lanes, accumulated(sums, last, SECRET.len() - STRIPE - 7));
}

#[inline]
#[target_feature(enable = "avx512f")]
fn accumulated(sums: __m512i, stripe: &[u8; STRIPE], at: usize) -> __m512i {
    let input = load(stripe);
    let keyed = _mm512_xor_si512(input, load(secret(at)));
    let product = _mm512_mul_epu32(keyed, _mm512_srli_epi64::<32>(keyed));
    _mm512_add_epi64(_mm512_add_epi64(sums, _mm512_shuffle_epi32::<SWAPPED>(input)), product)
}

#[inline(always)]
fn secret(at: usize) -> &'static [u8; STRIPE] {
    SECRET[at..].first_chunk().unwrap_or(&[0; STRIPE])
}

/// Bytes as large as a register: plain numbers, of which every pattern is one.
trait Register {}
impl Register for [u8; STRIPE] {}
impl Register for [u64; STRIPE / 8] {}

#[inline]
#[target_feature(enable = "avx512f")]
fn load<R: Register>(from: &R) -> __m512i {
    // SAFETY: a whole register's bytes can be read there, at any alignment.
    unsafe { _mm512_loadu_si512(std::ptr::from_ref(from).cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store<R: Register>(to: &mut R, register: __m512i) {
    // SAFETY: a whole register's bytes can be written there, at any alignment.
    unsafe { _mm512_storeu_si512(std::ptr::from_mut(to).cast(), register) }
}
