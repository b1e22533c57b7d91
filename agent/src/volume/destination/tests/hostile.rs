//! Whatever another node sends as its manifest, nothing outside the destination is touched.

use super::*;
use proptest::prelude::*;
use std::os::unix::fs::symlink;

/// Paths made of what could lead elsewhere, among names that are fine.
fn hostile_path() -> impl Strategy<Value = Vec<u8>> {
    let component = prop::sample::select(vec![
        &b"a"[..],
        b"b",
        b"a",
        b"b",
        b"out",
        b"in",
        b"..",
        b".",
        b"",
        b".nixl-transfer",
        b"\xff",
        b"a\0b",
        b"...",
    ]);
    (prop::collection::vec(component, 1..4), prop::bool::weighted(0.05)).prop_map(|(components, absolute)| {
        let joined = components.join(&b'/');
        if absolute { [b"/".as_slice(), &joined].concat() } else { joined }
    })
}

fn hostile_entry() -> impl Strategy<Value = Entry> {
    (hostile_path(), hostile_path(), 0..3).prop_map(|(path, target, kind)| Entry {
        path: RelativePath(path),
        kind: match kind {
            0 => EntryKind::Directory { mode: 0o7777, mtime: OLD },
            1 => EntryKind::File { size: 4, mode: 0o7777, mtime: OLD, inode: 7 },
            _ => EntryKind::Link { target: RelativePath(target) },
        },
    })
}

/// Sorted, without twins and with its directories, so that order alone does not have it refused.
fn tidy(mut entries: Vec<Entry>) -> Vec<Entry> {
    let mut above = Vec::new();
    for entry in &entries {
        for (at, _) in entry.path.0.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            above.push(Entry {
                path: RelativePath(entry.path.0[..at].to_vec()),
                kind: EntryKind::Directory { mode: 0o755, mtime: OLD },
            });
        }
    }
    above.push(directory("", 0o755));
    above.append(&mut entries);
    above.sort_by(|one, other| one.path.cmp(&other.path));
    above.dedup_by(|one, other| one.path == other.path);
    above
}

/// Everything but what is beneath the destination.
fn elsewhere(fixture: &Fixture) -> Vec<(PathBuf, u64, u32, i64, Vec<u8>)> {
    let out = fixture.directory.path().join("volume/out");
    fixture.listing().into_iter().filter(|(path, ..)| !path.starts_with(&out)).collect()
}

fn transfer(fixture: &Fixture, entries: &[Entry]) -> Result<(), Failure> {
    fixture.receive("out", WritePolicy::Overwrite, entries, "evil").map(drop)
}

fn victim() -> Fixture {
    let fixture = Fixture::new();
    fs::write(fixture.directory.path().join("outside/a"), "outside").unwrap();
    fixture.write("in/a", "another's");
    fs::create_dir(fixture.path("out")).unwrap();
    // Left by somebody who hopes that a transfer follows it.
    symlink("../../outside", fixture.path("out/b")).unwrap();
    fixture
}

#[test]
fn the_plainest_attacks() {
    for path in [
        "../in/a",
        "../../outside/a",
        "a/../../in/a",
        "/etc/nixl-transfer-test",
        "b/a",
        "",
        "a//b",
        "./a",
        "a/",
    ] {
        let fixture = victim();
        let before = elsewhere(&fixture);
        let entries = tidy(vec![file(path, 4), directory("z", 0o755)]);
        if path.is_empty() {
            // With nothing above it but the root's twin, which goes first: what is left is fine.
            transfer(&fixture, &entries).unwrap();
        } else {
            let failure = transfer(&fixture, &entries).expect_err(path);
            let expected = [Reason::InvalidPath, Reason::DestinationExists];
            assert!(expected.contains(&failure.reason), "{path}: {failure}");
        }
        assert_eq!(elsewhere(&fixture), before, "{path}");
    }
    let fixture = victim();
    let twins = [directory("", 0o755), file("a", 4), file("a", 4)];
    assert_eq!(transfer(&fixture, &twins).unwrap_err().reason, Reason::IntegrityError);
    let through = [directory("", 0o755), link("l", ".."), file("l/x", 4)];
    assert!(transfer(&fixture, &through).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_outside_is_touched(entries in prop::collection::vec(hostile_entry(), 1..4), sorted in prop::bool::weighted(0.9)) {
        let fixture = victim();
        let before = elsewhere(&fixture);
        let entries = if sorted { tidy(entries) } else { entries };
        let outcome = transfer(&fixture, &entries);
        prop_assert_eq!(elsewhere(&fixture), before, "{:?}", outcome);
        prop_assert!(fixture.partials().is_empty());
        if outcome.is_ok() {
            for entry in &entries {
                let place = fixture.directory.path().join("volume/out").join(
                    <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&entry.path.0),
                );
                prop_assert!(place.symlink_metadata().is_ok(), "{:?} was taken and is not there", entry);
            }
        }
    }
}
