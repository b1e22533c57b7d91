//! How a worker's main thread ends; what it does with NIXL is shown by the tests with real processes.

use super::*;
use crate::protocol::FileToRead;

#[test]
fn answers_heartbeats_and_ends_with_its_socket() {
    let (control, worker) = Channel::pair().expect("a pair");
    let thread = std::thread::spawn(move || serve(&worker, Duration::from_secs(5)));
    control.set_timeouts(None, Some(Duration::from_secs(5))).expect("timeouts");
    control.send(&ToWorker::Ping { sequence: 7 }, &[]).expect("sent");
    let (answer, _) = control.receive::<FromWorker>().expect("an answer");
    assert!(matches!(answer, FromWorker::Pong { sequence: 7 }), "{answer:?}");
    drop(control);
    assert_eq!(thread.join().expect("no panic"), Ending::Closed);
}

#[test]
fn ends_without_heartbeats() {
    let (control, worker) = Channel::pair().expect("a pair");
    let started = Instant::now();
    let thread = std::thread::spawn(move || serve(&worker, Duration::from_millis(300)));
    assert_eq!(thread.join().expect("no panic"), Ending::Silent);
    assert!(started.elapsed() >= Duration::from_millis(300));
    drop(control);
}

/// Other messages are no heartbeat: a control whose pings have stopped is hung.
#[test]
fn other_messages_are_no_heartbeat() {
    let (control, worker) = Channel::pair().expect("a pair");
    let thread = std::thread::spawn(move || serve(&worker, Duration::from_millis(300)));
    let started = Instant::now();
    while !thread.is_finished() && started.elapsed() < Duration::from_secs(10) {
        // It may end between the question and this; then the socket is closed.
        let _ = control.send(&ToWorker::Close { hop: HopId(1) }, &[]);
        std::thread::park_timeout(Duration::from_millis(20));
    }
    assert_eq!(thread.join().expect("no panic"), Ending::Silent);
}

#[test]
fn what_no_control_says_ends_it() {
    let (control, worker) = Channel::pair().expect("a pair");
    let thread = std::thread::spawn(move || serve(&worker, Duration::from_secs(5)));
    let files = [1, 2].map(|index| FileToRead { index, known: None, memory: false }).into();
    control.send(&ToWorker::Files { hop: HopId(1), files }, &[]).expect("sent");
    assert!(matches!(thread.join().expect("no panic"), Ending::Broken(_)));
}
