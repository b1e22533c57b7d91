//! The same operations awaited in tasks of tokio; the other side blocks a thread.

use std::time::{Duration, Instant};

use crate::Outcome;
use crate::beginning::PAIRS;
use crate::process::Process;
use crate::tasks::SIZES;

#[test]
fn operations_are_awaited_on_a_runtime_of_one_thread() -> Outcome {
    operations_are_awaited("tasks")
}

#[test]
fn operations_are_awaited_on_a_runtime_of_several_threads() -> Outcome {
    operations_are_awaited("thread-pool")
}

fn operations_are_awaited(runtime: &str) -> Outcome {
    let (mut tasks, mut peer) = (Process::start(runtime, "tcp")?, Process::desk()?);
    for (passive, active) in PAIRS {
        let metadata = tasks.tell(passive)?;
        a_wait_can_end_before_the_operation(&mut tasks, "INIT")?;
        peer.begin(active, SIZES, &metadata)?;
        is_done(&mut tasks)?;
        peer.completes(active)?;

        let metadata = peer.offer(passive, SIZES)?;
        peer.stop()?;
        tasks.answers(&format!("{active} {metadata}"), "ok")?;
        a_wait_can_end_before_the_operation(&mut tasks, "PROC")?;
        peer.go_on()?;
        is_done(&mut tasks)?;
        peer.completes(passive)?;
    }
    tasks.ends_well()?;
    peer.ends_well()
}

/// By the deadline that the future has, and with its task. The operation goes on.
fn a_wait_can_end_before_the_operation(tasks: &mut Process, status: &str) -> Outcome {
    let since = Instant::now();
    tasks.refuses("wait 100", "DeadlineExceeded Retryable")?;
    assert!(since.elapsed() >= Duration::from_millis(100), "{:?}", since.elapsed());
    tasks.answers("abort", "aborted")?;
    tasks.answers("status", status)
}

fn is_done(tasks: &mut Process) -> Outcome {
    tasks.answers("twice 30000", "ok")?;
    tasks.answers("wait 0", "ok")?;
    tasks.answers("status", "DONE")?;
    tasks.answers("compare", "equal")?;
    tasks.answers("drop", "ok")?;
    tasks.comes_to("statistics", "endpoints=0 regions=0 in_flight=0")
}

#[test]
fn an_operation_that_starts_in_a_branch_not_taken_leaves_nothing() -> Outcome {
    let (mut tasks, mut peer) = (Process::start("tasks", "tcp")?, Process::desk()?);
    for _ in 0..20 {
        let metadata = peer.offer("readable", SIZES)?;
        tasks.answers("select readable", "ok")?;
        tasks.answers(&format!("select read {metadata}"), "ok")?;
        peer.answers("drop readable", "ok")?;
    }
    // One that was posted before it was dropped ends, for its peer goes on.
    peer.offer("readable", "1")?;
    tasks.comes_to("statistics", "endpoints=0 regions=0 in_flight=0")?;
    tasks.ends_well()?;
    peer.ends_well()
}
