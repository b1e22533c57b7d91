//! What stays when a destination is dropped, and what is collected later.

use super::*;

const OVERWRITE: WritePolicy = WritePolicy::Overwrite;

fn tree() -> [Entry; 4] {
    [directory("", 0o755), file("a", 4), file("b", 4), file("c", 4)]
}

/// Makes two bytes of a file durable.
fn begin(destination: &mut Destination, index: u32) -> File {
    let mut partial = File::from(destination.partial(index).unwrap().partial);
    partial.write_all(b"da").unwrap();
    let digest = crate::digest::of(Algorithm::Xxh3, b"da").bytes;
    destination.durable(index, 2, &digest).unwrap();
    partial
}

fn names(fixture: &Fixture) -> Vec<String> {
    let mut names: Vec<String> = fixture
        .partials()
        .iter()
        .flat_map(|run| fs::read_dir(run).unwrap())
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn sorted<const N: usize>(mut names: [String; N]) -> [String; N] {
    names.sort();
    names
}

#[test]
fn only_what_is_durable_is_kept_and_only_when_it_is_asked_for() {
    let fixture = Fixture::new();
    for keep in [true, false] {
        let mut destination = fixture.accept("out", OVERWRITE, &tree()).unwrap();
        let held = begin(&mut destination, 1);
        let other = destination.partial(2).unwrap();
        if keep {
            destination.keep(Keep::All);
        }
        drop(destination);
        let expected = sorted([partial_name(b"a"), "journal".into()]);
        assert_eq!(names(&fixture), if keep { &expected[..] } else { &[] }, "keep {keep}");
        drop((held, other));
    }
    // Nor is what an attempt did not come to when it is not to be kept.
    let mut destination = fixture.accept("out", OVERWRITE, &tree()).unwrap();
    drop(begin(&mut destination, 1));
    destination.keep(Keep::All);
    drop(destination);
    drop(fixture.accept("out", OVERWRITE, &tree()).unwrap());
    assert!(fixture.partials().is_empty(), "{:?}", names(&fixture));
    // What an attempt did not come to is kept as well, also when it did not even get the manifest.
    let mut destination = fixture.accept("out", OVERWRITE, &tree()).unwrap();
    drop(begin(&mut destination, 1));
    destination.keep(Keep::All);
    drop(destination);
    let mut destination = fixture.open("out", OVERWRITE).unwrap();
    destination.keep(Keep::All);
    drop(destination);
    let mut destination = fixture.accept("out", OVERWRITE, &tree()).unwrap();
    drop(begin(&mut destination, 3));
    destination.keep(Keep::All);
    drop(destination);
    assert_eq!(names(&fixture), sorted([partial_name(b"a"), partial_name(b"c"), "journal".into()]));
    // Another manifest, in which one of them has changed its place and the other is missing.
    let other = [directory("", 0o755), file("A", 4), file("a", 4)];
    let mut destination = fixture.accept("out", OVERWRITE, &other).unwrap();
    assert_eq!(names(&fixture), sorted([partial_name(b"a"), "journal".into()]));
    assert!(destination.partial(1).unwrap().resume.is_none());
    assert_eq!(destination.partial(2).unwrap().resume.unwrap().length, 2);
    drop(destination);
    assert!(fixture.partials().is_empty());
}

#[test]
fn nothing_is_kept_of_an_attempt_that_came_to_nothing() {
    let fixture = Fixture::new();
    let mut destination = fixture.accept("out", OVERWRITE, &tree()).unwrap();
    destination.partial(1).unwrap();
    destination.keep(Keep::All);
    drop(destination);
    assert!(fixture.partials().is_empty(), "{:?}", names(&fixture));
}

#[test]
fn of_what_is_committed_the_journal_is_kept() {
    let fixture = Fixture::new();
    let mut destination = fixture.accept("out", OVERWRITE, &tree()).unwrap();
    let stored = store(&mut destination, 1, "data").unwrap();
    destination.commit_one(&stored, &|| true).unwrap();
    destination.keep(Keep::All);
    drop(destination);
    assert_eq!(names(&fixture), ["journal"]);
}

#[test]
fn where_nothing_may_exist_even_an_attempt_that_is_not_built_upon_leaves_what_it_committed_known() {
    for (policy, stays) in [(WritePolicy::FailIfExists, true), (OVERWRITE, false)] {
        let fixture = Fixture::new();
        let mut destination = fixture.accept("out", policy, &tree()).unwrap();
        let stored = store(&mut destination, 1, "data").unwrap();
        destination.commit_one(&stored, &|| true).unwrap();
        drop(begin(&mut destination, 2));
        destination.keep(Keep::Committed);
        drop(destination);
        assert_eq!(names(&fixture), if stays { &["journal"][..] } else { &[] }, "{policy:?}");
        let mut destination = fixture.accept("out", policy, &tree()).unwrap();
        assert_eq!(destination.partial(1).unwrap().existing.is_some(), stays, "{policy:?}");
        assert!(destination.partial(2).unwrap().resume.is_none(), "{policy:?}");
    }
}

#[test]
fn a_live_earlier_attempt_keeps_the_next_one_out() {
    let fixture = Fixture::new();
    let mut destination = fixture.accept("out", OVERWRITE, &tree()).unwrap();
    let lock = DestinationLocks::default().try_lock(&fixture.volume, "out").unwrap().unwrap();
    let again = Destination::open(&fixture.volume, "out", OVERWRITE, &place(), "a", Algorithm::Xxh3, lock);
    assert_eq!(again.unwrap_err().reason, Reason::DestinationBusy, "in one process");
    // The agent dies; its worker lives on, with a copy of the descriptor of one file that was begun and of one with a
    // durable beginning.
    let new = destination.partial(1).unwrap().partial;
    let begun = begin(&mut destination, 2);
    destination.keep(Keep::All);
    drop(destination);
    fs::write(fixture.partial("a"), "").unwrap();
    let stale = File::open(fixture.partial("a")).unwrap();
    rustix::fs::flock(&stale, rustix::fs::FlockOperation::LockExclusive).unwrap();
    drop(new);
    let mut again = fixture.accept("out", OVERWRITE, &tree()).unwrap();
    for index in [1, 2] {
        assert_eq!(again.partial(index).unwrap_err().reason, Reason::DestinationBusy, "{index}");
    }
    again.keep(Keep::All);
    drop(again);
    assert!(fixture.partial("a").exists() && fixture.partial("b").exists(), "they are its worker's");
    drop((stale, begun));
    let mut again = fixture.accept("out", OVERWRITE, &tree()).unwrap();
    assert!(again.partial(1).unwrap().resume.is_none());
    assert_eq!(again.partial(2).unwrap().resume.unwrap().length, 2);
}

fn judged(kept: bool) -> Left {
    if kept { Left::Kept } else { Left::Dead }
}

#[test]
fn what_may_be_another_nodes_is_collected_only_when_it_is_old() {
    let fixture = Fixture::new();
    let mut destination = fixture.accept("out", OVERWRITE, &tree()).unwrap();
    drop(begin(&mut destination, 1));
    destination.keep(Keep::All);
    drop(destination);
    let run = File::open(&fixture.partials()[0]).unwrap();
    let day = std::time::Duration::from_secs(24 * 60 * 60);
    let collect = |judged, age| {
        run.set_modified(std::time::SystemTime::now() - age).unwrap();
        fixture.volume.collect_leftovers(|_| judged).unwrap()
    };
    assert_eq!(collect(Left::Foreign, day), 0);
    assert_eq!(collect(Left::Foreign, day * 7 - day / 24), 0);
    assert_eq!(collect(Left::Kept, day * 8), 0);
    assert_eq!(collect(Left::Foreign, day * 7 + day / 24), 2);
    assert!(fixture.partials().is_empty());
}

#[test]
fn nodes_that_share_a_file_system_are_in_each_others_way_at_no_place() {
    let fixture = Fixture::new();
    let mut ours = fixture.open("out", OVERWRITE).unwrap();
    let volume = Arc::new(Volume::open(&fixture.config()).unwrap());
    let lock = DestinationLocks::default().try_lock(&volume, "out").unwrap().unwrap();
    let there = RunPlace { node_uid: "m".into(), ..place() };
    let mut theirs =
        Destination::open(&volume, "out", OVERWRITE, &there, "a", Algorithm::Xxh3, lock).unwrap();
    for destination in [&mut ours, &mut theirs] {
        destination.accept(tree().to_vec(), Some(manifest::totals(&tree()))).unwrap();
        drop(begin(destination, 1));
        destination.keep(Keep::All);
    }
    drop((ours, theirs));
    assert_eq!(fixture.partials().len(), 2);
}

#[test]
fn what_dead_runs_have_left_is_collected_and_nothing_else() {
    let fixture = Fixture::new();
    let collect =
        |kept: &[&RunPlace]| fixture.volume.collect_leftovers(|place| judged(kept.contains(&place))).unwrap();
    assert_eq!(collect(&[]), 0, "no directory yet");
    let mut destination = fixture.accept("out", OVERWRITE, &tree()).unwrap();
    let held = begin(&mut destination, 1);
    drop(begin(&mut destination, 2));
    assert_eq!(collect(&[]), 0, "at work");
    destination.keep(Keep::All);
    drop(destination);
    let reserved = fixture.directory.path().join("volume").join(RESERVED_DIRECTORY);
    // What other versions and other people leave there.
    fs::create_dir(reserved.join("6f1c-old-task")).unwrap();
    fs::write(reserved.join("6f1c-old-task/0"), "old").unwrap();
    fs::write(reserved.join("a file"), "not ours").unwrap();

    let all = sorted([partial_name(b"a"), partial_name(b"b"), "journal".into()]);
    let another = RunPlace { run: 2, ..place() };
    assert_eq!(collect(&[&another, &place()]), 1, "the old layout's file");
    assert!(!reserved.join("6f1c-old-task").exists() && reserved.join("a file").exists());
    fs::remove_file(reserved.join("a file")).unwrap();
    assert_eq!(names(&fixture), all);

    // A run has come up and left again since the collection looked at it first.
    let asked = std::cell::Cell::new(0);
    let second_time = |_: &RunPlace| judged(asked.replace(asked.get() + 1) > 0);
    assert_eq!(fixture.volume.collect_leftovers(second_time).unwrap(), 0);
    assert_eq!((names(&fixture), asked.get()), (all.to_vec(), 2));

    // Another agent on the same file system is at work there.
    let journal = File::open(fixture.partials()[0].join("journal")).unwrap();
    rustix::fs::flock(&journal, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert_eq!(collect(&[&another]), 0);
    assert_eq!(names(&fixture), all);
    drop(journal);

    // Something in this process is about to begin there.
    let key = place().key().unwrap();
    assert!(fixture.volume.open_places.take(&key));
    assert_eq!(collect(&[&another]), 0);
    assert_eq!(names(&fixture), all);
    fixture.volume.open_places.give_back(&key);

    // A copy of the descriptor, as it is passed to a worker, holds the lock too.
    let passed = held.try_clone().unwrap();
    drop(held);
    assert_eq!(collect(&[&another]), 2);
    assert_eq!(names(&fixture), [partial_name(b"a")]);
    drop(passed);
    assert_eq!(collect(&[&another]), 1);
    assert!(fixture.partials().is_empty());
}
