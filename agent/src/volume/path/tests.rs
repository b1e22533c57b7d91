//! Tables and properties of path rules.

use super::*;
use proptest::prelude::*;

#[test]
fn paths_of_a_spec() {
    for (text, expected) in [
        ("", "."),
        (".", "."),
        ("a", "a"),
        ("a/b", "a/b"),
        ("a//b/./c/", "a/b/c"),
        ("ä ö/ü", "ä ö/ü"),
        ("a/.nixl-transfer", "a/.nixl-transfer"),
        ("..a/b..", "..a/b.."),
    ] {
        let path = VolumePath::parse(text).unwrap_or_else(|failure| panic!("{text}: {failure}"));
        assert_eq!(path.as_bytes(), expected.as_bytes(), "{text}");
    }
    let long = "x/".repeat(513);
    let component = "y".repeat(256);
    for text in [
        "/a",
        "a/../b",
        "..",
        "a\nb",
        "a\0b",
        ".nixl-transfer",
        "./.nixl-transfer/x",
        long.as_str(),
        component.as_str(),
    ] {
        let failure = VolumePath::parse(text).expect_err(text);
        assert_eq!(failure.reason, Reason::InvalidPath, "{text}");
        assert!(failure.message.len() < 400, "{}", failure.message);
    }
}

#[test]
fn paths_of_a_manifest() {
    let root = VolumePath::default();
    let deep = VolumePath::parse("d/e").expect("valid");
    assert_eq!(deep.join(b"f/g").expect("valid").as_bytes(), b"d/e/f/g");
    assert_eq!(deep.join(b"").expect("valid").as_bytes(), b"d/e");
    assert_eq!(deep.join(b"\xff\n").expect("any bytes are a name").as_bytes(), b"d/e/\xff\n");
    assert!(deep.join(b".nixl-transfer").is_ok(), "reserved at the volume's root only");
    for entry in
        [&b"/a"[..], b"a/", b"a//b", b"..", b"a/../b", b"./a", b"a\0", b".nixl-transfer/x", &[b'z'; 256]]
    {
        assert!(root.join(entry).is_err(), "{entry:?}");
    }
    assert!(root.join(&b"abc/".repeat(1024)[..4095]).is_ok());
    assert!(deep.join(&b"abc/".repeat(1024)[..4095]).is_err());
}

#[test]
fn splitting() {
    assert_eq!(VolumePath::default().split(), None);
    let path = VolumePath::parse("a/b/c").expect("valid");
    let (parent, name) = path.split().expect("not the root");
    assert_eq!((parent.as_bytes(), name), (&b"a/b"[..], &b"c"[..]));
    let (root, name) = VolumePath::parse("a")
        .map(|path| path.split().map(|(p, n)| (p, n.to_vec())))
        .expect("valid")
        .expect("one");
    assert!(root.is_root() && name == b"a");
}

#[test]
fn links() {
    let directories: [&[u8]; 3] = [b"a", b"a/b", b"a/b/c"];
    let inside = |path: &str, target: &str| {
        link_stays_inside(path.as_bytes(), target.as_bytes(), |path| directories.contains(&path))
    };
    for (path, target) in [
        ("l", "a"),
        ("l", "missing"),
        ("l", "./a//b"),
        ("a/l", "../x"),
        ("a/b/c/l", "../../.."),
        ("a/b/l", "c/../../x"),
        ("l", "..data"),
    ] {
        assert!(inside(path, target), "{path} -> {target}");
    }
    for (path, target) in [
        ("l", "/etc/passwd"),
        ("l", ".."),
        ("l", "../x"),
        ("a/l", "../../x"),
        ("l", "a/../.."),
        ("l", ""),
        // `a/b/c/up -> ../../..` is fine by itself; through it this one would reach above the root
        ("m", "a/b/c/up/../.."),
    ] {
        assert!(!inside(path, target), "{path} -> {target}");
    }
}

proptest! {
    #[test]
    fn what_is_taken_never_leaves(text in "[a.\\/]{0,24}") {
        if let Ok(path) = VolumePath::parse(&text) {
            prop_assert!(path.components().all(|component| component != b".." && component != b"." && !component.is_empty()));
            prop_assert!(!path.as_bytes().starts_with(b"/"));
        }
    }

    #[test]
    fn a_joined_path_begins_with_its_base(entry in prop::collection::vec(any::<u8>(), 0..40)) {
        let base = VolumePath::parse("base/dir").expect("valid");
        if let Ok(joined) = base.join(&entry) {
            prop_assert!(joined.as_bytes().starts_with(b"base/dir"));
            prop_assert!(joined.components().all(|component| component != b".."));
        }
    }

    /// A link that is taken, resolved over real directories only, never climbs above the root.
    #[test]
    fn a_taken_link_never_climbs_out(target in "(\\.\\./|a/|b/|\\./){0,6}[ab]?") {
        if link_stays_inside(b"a/b/l", target.as_bytes(), |_| true) {
            let mut depth = 2_i32;
            for component in target.split('/') {
                match component { "" | "." => {}, ".." => depth -= 1, _ => depth += 1 }
                prop_assert!(depth >= 0);
            }
        }
    }
}
