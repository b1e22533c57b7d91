//! Allocation and import with a driver without a GPU; every call of it fails once.

use rustix::io::FdFlags;

use super::*;
use crate::{Copier, fake};

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn all_that_was_allocated_is_zeroed_and_only_the_descriptor_is_left() {
    let context = fake::context();
    let bytes = fake::GRANULARITY as u64 + 5;
    let allocation = Allocation::create(&context, bytes, PATIENCE).unwrap();
    assert_eq!((allocation.bytes(), allocation.taken()), (bytes, 2 * fake::GRANULARITY as u64));
    let flags = rustix::io::fcntl_getfd(allocation.descriptor()).unwrap();
    assert!(flags.contains(FdFlags::CLOEXEC));
    assert_eq!(fake::leaks(), ["1 contexts"]);

    let whole = Mapped::import(allocation.descriptor(), &context, allocation.taken(), Access::Read);
    let mut copier = Copier::new(Arc::new(whole.unwrap()), PATIENCE).unwrap();
    let mut content = vec![1; 2 * fake::GRANULARITY];
    copier.read(0, &mut content).unwrap();
    assert!(content.iter().all(|byte| *byte == 0));
    assert!(matches!(copier.write(0, b"no"), Err(GpuError::ReadOnly)));
    drop((copier, context));
    assert_eq!(fake::leaks(), [""; 0]);

    let context = fake::context();
    let refused = Mapped::import(allocation.descriptor(), &context, bytes, Access::ReadWrite);
    assert!(matches!(refused, Err(GpuError::Cuda(_))), "nobody knows it any more");
}

#[test]
fn more_bytes_than_there_are_cannot_be_mapped() {
    let context = fake::context();
    let allocation = Allocation::create(&context, 1, PATIENCE).unwrap();
    let import = |bytes| Mapped::import(allocation.descriptor(), &context, bytes, Access::ReadWrite);
    assert!(matches!(import(allocation.taken() + 1), Err(GpuError::Cuda(_))));
    assert!(matches!(import(0), Err(GpuError::Length(0))));
    assert_eq!(fake::leaks(), ["1 contexts"]);
    assert_eq!(import(1).unwrap().len(), 1);
}

#[test]
fn whichever_call_fails_all_is_given_back_but_what_the_gpu_may_use() {
    let mut left = Vec::new();
    for nth in 0.. {
        let context = fake::context();
        let before = fake::with(|state| state.calls());
        fake::with(|state| state.fails = Some(before + nth));
        let done = Allocation::create(&context, 1, PATIENCE)
            .and_then(|allocation| Mapped::import(allocation.descriptor(), &context, 1, Access::ReadWrite));
        drop(context);
        let Some(failed) = fake::with(|state| state.failed) else { break };
        match done {
            // It was to enter the context for giving something back, which goes on without.
            Ok(mapped) => drop(mapped),
            Err(GpuError::Cuda(error)) => assert_eq!(error.code(), fake::INJECTED, "{failed}"),
            Err(other) => panic!("{failed}: {other}"),
        }
        if !fake::leaks().is_empty() {
            left.push(failed);
        }
    }
    // From the begin of the zeros to their end.
    let amid =
        ["cuCtxPushCurrent_v2", "cuEventRecord", "cuCtxPushCurrent_v2", "cuEventQuery", "cuEventQuery"];
    assert_eq!(left, amid);
}

#[test]
fn memory_that_is_never_zeroed_is_never_given_back() {
    let context = fake::context();
    fake::with(|state| state.is_stuck = true);
    let error = Allocation::create(&context, 1, Duration::from_millis(2)).unwrap_err();
    assert!(error.is_end_of_process() && matches!(error, GpuError::TimedOut { .. }), "{error}");
    drop(context);
    assert_eq!(fake::leaks(), ["1 contexts", "1 reservations", "1 mappings"]);
}
