//! Reports of many files, committed by several threads.

use super::*;
use std::os::fd::OwnedFd;
use std::sync::Condvar;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// As long as it takes where threads are worth it.
const SLOW: Duration = Duration::from_millis(20);
/// Threads of one report.
const THREADS: usize = 8;
const FILES: u32 = 40;

/// A root, then directories of ten files.
fn tree() -> Vec<Entry> {
    let mut entries = vec![directory("", 0o755)];
    for at in 0..FILES {
        if at % 10 == 0 {
            entries.push(directory(&format!("{}", at / 10), 0o755));
        }
        entries.push(file(&name(at), 4));
    }
    entries
}

fn name(at: u32) -> String {
    format!("{}/{at:02}", at / 10)
}

/// All files stored, the last one first.
fn stored(fixture: &Fixture, policy: WritePolicy) -> (Destination, Vec<StoredFile>) {
    let mut destination = fixture.accept("out", policy, &tree()).unwrap();
    let indices: Vec<u32> = destination.file_indices().collect();
    let files = indices.iter().rev().map(|index| store(&mut destination, *index, "data").unwrap()).collect();
    (destination, files)
}

/// A fence that is slow for the first, so that threads are started, and then lets nobody through before all of them ask.
#[derive(Default)]
struct Fence {
    asked: Mutex<usize>,
    changed: Condvar,
}

impl Fence {
    fn ask(&self) -> bool {
        let mut asked = self.asked.lock().unwrap();
        *asked += 1;
        if *asked == 1 {
            drop(asked);
            thread::sleep(SLOW);
            return true;
        }
        self.changed.notify_all();
        let long = Duration::from_secs(10);
        let (asked, late) = self.changed.wait_timeout_while(asked, long, |asked| *asked <= THREADS).unwrap();
        assert!(!late.timed_out(), "{asked} have asked");
        true
    }
}

#[test]
fn a_reports_files_are_committed_by_several_threads_and_told_as_by_one() {
    let fixture = Fixture::new();
    let (mut destination, files) = stored(&fixture, WritePolicy::FailIfExists);
    let (fence, mut told) = (Fence::default(), Vec::new());
    destination.commit(&files, &|| fence.ask(), |outcome| told.push(outcome)).unwrap();
    assert_eq!(told, [Committed::Replaced; FILES as usize]);
    assert_eq!(*fence.asked.lock().unwrap(), FILES as usize, "each right before its own naming");
    // The four, the root that holds them, and the volume's, which holds that.
    assert_eq!(destination.touched.len(), 4 + 1 + 1, "each directory once");
    destination.finish(Algorithm::Xxh3, &|| true).unwrap();
    // The agent dies before the success is told: the next attempt knows each file as the run's own.
    destination.keep(Keep::All);
    drop(destination);
    let mut destination = fixture.accept("out", WritePolicy::FailIfExists, &tree()).unwrap();
    let indices: Vec<u32> = destination.file_indices().collect();
    assert!(indices.iter().all(|index| destination.descriptors(*index) == 2));
    let opened = destination.partials(&indices).unwrap();
    for (at, opened) in (0..).zip(opened) {
        let inode = |file: OwnedFd| File::from(file).metadata().unwrap().ino();
        assert_eq!(inode(opened.partial), fs::metadata(fixture.partial(&name(at))).unwrap().ino());
        let standing = fs::metadata(fixture.path("out").join(name(at))).unwrap().ino();
        assert_eq!(opened.existing.map(inode), Some(standing));
    }
}

#[test]
fn of_several_failures_the_first_files_is_told_and_what_was_named_is_known() {
    let fixture = Fixture::new();
    let (mut destination, files) = stored(&fixture, WritePolicy::FailIfExists);
    let foreign = |at| fixture.write(&format!("out/{}", name(at)), "foreign");
    // All but the first; eight of them are at the fence at once.
    (1..FILES).for_each(|at| drop(foreign(at)));
    let (fence, mut told) = (Fence::default(), Vec::new());
    let failure = destination.commit(&files, &|| fence.ask(), |outcome| told.push(outcome)).unwrap_err();
    assert!(failure.reason == Reason::DestinationExists && failure.message.contains("out/0/01"), "{failure}");
    assert_eq!(told, [Committed::Replaced]);
    assert_eq!(*fence.asked.lock().unwrap(), 1 + THREADS, "nothing is begun after a failure");
    let known = destination.files.values().filter(|state| matches!(state, FileState::Committed { .. }));
    assert_eq!(known.count(), 1);
}

#[test]
fn a_fence_that_falls_stops_all_threads() {
    let fixture = Fixture::new();
    let (mut destination, files) = stored(&fixture, WritePolicy::Overwrite);
    let (fence, mut told) = (Fence::default(), 0);
    let first = AtomicBool::new(true);
    let falls = || fence.ask() && first.swap(false, Ordering::Relaxed);
    let failure = destination.commit(&files, &falls, |_| told += 1).unwrap_err();
    assert_eq!((failure.reason, told), (Reason::AgentNotReady, 1));
    let named = (0..FILES).filter(|at| fixture.path("out").join(name(*at)).exists());
    assert_eq!(named.count(), 1);
}

#[test]
fn a_file_that_is_named_twice_in_a_report_is_committed_once() {
    let fixture = Fixture::new();
    let (mut destination, mut files) = stored(&fixture, WritePolicy::Overwrite);
    // Files come from the last to the first; the twin of the third is not beside it.
    let third = files[FILES as usize - 3].clone();
    files.insert(0, third);
    let mut told = 0;
    let failure = destination.commit(&files, &|| true, |_| told += 1).unwrap_err();
    assert!(failure.reason == Reason::IntegrityError && failure.message.contains("out/0/02"), "{failure}");
    assert_eq!(told, 3, "those up to it, in the manifest's order");
}

#[test]
fn openings_are_all_refused_when_one_cannot_be() {
    let fixture = Fixture::new();
    let mut destination = fixture.accept("out", WritePolicy::Overwrite, &tree()).unwrap();
    let failure = destination.partials(&[2, 3, 2]).unwrap_err();
    assert!(failure.message.contains("out/0/00 in volume data was begun before"), "{failure}");
    assert!(destination.files.is_empty());
    // Held by a worker that lives on.
    let held = [1, 3].map(|at| hold(&fixture, at));
    let failure = destination.partials(&[2, 3, 4, 5, 6, 7]).unwrap_err();
    assert!(failure.message.contains(&partial_name(name(1).as_bytes())), "{failure}");
    drop((destination, held));
}

/// A partial file, locked as by an earlier attempt.
fn hold(fixture: &Fixture, at: u32) -> File {
    let path = fixture.partial(&name(at));
    let file = File::create(path).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    file
}
