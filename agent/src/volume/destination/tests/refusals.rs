//! What a destination refuses, before it changes anything, and in words that help.

use super::*;
use rustix::fs::FileType;
use std::os::unix::fs::symlink;

const TREE: fn() -> Vec<Entry> =
    || vec![directory("", 0o755), directory("d", 0o755), file("d/f", 4), file("name", 4)];

/// Refused with the reason and the words, and nothing is different afterwards.
#[track_caller]
fn refused(
    fixture: &Fixture,
    path: &str,
    policy: WritePolicy,
    entries: &[Entry],
    reason: Reason,
    words: &[&str],
) {
    let before = fixture.listing();
    let failure = fixture.accept(path, policy, entries).expect_err(path);
    assert_eq!(failure.reason, reason, "{failure}");
    for word in words.iter().chain(&["data"]) {
        assert!(failure.message.contains(word), "no {word:?} in {failure}");
    }
    assert_eq!(fixture.listing(), before, "{path}");
    assert!(fixture.partials().is_empty(), "{path}");
}

#[test]
fn what_stands_in_the_way() {
    let fixture = Fixture::new();
    fs::create_dir_all(fixture.path("directory/name")).unwrap();
    fixture.write("file", "x");
    fixture.write("tree/d", "a file where a directory shall be");
    fs::create_dir(fixture.path("links")).unwrap();
    symlink("../directory", fixture.path("links/d")).unwrap();
    symlink("/tmp", fixture.path("link")).unwrap();
    let pipe = fixture.path("pipes/name");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, 0o644.into(), 0).unwrap();
    let exists = Reason::DestinationExists;
    for policy in [WritePolicy::SkipIdentical, WritePolicy::Overwrite, WritePolicy::FailIfExists] {
        let refused = |path, entries: &[Entry], reason, words: &[&str]| {
            refused(&fixture, path, policy, entries, reason, words);
        };
        refused("directory", &[file("", 4)], exists, &["directory", "is a directory"]);
        refused("", &[file("", 4)], exists, &["is a directory"]);
        refused("directory", &TREE(), exists, &["directory/name", "is a directory"]);
        refused("file", &TREE(), exists, &["file", "is no directory"]);
        refused("file/below", &[file("", 4)], exists, &["file", "is no directory"]);
        refused("tree", &TREE(), exists, &["tree/d", "is no directory"]);
        refused("links", &TREE(), exists, &["links/d", "is no directory"]);
        refused("pipes", &TREE(), exists, &["pipes/name", "FIFO"]);
    }
    let policy = WritePolicy::SkipIdentical;
    refused(&fixture, "link/file", policy, &[file("", 4)], Reason::InvalidPath, &["link", "symbolic link"]);
    refused(
        &fixture,
        "link/deep/file",
        policy,
        &[file("", 4)],
        Reason::InvalidPath,
        &["link", "symbolic link"],
    );
}

#[test]
fn fail_if_exists_changes_nothing() {
    let fixture = Fixture::new();
    fixture.write("out/name", "former");
    let policy = WritePolicy::FailIfExists;
    // `d` and `d/f` come first in the manifest and would be made before the clash is met.
    refused(&fixture, "out", policy, &TREE(), Reason::DestinationExists, &["out/name", "spec.writePolicy"]);
    let with_link = [directory("", 0o755), link("name", "x")];
    refused(
        &fixture,
        "out",
        policy,
        &with_link,
        Reason::DestinationExists,
        &["out/name", "spec.writePolicy"],
    );
    fixture.receive("new", policy, &TREE(), "data").unwrap();
}

#[test]
fn fail_if_exists_holds_for_what_appears_meanwhile() {
    let fixture = Fixture::new();
    let mut destination = fixture.accept("out", WritePolicy::FailIfExists, &[file("", 4)]).unwrap();
    let stored = store(&mut destination, 0, "data").unwrap();
    fixture.write("out", "first");
    assert_eq!(destination.commit_one(&stored, &|| true).unwrap_err().reason, Reason::DestinationExists);
    assert_eq!(fs::read_to_string(fixture.path("out")).unwrap(), "first");
}

#[test]
fn a_directory_or_a_link_that_appears_meanwhile() {
    let fixture = Fixture::new();
    let entries = [directory("", 0o755), directory("d", 0o755), file("d/f", 4), file("g", 4)];
    let mut destination = fixture.accept("out", WritePolicy::Overwrite, &entries).unwrap();
    let (f, g) = (store(&mut destination, 2, "data").unwrap(), store(&mut destination, 3, "data").unwrap());
    fs::create_dir(fixture.path("out/g")).unwrap();
    assert_eq!(destination.commit_one(&g, &|| true).unwrap_err().reason, Reason::DestinationExists);
    fs::remove_dir(fixture.path("out/d")).unwrap();
    symlink("../../outside", fixture.path("out/d")).unwrap();
    assert_eq!(destination.commit_one(&f, &|| true).unwrap_err().reason, Reason::InvalidPath);
    assert_eq!(fs::read_dir(fixture.directory.path().join("outside")).unwrap().count(), 0);
}

/// A directory that is open is found again by its name in the end.
#[test]
fn a_directory_that_is_moved_away_meanwhile() {
    let entries = [directory("", 0o755), directory("d", 0o755), file("d/f", 4), file("d/g", 4)];
    for described in [true, false] {
        let fixture = Fixture::new();
        let (path, entries, name) =
            if described { ("out", &entries[..], "out/d") } else { ("out/d/f", &[file("", 4)][..], "out/d") };
        let mut destination = fixture.accept(path, WritePolicy::Overwrite, entries).unwrap();
        for index in destination.file_indices().collect::<Vec<_>>() {
            let stored = store(&mut destination, index, "data").unwrap();
            destination.commit_one(&stored, &|| true).unwrap();
            fs::rename(fixture.path(name), fixture.path("elsewhere")).unwrap();
            fs::create_dir(fixture.path(name)).unwrap();
            if described && index == 2 {
                fs::remove_dir(fixture.path(name)).unwrap();
                fs::rename(fixture.path("elsewhere"), fixture.path(name)).unwrap();
            }
        }
        let failure = destination.finish(Algorithm::Xxh3, &|| true).unwrap_err();
        assert!(failure.reason == Reason::IoError && failure.message.contains("moved"), "{failure}");
        assert!(failure.message.contains("out/d in volume data"), "{failure}");
    }
}

#[test]
fn what_does_not_fit() {
    let fixture = Fixture::new();
    let entries = [directory("", 0o755), file("a", 4), file("huge", 1 << 60)];
    let words = ["volume data", "free"];
    refused(&fixture, "out", WritePolicy::SkipIdentical, &entries, Reason::InsufficientSpace, &words);
}

#[test]
fn places_and_volumes() {
    let fixture = Fixture::new();
    let one = [file("", 4)];
    let policy = WritePolicy::SkipIdentical;
    for (path, word) in [
        (".nixl-transfer/x", ".nixl-transfer"),
        ("/abs", "slash"),
        ("a/../b", ".."),
        (&"x".repeat(256), "255"),
    ] {
        refused(&fixture, path, policy, &one, Reason::InvalidPath, &[word]);
    }
    let reserved = [directory("", 0o755), directory(".nixl-transfer", 0o755), file(".nixl-transfer/0", 4)];
    refused(&fixture, "", policy, &reserved, Reason::InvalidPath, &[".nixl-transfer"]);

    let config = VolumeConfig {
        name: "data".into(),
        path: fixture.directory.path().join("volume"),
        read_only: true,
        allowed_namespaces: vec!["ml".into()],
    };
    let read_only = Arc::new(Volume::open(&config).unwrap());
    assert!(read_only.allows("ml") && !read_only.allows("other") && fixture.volume.allows("other"));
    let lock = fixture.locks.try_lock(&read_only, "x").unwrap().unwrap();
    let failure =
        Destination::open(&read_only, "x", policy, &place(), "a", Algorithm::Xxh3, lock).unwrap_err();
    assert!(failure.reason == Reason::VolumeReadOnly && failure.message.contains("data"), "{failure}");
    let lock = fixture.locks.try_lock(&fixture.volume, "x").unwrap().unwrap();
    let nameless = RunPlace { destination: "..".into(), ..place() };
    assert!(Destination::open(&fixture.volume, "x", policy, &nameless, "a", Algorithm::Xxh3, lock).is_err());
    let missing = VolumeConfig { path: "/nowhere/at/all".into(), ..config };
    let failure = Volume::open(&missing).unwrap_err();
    assert!(
        failure.reason == Reason::VolumeNotFound && failure.message.contains("/nowhere/at/all"),
        "{failure}"
    );
}

#[test]
fn what_a_worker_says_is_checked() {
    let fixture = Fixture::new();
    let entries = [directory("", 0o755), file("a", 4), file("b", 4), file("c", 4)];
    let mut destination = fixture.open("out", WritePolicy::SkipIdentical).unwrap();
    assert!(destination.partial(1).is_err(), "before the manifest");
    destination.accept(entries.to_vec(), Some(manifest::totals(&entries))).unwrap();
    assert!(destination.accept(Vec::new(), None).is_err(), "after its end");
    assert!(destination.partial(0).is_err() && destination.partial(9).is_err(), "no files");

    let short = store(&mut destination, 1, "dat").unwrap();
    let failure = destination.commit_one(&short, &|| true).unwrap_err();
    assert!(failure.reason == Reason::IntegrityError && failure.message.contains("3 bytes"), "{failure}");
    let unknown = StoredFile { index: 3, ..short.clone() };
    assert_eq!(destination.commit_one(&unknown, &|| true).unwrap_err().reason, Reason::IntegrityError);

    let mode = store(&mut destination, 2, "data").unwrap();
    let partial = fixture.partial("b");
    fs::set_permissions(&partial, std::os::unix::fs::PermissionsExt::from_mode(0o4755)).unwrap();
    assert_eq!(destination.commit_one(&mode, &|| true).unwrap_err().reason, Reason::IntegrityError);
    // Held open, so that its inode's number is not given to the next file.
    let held = File::open(&partial).unwrap();
    fs::remove_file(&partial).unwrap();
    fs::write(&partial, "evil").unwrap();
    fs::set_permissions(&partial, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    assert!(destination.commit_one(&mode, &|| true).is_err(), "another file under the partial's name");
    drop(held);
    assert!(!fixture.path("out/a").exists() && !fixture.path("out/b").exists());
}
