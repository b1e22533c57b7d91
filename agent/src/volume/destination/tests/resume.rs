//! What a further attempt goes on with, and what it does not.

use super::*;
use crate::volume::Memory;
use crate::volume::identity::{self, Identity};
use std::os::unix::fs::{PermissionsExt, symlink};

const OVERWRITE: WritePolicy = WritePolicy::Overwrite;

fn digest_of(content: &str) -> Vec<u8> {
    crate::digest::of(Algorithm::Xxh3, content.as_bytes()).bytes
}

fn entry(size: u64, mtime: Time, inode: u64) -> [Entry; 1] {
    [Entry { path: RelativePath::default(), kind: EntryKind::File { size, mode: 0o640, mtime, inode } }]
}

fn accept(destination: &mut Destination, entries: &[Entry]) {
    destination.accept(entries.to_vec(), Some(manifest::totals(entries))).unwrap();
}

/// An attempt that makes the beginning of a file durable, writes on, and ends so that another one may follow.
fn first_attempt(fixture: &Fixture, entries: &[Entry], index: u32, durable: &str, more: &str) {
    let mut destination = fixture.accept("out", OVERWRITE, entries).unwrap();
    let mut partial = File::from(destination.partial(index).unwrap().partial);
    partial.write_all(durable.as_bytes()).unwrap();
    partial.sync_data().unwrap();
    destination.durable(index, durable.len() as u64, &digest_of(durable)).unwrap();
    partial.write_all(more.as_bytes()).unwrap();
    destination.keep(Keep::All);
}

#[test]
fn a_beginning_is_gone_on_with_only_for_the_very_file_that_it_is_of() {
    let later = Time { seconds: OLD.seconds, nanoseconds: OLD.nanoseconds + 1 };
    for (node, next, expected) in [
        ("a", entry(9, OLD, 7), true),
        ("a", entry(8, OLD, 7), false),
        ("a", entry(9, later, 7), false),
        ("a", entry(9, OLD, 8), false),
        // Numbers of another node's file system say nothing; size and time do.
        ("b", entry(9, OLD, 8), true),
        ("b", entry(8, OLD, 7), false),
        ("b", entry(9, later, 7), false),
    ] {
        let fixture = Fixture::new();
        first_attempt(&fixture, &entry(9, OLD, 7), 0, "begun", "…");
        let mut destination = fixture.open_from(node, "out", OVERWRITE).unwrap();
        accept(&mut destination, &next);
        let opened = destination.partial(0).unwrap();
        let wanted = Resume { length: 5, digest: digest_of("begun") };
        assert_eq!(opened.resume, expected.then_some(wanted), "{node} {next:?}");
        let standing = fs::read_to_string(fixture.partial("")).unwrap();
        assert_eq!(standing, if expected { "begun" } else { "" }, "just what the worker is told");
        assert!(opened.existing.is_none() && opened.known.is_none());
        if expected {
            let mut partial = File::options().append(true).open(fixture.partial("")).unwrap();
            partial.write_all(b"done").unwrap();
            attributes::set(&partial, 0o640, OLD).unwrap();
            let stored = StoredFile { index: 0, digest: digest_of("begundone"), identical: false };
            assert_eq!(destination.commit_one(&stored, &|| true).unwrap(), Committed::Replaced);
            assert_eq!(fs::read_to_string(fixture.path("out")).unwrap(), "begundone");
        }
        drop(opened);
        drop(destination);
        assert!(fixture.partials().is_empty(), "{node} {next:?}");
    }
}

/// A partial that was given up is no longer spoken of, also when the file of old comes back.
#[test]
fn what_did_not_fit_once_is_forgotten() {
    let fixture = Fixture::new();
    first_attempt(&fixture, &entry(9, OLD, 7), 0, "begun", "");
    let mut destination = fixture.accept("out", OVERWRITE, &entry(9, OLD, 8)).unwrap();
    let mut partial = File::from(destination.partial(0).unwrap().partial);
    partial.write_all(b"other bytes").unwrap();
    destination.durable(0, 5, &digest_of("other")).unwrap();
    destination.durable(0, 0, &digest_of("")).unwrap();
    destination.keep(Keep::All);
    drop(destination);
    drop(partial);
    assert!(!fixture.partial("").exists(), "it had nothing durable any more");
    let mut destination = fixture.accept("out", OVERWRITE, &entry(9, OLD, 7)).unwrap();
    assert_eq!(destination.partial(0).unwrap().resume, None);
    drop(destination);

    // The attempt in between was killed: what it wrote is longer than what was durable, and is something else.
    first_attempt(&fixture, &entry(9, OLD, 7), 0, "begun", "");
    let mut destination = fixture.accept("out", OVERWRITE, &entry(9, OLD, 8)).unwrap();
    destination.keep(Keep::All);
    drop(destination);
    let mut destination = fixture.open("out", OVERWRITE).unwrap();
    fs::write(fixture.partial(""), "other bytes").unwrap();
    accept(&mut destination, &entry(9, OLD, 7));
    assert_eq!(destination.partial(0).unwrap().resume, None);
}

#[test]
fn a_partial_that_is_not_as_it_was_left() {
    type Change = fn(&Path);
    let cases: [(&str, Change, bool); 6] = [
        ("as it was", |_| {}, true),
        ("gone", |path| fs::remove_file(path).unwrap(), false),
        ("cut", |path| File::options().write(true).open(path).unwrap().set_len(4).unwrap(), false),
        ("with a second name", |path| fs::hard_link(path, path.with_file_name("x")).unwrap(), false),
        ("given its mode", |path| fs::set_permissions(path, PermissionsExt::from_mode(0o400)).unwrap(), true),
        (
            "a link",
            |path| {
                fs::remove_file(path).unwrap();
                symlink("../../out", path).unwrap();
            },
            false,
        ),
    ];
    for (name, change, expected) in cases {
        let fixture = Fixture::new();
        fixture.write("out", "foreign and long");
        first_attempt(&fixture, &entry(9, OLD, 7), 0, "begun", "");
        change(&fixture.partial(""));
        let mut destination = fixture.accept("out", OVERWRITE, &entry(9, OLD, 7)).unwrap();
        let opened = destination.partial(0).unwrap();
        assert_eq!(opened.resume.is_some(), expected, "{name}");
        assert_eq!(fs::metadata(fixture.partial("")).unwrap().mode() & 0o7777, 0o600, "{name}");
        assert_eq!(fs::read_to_string(fixture.path("out")).unwrap(), "foreign and long", "{name}");
    }
}

#[test]
fn what_a_worker_calls_durable_is_checked() {
    let fixture = Fixture::new();
    let mut destination = fixture.accept("out", OVERWRITE, &entry(9, OLD, 7)).unwrap();
    let digest = digest_of("four");
    assert_eq!(destination.durable(0, 4, &digest).unwrap_err().reason, Reason::IntegrityError, "not begun");
    let mut partial = File::from(destination.partial(0).unwrap().partial);
    partial.write_all(b"four").unwrap();
    for (index, length, digest) in
        [(0, 5, &digest[..]), (0, 10, &digest), (0, 4, &digest[1..]), (1, 4, &digest)]
    {
        assert!(destination.durable(index, length, digest).is_err(), "{index} {length}");
    }
    destination.durable(0, 4, &digest).unwrap();
    let held = File::open(fixture.partial("")).unwrap();
    fs::remove_file(fixture.partial("")).unwrap();
    fs::write(fixture.partial(""), "evil").unwrap();
    assert!(destination.durable(0, 4, &digest).is_err(), "another file under the partial's name");
    drop(held);
}

/// All of a hop but its end: the next attempt follows.
fn committed(fixture: &Fixture, policy: WritePolicy, entries: &[Entry], content: &str) {
    let mut destination = fixture.accept("out", policy, entries).unwrap();
    for index in destination.file_indices().collect::<Vec<_>>() {
        let stored = store(&mut destination, index, content).unwrap();
        destination.commit_one(&stored, &|| true).unwrap();
    }
    destination.finish(Algorithm::Xxh3, &|| true).unwrap();
    destination.keep(Keep::All);
}

#[test]
fn what_this_run_has_committed_is_compared_whatever_the_policy_is() {
    for policy in [OVERWRITE, WritePolicy::FailIfExists, WritePolicy::SkipIdentical] {
        let fixture = Fixture::new();
        let entries = [directory("", 0o755), file("a", 4), file("b", 4), link("l", "a")];
        committed(&fixture, policy, &entries, "data");
        let before = fixture.path("out/a").metadata().unwrap().ino();
        let mut destination = fixture.accept("out", policy, &entries).unwrap();
        let opened = destination.partial(1).unwrap();
        assert!(opened.existing.is_some() && opened.resume.is_none(), "{policy:?}");
        // Nothing was written to the partial file, and nothing need be.
        let same = StoredFile { index: 1, digest: digest_of("data"), identical: true };
        assert_eq!(destination.commit_one(&same, &|| true).unwrap(), Committed::Skipped, "{policy:?}");
        // The source has changed: what we have put there ourselves may be replaced.
        let stored = store(&mut destination, 2, "atad").unwrap();
        assert!(!stored.identical);
        assert_eq!(destination.commit_one(&stored, &|| true).unwrap(), Committed::Replaced, "{policy:?}");
        destination.finish(Algorithm::Xxh3, &|| true).unwrap();
        drop(destination);
        assert_eq!(fixture.path("out/a").metadata().unwrap().ino(), before);
        assert_eq!(fs::read_to_string(fixture.path("out/b")).unwrap(), "atad");
        assert!(fixture.partials().is_empty());
    }
}

/// What is skipped keeps its mode and time, so it is skipped only when they are those of the source as it is now.
#[test]
fn what_the_source_has_other_attributes_of_since_is_sent_again() {
    let later = Time { seconds: OLD.seconds, nanoseconds: OLD.nanoseconds + 1 };
    let next = |mode, mtime| {
        [Entry { path: RelativePath::default(), kind: EntryKind::File { size: 4, mode, mtime, inode: 7 } }]
    };
    for (policy, mode, mtime, compared) in [
        (OVERWRITE, 0o640, OLD, true),
        // Of the mode only permission bits are carried over.
        (OVERWRITE, 0o4640, OLD, true),
        (OVERWRITE, 0o600, OLD, false),
        (OVERWRITE, 0o640, later, false),
        (WritePolicy::FailIfExists, 0o600, OLD, false),
        (WritePolicy::FailIfExists, 0o640, later, false),
        (WritePolicy::SkipIdentical, 0o600, later, true),
    ] {
        let fixture = Fixture::new();
        committed(&fixture, policy, &entry(4, OLD, 7), "data");
        let mut destination = fixture.open("out", policy).unwrap();
        accept(&mut destination, &next(mode, mtime));
        let stored = store(&mut destination, 0, "data").unwrap();
        assert_eq!(stored.identical, compared, "{policy:?} {mode:o} {mtime:?}");
        destination.commit_one(&stored, &|| true).unwrap();
        drop(destination);
        if policy != WritePolicy::SkipIdentical {
            let stat = fixture.path("out").metadata().unwrap();
            assert_eq!(stat.mode() & 0o7777, mode & 0o777, "{policy:?} {mode:o}");
            assert_eq!(stat.mtime_nsec(), i64::from(mtime.nanoseconds), "{policy:?} {mode:o}");
        }
    }
}

#[test]
fn without_a_journal_or_after_a_change_it_is_a_strangers() {
    type Change = fn(&Fixture);
    let changes: [(&str, Change); 4] = [
        ("touched", |fixture| {
            let path = fixture.path("out/a");
            let before = path.metadata().unwrap();
            File::options().write(true).open(&path).unwrap().write_all(b"atad").unwrap();
            // Put back is its time, but not that of the last change, as soon as the file system's clock has gone on.
            loop {
                let file = File::options().write(true).open(&path).unwrap();
                file.set_modified(before.modified().unwrap()).unwrap();
                if path.metadata().unwrap().ctime_nsec() != before.ctime_nsec() {
                    break;
                }
            }
        }),
        ("replaced", |fixture| {
            fs::write(fixture.path("out/new"), "data").unwrap();
            fs::rename(fixture.path("out/new"), fixture.path("out/a")).unwrap();
        }),
        ("its link replaced", |fixture| {
            symlink("a", fixture.path("out/new")).unwrap();
            fs::rename(fixture.path("out/new"), fixture.path("out/l")).unwrap();
        }),
        ("no journal", |fixture| fs::remove_dir_all(&fixture.partials()[0]).unwrap()),
    ];
    for (name, change) in changes {
        let fixture = Fixture::new();
        let entries = [directory("", 0o755), file("a", 4), file("b", 4), link("l", "a")];
        committed(&fixture, WritePolicy::FailIfExists, &entries, "data");
        change(&fixture);
        let failure = fixture.accept("out", WritePolicy::FailIfExists, &entries).unwrap_err();
        assert_eq!(failure.reason, Reason::DestinationExists, "{name}");
    }
}

/// A kill between the two leaves the record from before the naming.
#[test]
fn a_file_whose_commit_was_not_told_is_ours_too() {
    let fixture = Fixture::new();
    committed(&fixture, WritePolicy::FailIfExists, &entry(4, OLD, 7), "data");
    let journal = fixture.partials()[0].join("journal");
    let length = fs::metadata(&journal).unwrap().len();
    File::options().write(true).open(&journal).unwrap().set_len(length - 1).unwrap();
    let mut destination = fixture.accept("out", WritePolicy::FailIfExists, &entry(4, OLD, 7)).unwrap();
    assert!(destination.partial(0).unwrap().existing.is_some());
    drop(destination);
    // Another's with the same name is not.
    fs::remove_file(fixture.path("out")).unwrap();
    fixture.write("out", "data");
    let failure = fixture.accept("out", WritePolicy::FailIfExists, &entry(4, OLD, 7)).unwrap_err();
    assert_eq!(failure.reason, Reason::DestinationExists);
}

#[test]
fn where_nothing_may_exist_nothing_is_named_that_could_not_be_written_down() {
    let entries = [directory("", 0o755), file("a", 4), link("l", "a")];
    for (policy, named) in [(WritePolicy::FailIfExists, false), (OVERWRITE, true)] {
        let fixture = Fixture::new();
        let mut destination = fixture.accept("out", policy, &entries).unwrap();
        let stored = store(&mut destination, 1, "data").unwrap();
        destination.journal().fill();
        let reason = destination.commit_one(&stored, &|| true).err().map(|failure| failure.reason);
        assert_eq!(reason, (!named).then_some(Reason::InsufficientSpace), "{policy:?}");
        assert_eq!(fixture.path("out/a").exists(), named, "{policy:?}");
        destination.keep(Keep::All);
        drop(destination);
        // There is room again.
        let mut destination = fixture.accept("out", policy, &entries).unwrap();
        let stored = store(&mut destination, 1, "data").unwrap();
        destination.commit_one(&stored, &|| true).unwrap();
        destination.journal().fill();
        let reason = destination.finish(Algorithm::Xxh3, &|| true).err().map(|failure| failure.reason);
        assert_eq!(reason, (!named).then_some(Reason::InsufficientSpace), "{policy:?}");
        assert_eq!(fixture.path("out/l").is_symlink(), named, "{policy:?}");
        destination.keep(Keep::All);
        drop(destination);
        fixture.receive("out", policy, &entries, "data").unwrap();
        assert_eq!(fs::read_to_string(fixture.path("out/a")).unwrap(), "data", "{policy:?}");
    }
}

#[test]
fn the_room_that_a_kept_partial_takes_is_not_asked_for_again() {
    let fixture = Fixture::new();
    let size = 8 << 20;
    let room = |left: &[(u32, u64)]| {
        let mut needed = check::Need::default();
        for (_, occupied) in left {
            needed.file(size, *occupied, None, OVERWRITE);
        }
        needed.peak
    };
    assert_eq!(room(&[(0, 0), (1, 0)]), 2 * size);
    assert_eq!(room(&[(0, size), (1, size / 2)]), size / 2);
    // What is counted as there already is what the disk says of it, not what the journal claims.
    first_attempt(&fixture, &entry(size, OLD, 7), 0, &"x".repeat(1 << 20), "");
    let mut destination = fixture.open("out", OVERWRITE).unwrap();
    destination.entries = entry(size, OLD, 7).to_vec();
    destination.take_up().unwrap();
    let occupied = destination.earlier[&0].occupied;
    assert!((1..=1 << 20).contains(&occupied), "{occupied}");
}

/// Sets the time of the last change back, which only the clock of the file system could: as if the file were old.
fn aged(memory: &Memory, path: &Path, digest: &[u8]) {
    let now = identity::now();
    let later = Time { seconds: now.seconds + 10, ..now };
    memory.remember(&Identity::of(&rustix::fs::stat(path).unwrap()), Algorithm::Xxh3, digest, later);
}

#[test]
fn a_file_that_was_read_before_need_not_be_read_again() {
    let fixture = Fixture::new();
    let remembered = Arc::new(crate::volume::Remembered::default());
    let path = fixture.write("out", "data");
    let known = |namespace: &str| {
        let destination = fixture.open("out", WritePolicy::SkipIdentical).unwrap();
        let mut destination = destination.remembering(remembered.of(namespace));
        accept(&mut destination, &entry(4, OLD, 7));
        let stored = StoredFile { index: 0, digest: digest_of("data"), identical: true };
        let known = destination.partial(0).unwrap().known;
        destination.commit_one(&stored, &|| true).unwrap();
        known
    };
    assert_eq!(known("ml"), None);
    assert_eq!(known("ml"), None, "changed too shortly before it was read");
    aged(&remembered.of("ml"), &path, &digest_of("data"));
    assert_eq!(known("ml"), Some(digest_of("data")));
    assert_eq!(known("other"), None);
    File::options().write(true).open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(known("ml"), None, "something happened to it");
}
