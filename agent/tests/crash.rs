//! An attempt is killed before each of its system calls, one process for each. Whatever is left, the file shows the old
//! content or the new one, the journal claims nothing that is not there, and the next attempt comes to its end.

mod crash {
    pub mod sequence;
    pub mod trace;
}

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crash::{sequence, trace};
use nixl_transfer_crds::WritePolicy;
use trace::Outcome;

/// Tells the child its directory and policy.
const DIRECTORY: &str = "NIXL_TRANSFER_CRASH_DIRECTORY";
const POLICY: &str = "NIXL_TRANSFER_CRASH_POLICY";
/// Set when it commits many files at once.
const MANY: &str = "NIXL_TRANSFER_CRASH_MANY";

/// More system calls than an attempt can need; without it a child that never ends would be started for ever.
const MOST_CALLS: usize = 2_000;

/// Processes at once: they wait for the disk.
const AT_ONCE: usize = 4;

fn policy(name: &str) -> WritePolicy {
    match name {
        "Overwrite" => WritePolicy::Overwrite,
        "FailIfExists" => WritePolicy::FailIfExists,
        "SkipIdentical" => WritePolicy::SkipIdentical,
        other => panic!("no policy {other}"),
    }
}

#[test]
#[ignore = "the process that is killed; the other tests start it"]
fn child() {
    let root = PathBuf::from(std::env::var_os(DIRECTORY).expect("a directory"));
    let policy = policy(&std::env::var(POLICY).expect("a policy"));
    let outcome = if std::env::var_os(MANY).is_some() {
        let (mut destination, stored) = sequence::store_many(&root, policy).unwrap();
        trace::trace_me();
        sequence::commit_many(&mut destination, &stored).map(|()| destination)
    } else {
        trace::trace_me();
        sequence::attempt(&root, policy)
    };
    // Control removes what a success leaves when the success was told, so no attempt follows a kill in between, and what
    // is removed is what would tell an attempt that nothing foreign stands there.
    if policy == WritePolicy::FailIfExists {
        trace::mark();
        drop(outcome.unwrap());
    } else {
        drop(outcome.unwrap());
        trace::mark();
    }
}

fn killed_before(call: usize, root: &Path, policy: &str, many: bool) -> Outcome {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env(DIRECTORY, root).env(POLICY, policy).stdout(Stdio::null());
    if many {
        command.env(MANY, "");
    }
    trace::run(command, call)
}

/// Tries one call after the other until there is none any more, which the attempt says.
fn each_call(attempt: impl Fn(usize, &Path) -> ControlFlow<()> + Sync) {
    let next = AtomicUsize::new(1);
    let one = || {
        loop {
            let call = next.fetch_add(1, Ordering::Relaxed);
            assert!(call < MOST_CALLS, "the attempt does not end");
            let directory = tempfile::Builder::new().prefix("nixl-transfer-crash-").tempdir().unwrap();
            if attempt(call, directory.path()).is_break() {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(one);
        }
    });
}

/// What an attempt that came to its end has done once all names were given: each directory that has changed was synced,
/// and that once.
fn each_directory_was_synced_once(root: &Path, seen: &trace::Seen, directories: &[&str]) {
    let mut synced = seen.synced.clone();
    synced.sort();
    let root = root.canonicalize().unwrap();
    let expected: Vec<PathBuf> =
        directories.iter().map(|path| root.join(path)).map(|path| path.components().collect()).collect();
    assert_eq!(synced, expected, "{seen:?}");
    assert!(!seen.named_late, "{seen:?}");
}

/// What was seen over all kills.
#[derive(Debug, Default)]
struct Seen {
    kills: usize,
    with_the_new_content: usize,
    without_a_file: usize,
    resumed: BTreeSet<Option<u64>>,
}

/// Kills at every call; `prepare` makes what stands there before, `synced` are the directories that change.
fn every_kill(name: &str, before: Option<&[u8]>, synced: &[&str], prepare: impl Fn(&Path) + Sync) -> Seen {
    let seen = Mutex::new(Seen::default());
    each_call(|call, root| {
        {
            let _files = trace::STARTING.read().unwrap();
            prepare(root);
        }
        let outcome = killed_before(call, root, name, false);
        let content = fs::read(sequence::file(root)).ok();
        let new = content.as_deref() == Some(sequence::NEW);
        assert!(
            new || content.as_deref() == before,
            "killed before call {call} the file shows {:?}",
            content.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        );
        if let Outcome::Finished(traced) = outcome {
            // It came to its end before that call: all were tried.
            assert!(new && traced.threads == 0, "{traced:?}");
            each_directory_was_synced_once(root, &traced, synced);
            return ControlFlow::Break(());
        }
        let _files = trace::STARTING.read().unwrap();
        let resumed = match sequence::next_attempt(root, policy(name)) {
            Ok(resumed) => resumed,
            Err(failure) => panic!("after a kill before call {call} the next attempt fails: {failure}"),
        };
        let mut seen = seen.lock().unwrap();
        seen.kills += 1;
        seen.with_the_new_content += usize::from(new);
        seen.without_a_file += usize::from(content.is_none());
        seen.resumed.insert(resumed);
        ControlFlow::Continue(())
    });
    let seen = seen.into_inner().unwrap();
    println!("{name}: {seen:?}");
    assert!(seen.kills > 40, "so few calls cannot be a whole attempt: {seen:?}");
    assert!((1..seen.kills).contains(&seen.with_the_new_content), "{seen:?}");
    seen
}

fn with_a_file(root: &Path) {
    let path = sequence::file(root);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, sequence::OLD).unwrap();
}

#[test]
fn a_file_that_is_replaced() {
    let seen = every_kill("Overwrite", Some(sequence::OLD), &["out", "out/d"], with_a_file);
    assert_eq!(seen.without_a_file, 0, "its name is never missing");
    assert_eq!(seen.resumed, BTreeSet::from([None, Some(29)]));
}

#[test]
fn a_file_that_was_begun_before() {
    let seen = every_kill("SkipIdentical", Some(sequence::OLD), &["out", "out/d"], |root| {
        with_a_file(root);
        sequence::broken_off(root, WritePolicy::SkipIdentical);
    });
    assert_eq!(seen.without_a_file, 0, "its name is never missing");
    assert_eq!(seen.resumed, BTreeSet::from([None, Some(8), Some(29)]));
}

/// What a killed attempt has put there is no reason for the next one to fail.
#[test]
fn a_file_that_must_not_exist() {
    let seen = every_kill("FailIfExists", None, &["", "out", "out/d"], |_| {});
    assert!(seen.without_a_file > 0);
    assert_eq!(seen.resumed, BTreeSet::from([None, Some(29)]));
}

/// The calls of all threads count, so no two attempts are the same: what must hold does so in each.
#[test]
fn many_files_that_several_threads_commit() {
    for (name, stands, synced) in [
        ("Overwrite", true, &["out", "out/0", "out/1"][..]),
        ("FailIfExists", false, &["", "out", "out/0", "out/1"]),
    ] {
        let (kills, half_done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        each_call(|call, root| {
            let files: Vec<PathBuf> = (0..sequence::MANY).map(|at| sequence::one_of_many(root, at)).collect();
            if stands {
                files.iter().for_each(|file| {
                    fs::create_dir_all(file.parent().unwrap()).unwrap();
                    fs::write(file, sequence::OLD).unwrap();
                });
            }
            let outcome = killed_before(call, root, name, true);
            let shown: Vec<_> = files.iter().map(|file| fs::read(file).ok()).collect();
            let new = shown.iter().filter(|content| content.as_deref() == Some(sequence::NEW)).count();
            let old = stands.then_some(sequence::OLD);
            let former = shown.iter().filter(|content| content.as_deref() == old).count();
            assert_eq!(new + former, files.len(), "killed before call {call} the files show {shown:?}");
            if let Outcome::Finished(traced) = outcome {
                assert!(new == files.len() && traced.threads > 0, "{traced:?}");
                each_directory_was_synced_once(root, &traced, synced);
                return ControlFlow::Break(());
            }
            let _files = trace::STARTING.read().unwrap();
            let next = sequence::store_many(root, policy(name))
                .and_then(|(mut destination, stored)| sequence::commit_many(&mut destination, &stored));
            next.unwrap_or_else(|failure| {
                panic!("after a kill before call {call} the next attempt fails: {failure}")
            });
            assert!(files.iter().all(|file| fs::read(file).unwrap() == sequence::NEW));
            sequence::nothing_is_left(root);
            kills.fetch_add(1, Ordering::Relaxed);
            half_done.fetch_add(usize::from((1..files.len()).contains(&new)), Ordering::Relaxed);
            ControlFlow::Continue(())
        });
        println!("{name}: {kills:?} kills, {half_done:?} of them with some of the files committed");
        assert!(kills.into_inner() > 40 && half_done.into_inner() > 5, "so few calls cannot be all");
    }
}
