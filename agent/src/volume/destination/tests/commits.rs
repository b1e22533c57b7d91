//! What a transfer leaves behind, and what it does not.

use super::*;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, UNIX_EPOCH};

fn attributes_of(path: &Path) -> (u32, i64, i64) {
    let stat = fs::symlink_metadata(path).unwrap();
    (stat.mode() & 0o7777, stat.mtime(), stat.mtime_nsec())
}

#[test]
fn a_tree_arrives_with_modes_times_links_and_empty_directories() {
    let fixture = Fixture::new();
    let entries = [
        directory("", 0o750),
        directory("d", 0o555),
        file("d/f", 4),
        link("d/up", "../g"),
        directory("empty", 0o711),
        file("g", 4),
        link("to", "d"),
    ];
    let mut destination = fixture.accept("deep/er/out", WritePolicy::SkipIdentical, &entries).unwrap();
    assert_eq!(destination.totals(), Some(manifest::totals(&entries)));
    assert_eq!(destination.file_indices().collect::<Vec<_>>(), [2, 5]);
    for index in [2, 5] {
        let stored = store(&mut destination, index, "data").unwrap();
        let out = fixture.path("deep/er/out");
        let name = if index == 2 { "d/f" } else { "g" };
        assert!(!out.join(name).exists(), "no name before the commit");
        assert_eq!(destination.commit_one(&stored, &|| true).unwrap(), Committed::Replaced);
        assert_eq!(fs::read_to_string(out.join(name)).unwrap(), "data");
    }
    let digest = destination.finish(Algorithm::Xxh3, &|| true).unwrap();
    let content = crate::digest::of(Algorithm::Xxh3, b"data").bytes;
    assert_eq!(Some(digest), manifest::digest(Algorithm::Xxh3, &entries, |_| Some(content.as_slice())));
    drop(destination);

    let out = fixture.path("deep/er/out");
    for (path, mode) in [("", 0o750), ("d", 0o555), ("empty", 0o711), ("d/f", 0o640), ("g", 0o640)] {
        assert_eq!(attributes_of(&out.join(path)), (mode, OLD.seconds, OLD.nanoseconds.into()), "{path}");
    }
    assert_eq!(fs::read_link(out.join("d/up")).unwrap(), Path::new("../g"));
    assert_eq!(fs::read_link(out.join("to")).unwrap(), Path::new("d"));
    assert!(fixture.partials().is_empty(), "{:?}", fixture.partials());

    // The same once more changes nothing, down to inodes and times.
    let before = fixture.listing();
    let outcomes = fixture.receive("deep/er/out", WritePolicy::SkipIdentical, &entries, "data").unwrap();
    assert_eq!(outcomes, [Committed::Skipped; 2]);
    assert_eq!(fixture.listing(), before);
}

#[test]
fn a_file_alone_is_put_at_its_path_and_its_digest_is_its_contents() {
    let fixture = Fixture::new();
    let mut destination = fixture.accept("new/name", WritePolicy::FailIfExists, &[file("", 4)]).unwrap();
    let stored = store(&mut destination, 0, "data").unwrap();
    destination.commit_one(&stored, &|| true).unwrap();
    assert_eq!(
        destination.finish(Algorithm::Xxh3, &|| true).unwrap(),
        crate::digest::of(Algorithm::Xxh3, b"data")
    );
    assert_eq!(fs::read_to_string(fixture.path("new/name")).unwrap(), "data");
}

#[test]
fn a_tree_merges_and_deletes_nothing() {
    let fixture = Fixture::new();
    fixture.write("out/keep", "kept");
    fixture.write("out/d/keep", "kept");
    fixture.write("out/d/f", "former");
    symlink("elsewhere", fixture.path("out/l")).unwrap();
    fs::set_permissions(fixture.path("out/d"), fs::Permissions::from_mode(0o2700)).unwrap();
    let entries = [directory("", 0o755), directory("d", 0o755), file("d/f", 4), link("l", "d")];
    fixture.receive("out", WritePolicy::SkipIdentical, &entries, "data").unwrap();
    assert_eq!(fs::read_to_string(fixture.path("out/keep")).unwrap(), "kept");
    assert_eq!(fs::read_to_string(fixture.path("out/d/keep")).unwrap(), "kept");
    assert_eq!(fs::read_to_string(fixture.path("out/d/f")).unwrap(), "data");
    assert_eq!(fs::read_link(fixture.path("out/l")).unwrap(), Path::new("d"));
    assert_eq!(attributes_of(&fixture.path("out/d")).0, 0o2755, "an inherited group is the place's affair");
}

#[test]
fn the_volumes_root_keeps_its_own_attributes() {
    let fixture = Fixture::new();
    let root = fixture.directory.path().join("volume");
    fs::set_permissions(&root, fs::Permissions::from_mode(0o711)).unwrap();
    fixture.receive("", WritePolicy::Overwrite, &[directory("", 0o700), file("f", 4)], "data").unwrap();
    assert_eq!(attributes_of(&root).0, 0o711);
    assert_eq!(fs::read_to_string(root.join("f")).unwrap(), "data");
}

#[test]
fn policies_for_files_that_exist() {
    for (policy, standing, expected) in [
        (WritePolicy::SkipIdentical, "data", Committed::Skipped),
        (WritePolicy::SkipIdentical, "atad", Committed::Replaced),
        (WritePolicy::SkipIdentical, "longer", Committed::Replaced),
        (WritePolicy::Overwrite, "data", Committed::Replaced),
        (WritePolicy::Overwrite, "longer", Committed::Replaced),
    ] {
        let fixture = Fixture::new();
        let path = fixture.write("out", standing);
        let before = fs::metadata(&path).unwrap().ino();
        let outcomes = fixture.receive("out", policy, &[file("", 4)], "data").unwrap();
        assert_eq!(outcomes, [expected], "{policy:?} {standing}");
        assert_eq!(fs::metadata(&path).unwrap().ino() == before, expected == Committed::Skipped);
        assert_eq!(fs::read_to_string(&path).unwrap(), "data");
        assert!(fixture.partials().is_empty());
    }
}

#[test]
fn a_file_that_changed_since_it_was_compared_is_left_to_the_next_attempt() {
    let fixture = Fixture::new();
    let path = fixture.write("out", "data");
    let mut destination = fixture.accept("out", WritePolicy::SkipIdentical, &[file("", 4)]).unwrap();
    let stored = store(&mut destination, 0, "data").unwrap();
    assert!(stored.identical);
    fs::write(&path, "else").unwrap();
    let later = UNIX_EPOCH + Duration::from_secs(2_000_000_000);
    File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
    // The source need not have sent what both had, so nothing else is there to take the name.
    let failure = destination.commit_one(&stored, &|| true).unwrap_err();
    assert!(failure.reason.is_retryable() && failure.message.contains("changed"), "{failure}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "else");
}

#[test]
fn the_fence_is_asked_right_before_the_rename_and_obeyed() {
    let fixture = Fixture::new();
    let path = fixture.write("out/f", "former");
    let entries = [directory("", 0o755), file("f", 4), link("l", "f")];
    let mut destination = fixture.accept("out", WritePolicy::Overwrite, &entries).unwrap();
    let mut stored = store(&mut destination, 1, "data").unwrap();
    let asked = AtomicU32::new(0);
    let partial = fixture.partial("f");
    let fence = |answer: bool| {
        asked.fetch_add(1, Ordering::Relaxed);
        assert_eq!(fs::read_to_string(&path).unwrap(), "former");
        let stat = fs::metadata(&partial).unwrap();
        assert_eq!((stat.len(), stat.mode() & 0o7777), (4, 0o640), "nothing is left to do but the rename");
        answer
    };

    stored.identical = true;
    assert_eq!(destination.commit_one(&stored, &|| fence(true)).unwrap_err().reason, Reason::IntegrityError);
    stored.identical = false;
    assert_eq!(asked.load(Ordering::Relaxed), 0, "what is refused anyway is not asked about");
    let failure = destination.commit_one(&stored, &|| fence(false)).unwrap_err();
    assert!(failure.reason == Reason::AgentNotReady && failure.message.contains("Lease"), "{failure}");
    assert_eq!((asked.load(Ordering::Relaxed), fs::read_to_string(&path).unwrap().as_str()), (1, "former"));
    destination.commit_one(&stored, &|| fence(true)).unwrap();
    assert_eq!((asked.load(Ordering::Relaxed), fs::read_to_string(&path).unwrap().as_str()), (2, "data"));
    assert!(destination.commit_one(&stored, &|| true).is_err(), "once per file");

    assert_eq!(destination.finish(Algorithm::Xxh3, &|| false).unwrap_err().reason, Reason::AgentNotReady);
    assert!(!fs::exists(path.with_file_name("l")).unwrap(), "links are commits too");
    destination.finish(Algorithm::Xxh3, &|| true).unwrap();
    assert!(path.with_file_name("l").is_symlink());
}

#[test]
fn partial_files_go_with_the_destination() {
    let fixture = Fixture::new();
    let entries = [directory("", 0o755), file("a", 4), file("b", 4)];
    let mut destination = fixture.accept("out", WritePolicy::Overwrite, &entries).unwrap();
    let stored = store(&mut destination, 1, "data").unwrap();
    destination.commit_one(&stored, &|| true).unwrap();
    let held = destination.partial(2).unwrap().partial;
    assert!(fixture.partial("b").exists());
    assert!(destination.partial(2).is_err(), "once per file");
    let failure = destination.finish(Algorithm::Xxh3, &|| true).unwrap_err();
    assert!(failure.message.contains("1 of 2"), "{failure}");
    drop(destination);
    assert!(fixture.partials().is_empty());
    drop(held);
    assert!(fixture.path("out/a").exists(), "what has its name stays");
}
