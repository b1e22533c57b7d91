//! Tables and properties of manifests.

use super::*;
use crate::protocol::entry::{RelativePath, Time};
use proptest::prelude::*;

const TIME: Time = Time { seconds: 1, nanoseconds: 2 };

fn directory(path: &str) -> Entry {
    Entry { path: RelativePath(path.into()), kind: EntryKind::Directory { mode: 0o755, mtime: TIME } }
}

fn file(path: &str, size: u64) -> Entry {
    Entry {
        path: RelativePath(path.into()),
        kind: EntryKind::File { size, mode: 0o644, mtime: TIME, inode: 1 },
    }
}

fn link(path: &str, target: &str) -> Entry {
    Entry { path: RelativePath(path.into()), kind: EntryKind::Link { target: RelativePath(target.into()) } }
}

fn reason(entries: &[Entry]) -> Option<Reason> {
    check(entries, totals(entries)).err().map(|failure| failure.reason)
}

#[test]
fn what_is_taken_and_what_is_not() {
    assert_eq!(reason(&[file("", 7)]), None);
    assert_eq!(reason(&[directory("")]), None);
    assert_eq!(
        reason(&[directory(""), directory("a"), file("a b", 1), file("a/b", 0), link("l", "a/b")]),
        None
    );
    let integrity = Some(Reason::IntegrityError);
    let path = Some(Reason::InvalidPath);
    let bad_time = Entry {
        path: RelativePath(b"t".to_vec()),
        kind: EntryKind::File {
            size: 0,
            mode: 0,
            mtime: Time { seconds: 0, nanoseconds: NANOSECONDS },
            inode: 1,
        },
    };
    for (entries, expected) in [
        (vec![], integrity),
        (vec![file("a", 1)], integrity),
        (vec![link("", "a")], integrity),
        (vec![file("", 1), file("a", 1)], integrity),
        (vec![directory(""), file("../a", 1)], path),
        (vec![directory(""), directory("a"), file("a/../../b", 1)], path),
        (vec![directory(""), file("/etc/passwd", 1)], path),
        (vec![directory(""), file("b", 1), file("a", 1)], integrity),
        (vec![directory(""), file("a", 1), file("a", 1)], integrity),
        (vec![directory(""), file("a/b", 1)], integrity),
        (vec![directory(""), file("a", 1), file("a/b", 1)], integrity),
        (vec![directory(""), link("a", "."), file("a/b", 1)], integrity),
        (vec![directory(""), link("a", "..")], path),
        (vec![directory(""), link("a", "/")], path),
        (vec![directory(""), file("a", u64::MAX)], integrity),
        (
            vec![directory(""), file("a", i64::MAX as u64), file("b", i64::MAX as u64), file("c", 2)],
            integrity,
        ),
        (vec![directory(""), bad_time], integrity),
    ] {
        assert_eq!(reason(&entries), expected, "{entries:?}");
    }
    let entries = [directory(""), file("a", 5)];
    assert!(check(&entries, Totals { entries: 2, files: 1, bytes: 6 }).is_err());
}

#[test]
fn a_files_digest_is_its_contents() {
    let entries = [file("", 7)];
    let got = digest(Algorithm::Blake3, &entries, |_| Some(&[1, 2])).expect("known");
    assert_eq!(got.bytes, [1, 2]);
    assert_eq!(digest(Algorithm::Blake3, &entries, |_| None), None);
}

/// The lines as another program would write them.
#[test]
fn a_trees_digest_is_over_its_lines() {
    let entries = [directory(""), file("a", 3), link("l", "a")];
    let got =
        digest(Algorithm::Xxh3, &entries, |index| (index == 1).then_some(&[0xab, 0x01][..])).expect("known");
    let lines = b"D\0\0\nF\0a\x003\0ab01\0\nL\0l\0a\0\n";
    assert_eq!(got, crate::digest::of(Algorithm::Xxh3, lines));
}

#[test]
fn modes_and_times_are_no_content() {
    let mut other = file("", 1);
    other.kind =
        EntryKind::File { size: 1, mode: 0o600, mtime: Time { seconds: 9, nanoseconds: 9 }, inode: 2 };
    let trees = [
        [directory(""), Entry { path: RelativePath(b"a".to_vec()), ..file("", 1) }],
        [directory(""), Entry { path: RelativePath(b"a".to_vec()), ..other }],
    ];
    let digests = trees.map(|tree| digest(Algorithm::Xxh3, &tree, |_| Some(&[5])));
    assert_eq!(digests[0], digests[1]);
}

proptest! {
    /// Names made to imitate the layout never let two different trees have one text.
    #[test]
    fn different_trees_differ(one in tree(), other in tree()) {
        let of = |entries: &[Entry]| digest(Algorithm::Blake3, entries, |_| Some(&[7; 32]));
        let same = |a: &[Entry], b: &[Entry]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a == b);
        prop_assert_eq!(same(&one, &other), of(&one) == of(&other));
    }
}

fn tree() -> impl Strategy<Value = Vec<Entry>> {
    let name = prop::sample::select(vec!["a", "b", "a\n", "F", "D", "a\nD", "L\n"]);
    let entry = (0..3, name.clone(), name, 0_u64..3).prop_map(|(kind, path, target, size)| match kind {
        0 => directory(path),
        1 => file(path, size),
        _ => link(path, target),
    });
    prop::collection::vec(entry, 2..5)
}
