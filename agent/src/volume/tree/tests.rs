//! The walk over real files: what is taken, what is refused, and what a change does.

use super::*;
use crate::protocol::entry::EntryKind;
use crate::volume::VolumeConfig;
use nixl_transfer_crds::VolumeRef;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};
use tempfile::TempDir;

struct Fixture {
    directory: TempDir,
    volume: Volume,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("nixl-transfer-tree-").tempdir().unwrap();
        let config = VolumeConfig {
            name: "data".into(),
            path: directory.path().into(),
            read_only: false,
            allowed_namespaces: vec!["*".into()],
        };
        let volume = Volume::open(&config).unwrap();
        Self { directory, volume }
    }

    fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = self.directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn write(&self, path: impl AsRef<Path>, content: &str) -> PathBuf {
        let path = self.path(path);
        fs::write(&path, content).unwrap();
        path
    }

    fn walk(&self, path: &str) -> Result<SourceTree, Failure> {
        self.filtered(path, &[], &[])
    }

    fn filtered(&self, path: &str, include: &[&str], exclude: &[&str]) -> Result<SourceTree, Failure> {
        let owned = |globs: &[&str]| globs.iter().map(|glob| (*glob).to_owned()).collect();
        let at = VolumeRef { name: "data".into(), path: path.into() };
        let source = SourceVolume { at, include: owned(include), exclude: owned(exclude) };
        SourceTree::walk(&self.volume, &source, &AtomicBool::new(false))
    }

    #[track_caller]
    fn refused(&self, path: &str, reason: Reason, words: &[&str]) {
        let failure = self.walk(path).expect_err(path);
        assert_eq!(failure.reason, reason, "{failure}");
        for word in words.iter().chain(&["data"]) {
            assert!(failure.message.contains(word), "no {word:?} in {failure}");
        }
    }
}

fn names(tree: &SourceTree) -> Vec<String> {
    tree.entries().iter().map(|entry| entry.path.display()).collect()
}

fn index(tree: &SourceTree, name: &[u8]) -> u32 {
    u32::try_from(tree.entries().iter().position(|entry| entry.path.0 == name).unwrap()).unwrap()
}

#[test]
fn files_are_opened_in_the_order_that_is_asked_for_and_the_first_failure_is_told() {
    let fixture = Fixture::new();
    (0..20).for_each(|at| drop(fixture.write(format!("d/{at:02}"), &format!("{at}"))));
    let tree = fixture.walk("d").unwrap();
    let indices: Vec<u32> = (1..=20).rev().collect();
    let texts = tree.open(&indices).unwrap().into_iter().map(|file| {
        let mut text = String::new();
        File::from(file).read_to_string(&mut text).unwrap();
        text
    });
    assert_eq!(texts.collect::<Vec<_>>(), (0..20).rev().map(|at| at.to_string()).collect::<Vec<_>>());
    fs::remove_file(fixture.path("d/03")).unwrap();
    fs::remove_file(fixture.path("d/05")).unwrap();
    let failure = tree.open(&(1..=20).collect::<Vec<_>>()).unwrap_err();
    assert!(failure.reason == Reason::SourceChanged && failure.message.contains("d/03"), "{failure}");
}

fn read(tree: &SourceTree, index: u32) -> String {
    let mut text = String::new();
    File::from(tree.open(&[index]).unwrap().remove(0)).read_to_string(&mut text).unwrap();
    text
}

fn mkfifo(path: &Path) {
    rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, 0o644.into(), 0).unwrap();
}

#[test]
fn a_tree_comes_sorted_with_modes_times_links_and_any_names() {
    let fixture = Fixture::new();
    let old = UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    let file = fixture.write("in/a/f", "12345");
    fs::set_permissions(&file, Permissions::from_mode(0o4640)).unwrap();
    File::open(&file).unwrap().set_modified(old).unwrap();
    fixture.write("in/a-b", "x");
    fixture.write(Path::new("in").join(OsStr::from_bytes(b"\xff\xfe\n")), "odd");
    fs::create_dir_all(fixture.path("in/empty/inner")).unwrap();
    symlink("../a-b", fixture.path("in/a/up")).unwrap();
    symlink("missing", fixture.path("in/dangling")).unwrap();
    fs::create_dir(fixture.path("in/.nixl-transfer")).unwrap();

    let tree = fixture.walk("in").unwrap();
    let paths: Vec<&[u8]> = tree.entries().iter().map(|entry| entry.path.0.as_slice()).collect();
    let expected: [&[u8]; 10] = [
        b"",
        b".nixl-transfer",
        b"a",
        b"a-b",
        b"a/f",
        b"a/up",
        b"dangling",
        b"empty",
        b"empty/inner",
        b"\xff\xfe\n",
    ];
    assert_eq!(paths, expected);
    let mtime = crate::protocol::entry::Time { seconds: 1_000_000_000, nanoseconds: 123_456_789 };
    let inode = fs::metadata(&file).unwrap().ino();
    let kind = EntryKind::File { size: 5, mode: 0o640, mtime, inode };
    assert_eq!(tree.entries()[4].kind, kind, "no set-user-id");
    assert!(matches!(&tree.entries()[5].kind, EntryKind::Link { target } if target.0 == b"../a-b"));
    assert_eq!(tree.totals(), Totals { entries: 10, files: 3, bytes: 9 });
    assert_eq!(read(&tree, 9), "odd");
    assert_eq!(tree.open(&[5]).unwrap_err().reason, Reason::IoError, "a link is not opened");
    assert_eq!(tree.open(&[99]).unwrap_err().reason, Reason::IoError);
    crate::manifest::check(tree.entries(), tree.totals()).expect("the other end takes what this end makes");
}

#[test]
fn a_file_alone_is_one_entry_without_a_name() {
    let fixture = Fixture::new();
    fixture.write("in/file", "alone");
    let tree = fixture.walk("./in//file").unwrap();
    assert_eq!(names(&tree), [""]);
    assert_eq!(read(&tree, 0), "alone");
    crate::manifest::check(tree.entries(), tree.totals()).unwrap();
    fs::remove_file(fixture.path("in/file")).unwrap();
    assert_eq!(tree.open(&[0]).unwrap_err().reason, Reason::SourceChanged);
}

#[test]
fn the_volumes_root_can_be_moved_but_not_our_own_directory_in_it() {
    let fixture = Fixture::new();
    fixture.write(".nixl-transfer/uid/0", "partial");
    assert_eq!(fixture.walk("").unwrap_err().reason, Reason::SourceEmpty);
    fixture.write("file", "x");
    assert_eq!(names(&fixture.walk("").unwrap()), ["", "file"]);
    fixture.refused(".nixl-transfer/uid/0", Reason::InvalidPath, &[".nixl-transfer"]);
}

#[test]
fn filters() {
    let fixture = Fixture::new();
    for path in ["in/a.txt", "in/b.bin", "in/d/c.txt", "in/d/e/f.bin", "in/skip/g.txt"] {
        fixture.write(path, "x");
    }
    fs::create_dir_all(fixture.path("in/empty")).unwrap();
    mkfifo(&fixture.path("in/skip/pipe"));
    let walked =
        |include: &[&str], exclude: &[&str]| names(&fixture.filtered("in", include, exclude).unwrap());
    assert_eq!(walked(&["*.txt"], &["skip"]), ["", "a.txt", "d", "d/c.txt"]);
    assert_eq!(walked(&["d/**"], &[]), ["", "d", "d/c.txt", "d/e", "d/e/f.bin"]);
    assert_eq!(walked(&[], &["*.bin", "skip"]), ["", "a.txt", "d", "d/c.txt", "d/e", "empty"]);
    let nothing = fixture.filtered("in", &["*.none"], &[]).unwrap_err();
    assert!(nothing.reason == Reason::SourceEmpty && nothing.message.contains("include"), "{nothing}");
    assert_eq!(fixture.filtered("in", &["["], &[]).unwrap_err().reason, Reason::InvalidSpec);
}

#[test]
fn what_is_refused_names_place_and_remedy() {
    let fixture = Fixture::new();
    fixture.write("real/file", "x");
    fs::create_dir(fixture.path("empty")).unwrap();
    fixture.refused("empty", Reason::SourceEmpty, &["empty"]);
    fixture.refused("not/there", Reason::SourceNotFound, &["not/there"]);
    fixture.refused("real/file/below", Reason::SourceNotFound, &["real/file/below"]);
    fixture.refused("../x", Reason::InvalidPath, &[".."]);
    fixture.refused(&"x".repeat(256), Reason::InvalidPath, &["255"]);
    fixture.refused(&"ü/".repeat(400), Reason::InvalidPath, &["1,024"]);
    symlink("real", fixture.path("link")).unwrap();
    fixture.refused("link", Reason::InvalidPath, &["link"]);
    fixture.refused("link/file", Reason::InvalidPath, &["link/file"]);
    mkfifo(&fixture.path("pipe"));
    fixture.refused("pipe", Reason::NotRegularFile, &["pipe", "FIFO"]);
    mkfifo(&fixture.path("tree/inner/pipe"));
    fixture.refused("tree", Reason::NotRegularFile, &["inner/pipe", "FIFO", "exclude"]);
    let _socket = std::os::unix::net::UnixListener::bind(fixture.path("sockets/socket")).unwrap();
    fixture.refused("sockets", Reason::NotRegularFile, &["sockets/socket", "socket"]);
}

#[test]
fn links_that_leave_the_tree() {
    for (at, target) in [
        ("link", "/etc/passwd"),
        ("link", ".."),
        ("link", "../outside"),
        ("d/link", "../../outside"),
        ("link", "d/../../x"),
        // Through another link `..` would be another directory than the text suggests.
        ("link", "to-d/../.."),
    ] {
        let fixture = Fixture::new();
        fixture.write("in/d/file", "x");
        symlink("d", fixture.path("in/to-d")).unwrap();
        symlink(target, fixture.path(format!("in/{at}"))).unwrap();
        fixture.refused("in", Reason::InvalidPath, &[at, target, "exclude"]);
        fixture.filtered("in", &[], &["link"]).expect("left out by a filter");
    }
}

#[test]
fn a_hard_link_to_a_foreign_file() {
    let fixture = Fixture::new();
    let file = fixture.write("secret", "x");
    fs::hard_link(&file, fixture.path("in/link")).unwrap();
    fixture.walk("in").expect("of the same owner");
    if !rustix::process::geteuid().is_root() {
        return; // only root can give a file away
    }
    std::os::unix::fs::chown(&file, Some(12_345), None).unwrap();
    fixture.refused("in", Reason::NotRegularFile, &["in/link", "hard link", "exclude"]);
    fixture.refused("in/link", Reason::NotRegularFile, &["in/link", "hard link"]);
    fs::remove_file(&file).unwrap();
    fixture.walk("in").expect("with one name it is the directory's own");
}

#[test]
fn changes_are_seen_whatever_they_touch() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 6] = [
        ("from 3 to 4 bytes", |path| fs::write(path, "1234").unwrap()),
        ("from 3 to 0 bytes", |path| fs::write(path, "").unwrap()),
        ("is gone", |path| fs::remove_file(path).unwrap()),
        ("was replaced", |path| {
            fs::remove_file(path).unwrap();
            mkfifo(path);
        }),
        ("was replaced", |path| {
            fs::remove_file(path).unwrap();
            symlink("/etc/passwd", path).unwrap();
        }),
        ("written or replaced", |path| {
            // Same bytes, same size, same mtime: the inode and the time of change tell.
            let modified = fs::metadata(path).unwrap().modified().unwrap();
            let copy = path.with_extension("copy");
            fs::copy(path, &copy).unwrap();
            File::options().write(true).open(&copy).unwrap().set_modified(modified).unwrap();
            fs::rename(&copy, path).unwrap();
        }),
    ];
    for (words, change) in changes {
        let fixture = Fixture::new();
        let path = fixture.write("in/file", "123");
        let tree = fixture.walk("in").unwrap();
        let at = index(&tree, b"file");
        tree.open(&[at]).unwrap();
        change(&path);
        let failure = tree.open(&[at]).unwrap_err();
        assert_eq!(failure.reason, Reason::SourceChanged, "{failure}");
        assert!(
            failure.message.contains(words) && failure.message.contains("in/file in volume data"),
            "{failure}"
        );
    }
}

#[test]
fn a_directory_swapped_for_a_link_is_not_followed() {
    let fixture = Fixture::new();
    fixture.write("in/d/file", "mine");
    fixture.write("elsewhere/file", "not");
    let tree = fixture.walk("in").unwrap();
    fs::rename(fixture.path("in/d"), fixture.path("moved")).unwrap();
    symlink("../elsewhere", fixture.path("in/d")).unwrap();
    assert_eq!(tree.open(&[index(&tree, b"d/file")]).unwrap_err().reason, Reason::SourceChanged);
}

#[test]
fn cancelled_walks_end() {
    let fixture = Fixture::new();
    fixture.write("in/file", "x");
    let at = VolumeRef { name: "data".into(), path: "in".into() };
    let source = SourceVolume { at, include: Vec::new(), exclude: Vec::new() };
    let failure = SourceTree::walk(&fixture.volume, &source, &AtomicBool::new(true)).unwrap_err();
    assert_eq!(failure.reason, Reason::Cancelled);
}

#[test]
fn a_file_that_was_read_before_is_known_until_it_changes() {
    let fixture = Fixture::new();
    let large = "x".repeat(WORTH as usize);
    let path = fixture.write("in/file", &large);
    fixture.write("in/small", "data");
    let remembered = std::sync::Arc::new(crate::volume::Remembered::default());
    let walk = || fixture.walk("in").unwrap().remembering(remembered.of("ml"), Algorithm::Xxh3);
    let mut tree = walk();
    tree.remember(1, &[1]);
    assert_eq!(tree.known(1), None, "changed too shortly before");
    tree.walked.seconds += 10;
    tree.remember(1, &[1]);
    tree.remember(0, &[2]);
    tree.remember(2, &[2]);
    assert_eq!([0, 1, 2, 9].map(|index| tree.known(index)), [None, Some(vec![1]), None, None]);
    assert_eq!(walk().known(1), Some(vec![1]));
    let other = fixture.walk("in").unwrap().remembering(remembered.of("other"), Algorithm::Xxh3);
    assert_eq!(other.known(1), None);
    assert_eq!(fixture.walk("in").unwrap().known(1), None, "without a memory");
    fs::write(&path, "shorter").unwrap();
    assert!(tree.open(&[1]).is_err(), "which is asked together with what is known");
    // What was read of it may be of before or of after.
    tree.remember(1, &[3]);
    fs::write(&path, large.replace('x', "y")).unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(UNIX_EPOCH).unwrap();
    assert_eq!(walk().known(1), None);
}
