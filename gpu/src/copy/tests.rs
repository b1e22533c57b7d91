//! Copies with a driver that does them as late as it may.
#![allow(unsafe_code)] // the calls that go on after they have returned

use super::*;
use crate::{Access, Allocation, fake, ipc::Shared};

const PATIENCE: Duration = Duration::from_secs(10);

fn copier(bytes: u64, patience: Duration) -> (Shared, Copier) {
    let shared = Shared::allocate(&fake::context(), bytes).unwrap();
    let copier = Copier::new(Arc::clone(shared.memory()), patience).unwrap();
    (shared, copier)
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8).collect()
}

#[test]
fn bytes_of_any_length_are_copied_two_pieces_at_a_time() {
    let slot = SLOT_BYTES;
    let (shared, mut copier) = copier(6 * SLOT_BYTES as u64, PATIENCE);
    for (offset, length) in [(0, 0), (0, 1), (5, slot - 1), (7, slot), (1, slot + 1), (3, 5 * slot + 9)] {
        let bytes = pattern(length);
        copier.write(offset, &bytes).unwrap();
        let mut back = vec![0; length];
        copier.read(offset, &mut back).unwrap();
        assert!(back == bytes, "{length} bytes at {offset}");
        let (mut pieces, mut read) = (Vec::new(), Vec::new());
        let range = offset..offset + length as u64;
        copier
            .digest_with(range, |piece| {
                pieces.push(piece.len());
                read.extend_from_slice(piece);
            })
            .unwrap();
        assert!(read == bytes && pieces.iter().rev().skip(1).all(|piece| *piece == slot), "{pieces:?}");
    }
    let mut neighbour = [0; 2];
    copier.read(5 * SLOT_BYTES as u64 + 12, &mut neighbour).unwrap();
    assert_eq!(neighbour, [0xaa; 2], "what was there before");
    assert_eq!(fake::with(|state| state.most_in_flight), IN_FLIGHT);
    drop((shared, copier));
    assert_eq!(fake::leaks(), [""; 0]);
}

#[test]
fn slots_of_the_caller_are_copied_two_at_a_time_too() {
    let (_shared, mut copier) = copier(5 * 1000, PATIENCE);
    let (bytes, mut back) = (pattern(5000), vec![0; 5000]);
    for (index, slot) in bytes.chunks(1000).enumerate() {
        // SAFETY: they stay until `wait` has returned, or the test, and with it the driver, has ended.
        unsafe { copier.to_device(index as u64 * 1000, slot) }.unwrap();
    }
    copier.wait().unwrap();
    for (index, slot) in back.chunks_mut(1000).enumerate() {
        // SAFETY: as above.
        unsafe { copier.to_host(index as u64 * 1000, slot) }.unwrap();
    }
    copier.wait().unwrap();
    assert!(back == bytes);
    assert_eq!(fake::with(|state| state.most_in_flight), IN_FLIGHT);
}

#[test]
fn a_panic_of_whoever_hashes_leaves_a_copier_that_works() {
    let (_shared, mut copier) = copier(3 * SLOT_BYTES as u64, PATIENCE);
    let bytes = pattern(3 * SLOT_BYTES);
    copier.write(0, &bytes).unwrap();
    let hash =
        std::panic::AssertUnwindSafe(|| copier.digest_with(0..bytes.len() as u64, |_| panic!("its own")));
    assert!(std::panic::catch_unwind(hash).is_err());
    let mut back = vec![0; bytes.len()];
    copier.read(0, &mut back).unwrap();
    assert!(back == bytes);
}

#[test]
fn after_a_copy_that_never_ends_nothing_begins_and_nothing_is_given_back() {
    let (shared, mut copier) = copier(4096, Duration::from_millis(2));
    fake::with(|state| state.is_stuck = true);
    assert!(matches!(copier.read(0, &mut [0; 9]), Err(GpuError::TimedOut { .. })));
    assert!(matches!(copier.write(0, b"more"), Err(GpuError::Over)));
    assert!(matches!(copier.wait(), Err(GpuError::Over)));
    drop((shared, copier));
    let left = fake::leaks();
    assert_eq!(left, ["1 contexts", "1 mappings", "2 pinned"], "the GPU may be using it");
}

#[test]
fn a_copier_that_is_dropped_waits_for_its_copies() {
    let (shared, mut copier) = copier(4096, Duration::from_millis(2));
    let bytes = pattern(4096);
    // SAFETY: they stay until the copier is dropped.
    unsafe { copier.to_device(0, &bytes) }.unwrap();
    drop(copier);
    let mut back = vec![0; 4096];
    Copier::new(Arc::clone(shared.memory()), PATIENCE).unwrap().read(0, &mut back).unwrap();
    assert!(back == bytes);
}

#[test]
fn an_error_that_ends_the_context_ends_the_copier() {
    let (shared, mut copier) = copier(4096, PATIENCE);
    fake::with(|state| state.broken = 719);
    let error = copier.write(0, b"some").unwrap_err();
    assert!(error.is_end_of_process() && error.to_string().contains("719"), "{error}");
    assert!(matches!(copier.read(0, &mut [0; 1]), Err(GpuError::Over)));
    drop((shared, copier));
}

#[test]
fn what_is_refused_never_reaches_the_driver() {
    let context = fake::context();
    let allocation = Allocation::create(&context, 100, PATIENCE).unwrap();
    let memory = Mapped::import(allocation.descriptor(), &context, allocation.bytes(), Access::Read).unwrap();
    let mut reader = Copier::new(Arc::new(memory), PATIENCE).unwrap();
    let calls = fake::with(|state| state.calls());
    assert!(matches!(reader.write(0, b"no"), Err(GpuError::ReadOnly)));
    // SAFETY: refused.
    assert!(matches!(unsafe { reader.to_device(0, b"no") }, Err(GpuError::ReadOnly)));
    for offset in [100, 4096, u64::MAX] {
        assert!(matches!(reader.read(offset, &mut [0; 1]), Err(GpuError::Range { .. })), "{offset}");
        assert!(matches!(reader.digest_with(99..offset.max(101), |_| {}), Err(GpuError::Range { .. })));
    }
    assert_eq!(fake::with(|state| state.calls()), calls);
}
