//! What needs an NVIDIA GPU. Ignored by default; `cargo xtask test --gpu` runs it, one test at a time, since some look at how
//! much memory is free. Without a GPU every test fails and says so.

mod peer;

use std::{
    os::fd::AsFd,
    ptr::NonNull,
    sync::Arc,
    time::{Duration, Instant},
};

use nixl_transfer_gpu::{
    Access, Allocation, Context, Copier, Driver, GpuError, Mapped, Pinned, SLOT_BYTES, ipc, ipc::Shared,
};
use peer::Peer;
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create},
    mm::{MapFlags, ProtFlags, mmap},
};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Deadline of everything that should take milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);
const MIB: u64 = 1 << 20;

/// The first GPU's context; fails with the reason when there is none.
fn context() -> Arc<Context> {
    let driver = Driver::load().unwrap_or_else(|absent| panic!("{absent}"));
    Context::retain(&driver.devices().unwrap()[0]).unwrap()
}

/// Bytes of a seed; no two seeds share a word at the same place, and no two places a word of one seed.
fn pattern(seed: u64, bytes: u64) -> Vec<u8> {
    let word = |at: u64| (at ^ (seed << 40)).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    let mut pattern: Vec<u8> = (0..bytes.div_ceil(8)).flat_map(word).collect();
    pattern.truncate(usize::try_from(bytes).unwrap());
    pattern
}

fn import(context: &Arc<Context>, allocation: &Allocation) -> Arc<Mapped> {
    let mapped = Mapped::import(allocation.descriptor(), context, allocation.bytes(), Access::ReadWrite);
    Arc::new(mapped.unwrap())
}

fn copier(memory: &Arc<Mapped>) -> Copier {
    Copier::new(Arc::clone(memory), PATIENCE).unwrap()
}

fn content(memory: &Arc<Mapped>) -> Vec<u8> {
    let mut bytes = vec![0xee; usize::try_from(memory.len()).unwrap()];
    copier(memory).read(0, &mut bytes).unwrap();
    bytes
}

#[test]
#[ignore = "needs an NVIDIA GPU: cargo xtask test --gpu"]
fn devices_are_found_by_names_that_mean_the_same_everywhere() {
    let driver = Driver::load().unwrap_or_else(|absent| panic!("{absent}"));
    for device in driver.devices().unwrap() {
        assert!(device.bytes() > 0 && !device.model().is_empty(), "{device:?}");
        assert_eq!(driver.device(device.uuid()).unwrap().unwrap().index(), device.index());
        let address = device.address().expect("a PCI address");
        let found = driver.device_at(format!("0000{address}").to_uppercase().parse().unwrap()).unwrap();
        assert_eq!(found.unwrap().uuid(), device.uuid(), "as NVML writes it");
    }
}

#[test]
#[ignore = "needs an NVIDIA GPU: cargo xtask test --gpu"]
fn new_memory_is_zeroed_however_much_was_rounded_and_whatever_was_there() {
    let context = context();
    for bytes in [64 * MIB, 64 * MIB - 4097, 1] {
        let allocation = Allocation::create(&context, bytes, PATIENCE).unwrap();
        assert!(allocation.taken() >= bytes && allocation.bytes() == bytes);
        let memory = import(&context, &allocation);
        assert!(content(&memory).iter().all(|byte| *byte == 0), "{bytes}");
        // What the next one would show if it were not zeroed.
        copier(&memory).write(0, &pattern(7, bytes)).unwrap();
    }
}

#[test]
#[ignore = "needs an NVIDIA GPU: cargo xtask test --gpu"]
fn copies_of_odd_lengths_at_odd_places_are_exact_and_touch_nothing_else() {
    let context = context();
    let allocation = Allocation::create(&context, 9 * MIB, PATIENCE).unwrap();
    let memory = import(&context, &allocation);
    let (mut copier, mut expected) = (copier(&memory), vec![0; 9 << 20]);
    let slot = SLOT_BYTES as u64;
    for (seed, (offset, bytes)) in [
        (0, 1),
        (3, slot - 1),
        (4097, slot),
        (MIB + 5, slot + 1),
        (2 * MIB + 1, 5 * slot + 77),
        (9 * MIB - 3, 3),
    ]
    .into_iter()
    .enumerate()
    {
        let new = pattern(seed as u64 + 1, bytes);
        copier.write(offset, &new).unwrap();
        expected[offset as usize..][..new.len()].copy_from_slice(&new);
        let mut back = vec![0; new.len()];
        copier.read(offset, &mut back).unwrap();
        assert!(back == new, "{bytes} bytes at {offset}");
    }
    copier.write(9 * MIB, &[]).unwrap();
    assert!(content(&memory) == expected);
}

#[test]
#[ignore = "needs an NVIDIA GPU: cargo xtask test --gpu"]
#[allow(unsafe_code, clippy::undocumented_unsafe_blocks)] // slots in a mapping that lives until the process ends
fn slots_of_a_sealed_memfd_are_pinned_once_and_copied_from_and_to() {
    let context = context();
    let length = 8 * SLOT_BYTES;
    let memfd = memfd_create("slots", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&memfd, length as u64).unwrap();
    fcntl_add_seals(&memfd, SealFlags::SHRINK | SealFlags::GROW).unwrap();
    let rights = ProtFlags::READ | ProtFlags::WRITE;
    let start = unsafe {
        mmap(std::ptr::null_mut(), length, rights, MapFlags::SHARED | MapFlags::POPULATE, &memfd, 0)
    };
    let start = NonNull::new(start.unwrap().cast::<u8>()).unwrap();
    let pinned = unsafe { Pinned::register(&context, start, length, Access::ReadWrite) }.unwrap();
    let again = unsafe { Pinned::register(&context, start, length, Access::ReadWrite) };
    assert!(matches!(again, Err(GpuError::Cuda(error)) if error.code() == 712), "pinned twice");

    let slots = unsafe { std::slice::from_raw_parts_mut(pinned.address() as *mut u8, length) };
    let allocation = Allocation::create(&context, length as u64, PATIENCE).unwrap();
    let memory = import(&context, &allocation);
    let mut copier = copier(&memory);
    let bytes = pattern(1, length as u64);
    slots.copy_from_slice(&bytes);
    for (index, slot) in slots.chunks(SLOT_BYTES).enumerate() {
        unsafe { copier.to_device((index * SLOT_BYTES) as u64, slot) }.unwrap();
    }
    copier.wait().unwrap();
    slots.fill(0);
    for (index, slot) in slots.chunks_mut(SLOT_BYTES).enumerate() {
        unsafe { copier.to_host((index * SLOT_BYTES) as u64, slot) }.unwrap();
    }
    copier.wait().unwrap();
    assert!(slots == bytes);
    drop(pinned);
    drop(unsafe { Pinned::register(&context, start, length, Access::ReadWrite) }.unwrap());
}

#[test]
#[ignore = "needs an NVIDIA GPU: cargo xtask test --gpu"]
fn what_lies_outside_or_is_only_for_reading_is_refused_and_the_context_lives_on() {
    let context = context();
    let allocation = Allocation::create(&context, MIB + 1, PATIENCE).unwrap();
    let only_read = Mapped::import(allocation.descriptor(), &context, MIB + 1, Access::Read).unwrap();
    let mut reader = copier(&Arc::new(only_read));
    assert!(matches!(reader.write(0, b"no"), Err(GpuError::ReadOnly)));
    let mut bytes = [1; 2];
    reader.read(0, &mut bytes).unwrap();
    assert_eq!(bytes, [0; 2]);

    let mut writer = copier(&import(&context, &allocation));
    // The allocation is rounded up, and what was added is not part of it.
    assert!(matches!(writer.write(MIB, b"no"), Err(GpuError::Range { .. })));
    assert!(matches!(writer.read(u64::MAX, &mut bytes), Err(GpuError::Range { .. })));
    writer.write(MIB, b"y").unwrap();
}

#[test]
#[ignore = "needs an NVIDIA GPU: cargo xtask test --gpu"]
fn a_wrong_length_or_descriptor_is_refused_and_the_context_lives_on() {
    let context = context();
    let allocation = Allocation::create(&context, 4 * MIB, PATIENCE).unwrap();
    let too_long =
        Mapped::import(allocation.descriptor(), &context, allocation.taken() + 1, Access::ReadWrite);
    assert!(matches!(too_long, Err(GpuError::Cuda(_))), "{too_long:?}");
    let nothing = Mapped::import(allocation.descriptor(), &context, 0, Access::ReadWrite);
    assert!(matches!(nothing, Err(GpuError::Length(0))), "{nothing:?}");
    let nvidiactl = std::fs::OpenOptions::new().read(true).write(true).open("/dev/nvidiactl").unwrap();
    let no_memory = Mapped::import(nvidiactl.as_fd(), &context, MIB, Access::ReadWrite);
    assert!(matches!(no_memory, Err(GpuError::Cuda(_))), "{no_memory:?}");
    let memory = import(&context, &allocation);
    copier(&memory).write(0, &pattern(1, 4 * MIB)).unwrap();
    assert!(content(&memory) == pattern(1, 4 * MIB));
}

#[test]
#[ignore = "needs an NVIDIA GPU: cargo xtask test --gpu"]
fn a_digest_read_back_is_that_of_the_source() {
    let context = context();
    let bytes = pattern(3, 37 * MIB + 11);
    let allocation = Allocation::create(&context, bytes.len() as u64, PATIENCE).unwrap();
    let mut copier = copier(&import(&context, &allocation));
    copier.write(0, &bytes).unwrap();
    for range in [0..bytes.len(), 5..bytes.len() - 7, 9..9] {
        let mut digest = Xxh3::new();
        copier.digest_with(range.start as u64..range.end as u64, |piece| digest.update(piece)).unwrap();
        assert_eq!(digest.digest(), xxh3_64(&bytes[range]));
    }
}

#[test]
#[ignore = "needs an NVIDIA GPU: cargo xtask test --gpu"]
fn two_processes_share_memory_by_its_descriptor() {
    let context = context();
    let allocation = Allocation::create(&context, 32 * MIB + 3, PATIENCE).unwrap();
    let memory = import(&context, &allocation);
    copier(&memory).write(0, &pattern(1, memory.len())).unwrap();
    let mut peer = Peer::start();
    peer.ask(&format!("import {}", memory.len()), Some(allocation.descriptor()));
    peer.ask("check 1", None);
    peer.ask("write 2", None);
    assert!(content(&memory) == pattern(2, memory.len()), "what the peer has written");
}

#[test]
#[ignore = "needs an NVIDIA GPU: cargo xtask test --gpu"]
fn the_descriptor_alone_keeps_memory_whose_holder_was_killed() {
    let context = context();
    let bytes = 1024 * MIB;
    let free = || context.free_and_total().unwrap().0;
    // Contexts come and go with processes, some 530 MiB each: compared is before and after with none but ours.
    let before = free();
    let mut holder = Peer::start();
    let (_, descriptor) = holder.ask(&format!("create {bytes} 5"), None);
    let descriptor = descriptor.expect("a descriptor");
    holder.kill();
    let taken = || before.saturating_sub(free());
    within("the holder's context is gone", || (bytes - 64 * MIB..bytes + 300 * MIB).contains(&taken()));

    let memory = Mapped::import(descriptor.as_fd(), &context, bytes, Access::ReadWrite).unwrap();
    drop(descriptor);
    let memory = Arc::new(memory);
    let mut digest = Xxh3::new();
    copier(&memory).digest_with(0..bytes, |piece| digest.update(piece)).unwrap();
    assert_eq!(digest.digest(), xxh3_64(&pattern(5, bytes)), "the bytes that the holder has written");
    drop(memory);
    within("the memory is free", || taken() < 64 * MIB);
}

#[test]
#[ignore = "needs an NVIDIA GPU: cargo xtask test --gpu"]
fn memory_of_another_process_is_opened_by_a_handle_unless_its_length_is_a_lie() {
    let context = context();
    let mut holder = Peer::start();
    let (answer, _) = holder.ask("share 33554432 6", None);
    let announced = peer::announced(&answer);
    let lie = ipc::Announced { allocation: announced.allocation + 2 * MIB, ..announced };
    let refused = ipc::open(&context, &lie, Access::ReadWrite);
    assert!(
        matches!(refused, Err(GpuError::Size { found, .. }) if found == announced.allocation),
        "{refused:?}"
    );
    let part = ipc::Announced { offset: 4096, bytes: 8192, ..announced };
    let memory = Arc::new(ipc::open(&context, &part, Access::ReadWrite).unwrap());
    assert!(content(&memory) == pattern(6, announced.allocation)[4096..4096 + 8192], "the context lives on");
    copier(&memory).write(0, &[9; 8192]).unwrap();
    let whole = Arc::new(ipc::open(&context, &announced, Access::Read).unwrap());
    assert!(content(&whole)[4096..4096 + 8192] == [9; 8192]);
    drop(memory);

    // Stale, never foreign; and when nobody has it open any more, nobody can open it.
    holder.kill();
    let read = content(&whole);
    assert!(read[..4096] == pattern(6, 4096));
    drop(whole);
    assert!(ipc::open(&context, &announced, Access::Read).is_err());
}

#[test]
#[ignore = "needs an NVIDIA GPU: cargo xtask test --gpu"]
fn a_handle_of_this_process_or_of_no_memory_is_refused_and_the_context_lives_on() {
    let context = context();
    let own = Shared::allocate(&context, 4 * MIB).unwrap();
    let refused = ipc::open(&context, &own.announce(0, MIB).unwrap(), Access::Read);
    assert!(matches!(refused, Err(GpuError::Cuda(error)) if error.code() == 201));
    for byte in [0, 0xa5] {
        let handle = ipc::Handle::from_bytes(&[byte; 64]).unwrap();
        let none = ipc::Announced { handle, allocation: MIB, offset: 0, bytes: MIB };
        assert!(matches!(ipc::open(&context, &none, Access::Read), Err(GpuError::Cuda(_))));
    }
    copier(own.memory()).write(0, &pattern(1, 4 * MIB)).unwrap();
    assert!(content(own.memory()) == pattern(1, 4 * MIB));
}

/// The other process: does what it is asked for until the test ends. Nothing when it is run by itself.
#[test]
#[ignore = "needs an NVIDIA GPU: cargo xtask test --gpu"]
fn another_process() {
    if std::env::var_os(peer::ROLE).is_some() {
        peer::serve(&context());
    }
}

fn within(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
