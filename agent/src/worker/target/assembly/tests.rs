//! Which frames come when: one good order, and everything that is not it.

use super::*;
use crate::protocol::entry::RelativePath;

const TIME: Time = Time { seconds: 1, nanoseconds: 0 };
const DIGEST: [u8; 8] = [7; 8];

fn entries() -> Vec<Entry> {
    let directory = EntryKind::Directory { mode: 0o755, mtime: TIME };
    let file = |size| EntryKind::File { size, mode: 0o644, mtime: TIME, inode: 1 };
    [("", directory), ("a", file(4)), ("b", file(0)), ("c", file(2))]
        .map(|(path, kind)| Entry { path: RelativePath(path.into()), kind })
        .into()
}

fn totals() -> Totals {
    Totals { entries: 4, files: 3, bytes: 6 }
}

fn good() -> Vec<Frame<'static>> {
    vec![
        Frame::Manifest(entries()[..2].to_vec()),
        Frame::Manifest(entries()[2..].to_vec()),
        Frame::ManifestEnd(totals()),
        Frame::Data { index: 1, offset: 0, bytes: b"abc" },
        Frame::Data { index: 1, offset: 3, bytes: b"d" },
        Frame::FileEnd { index: 1, size: 4, digest: &DIGEST },
        Frame::FileEnd { index: 2, size: 0, digest: &DIGEST },
        Frame::Data { index: 3, offset: 0, bytes: b"xy" },
        Frame::FileEnd { index: 3, size: 2, digest: &DIGEST },
        Frame::End { totals: totals(), digest: &DIGEST },
    ]
}

/// Of the second file nothing is sent, of the third the second half.
fn shortened() -> Vec<Frame<'static>> {
    let mut frames = good();
    frames.splice(
        6..8,
        [
            Frame::Same { index: 2, size: 0, digest: &DIGEST },
            Frame::Checked { index: 3, bytes: 1 },
            Frame::Checked { index: 3, bytes: 2 },
            Frame::Resumed { index: 3, offset: 1, digest: &DIGEST },
            Frame::Data { index: 3, offset: 1, bytes: b"y" },
        ],
    );
    frames
}

/// The place of the first frame that was refused.
fn refused(frames: &[Frame<'static>]) -> Option<usize> {
    let mut assembly = Assembly::new(Algorithm::Crc64Nvme);
    frames.iter().position(|frame| assembly.take(frame.clone()).is_err())
}

#[test]
fn the_good_order_is_taken() {
    let mut assembly = Assembly::new(Algorithm::Crc64Nvme);
    for frame in good() {
        assert!(!assembly.is_done());
        assembly.take(frame).expect("in order");
    }
    assert!(assembly.is_done());
    assert_eq!(assembly.path(3), "c");
    assert_eq!(refused(&shortened()), None);
}

#[test]
fn no_frame_may_be_left_out_and_none_come_twice() {
    for place in 0..good().len() {
        let mut without = good();
        without.remove(place);
        assert!(refused(&without).is_some() || place == good().len() - 1, "without {place}");
        let mut twice = good();
        twice.insert(place, good()[place].clone());
        assert!(refused(&twice).is_some(), "{place} twice");
    }
}

#[test]
fn what_does_not_fit_the_manifest_is_refused() {
    for (place, bad) in [
        (2, Frame::ManifestEnd(Totals { bytes: 7, ..totals() })),
        (3, Frame::Data { index: 1, offset: 0, bytes: b"abcde" }),
        (3, Frame::Data { index: 1, offset: 1, bytes: b"abc" }),
        (3, Frame::Data { index: 0, offset: 0, bytes: b"abc" }),
        (3, Frame::Data { index: 9, offset: 0, bytes: b"abc" }),
        (5, Frame::FileEnd { index: 1, size: 3, digest: &DIGEST }),
        (5, Frame::FileEnd { index: 1, size: 4, digest: &DIGEST[..7] }),
        (9, Frame::End { totals: Totals { files: 2, ..totals() }, digest: &DIGEST }),
        (9, Frame::End { totals: totals(), digest: &[] }),
    ] {
        let mut frames = good();
        frames[place] = bad.clone();
        assert_eq!(refused(&frames), Some(place), "{bad:?}");
    }
    for (place, bad) in [
        (6, Frame::Same { index: 2, size: 1, digest: &DIGEST }),
        (6, Frame::Same { index: 3, size: 2, digest: &DIGEST }),
        (6, Frame::Same { index: 2, size: 0, digest: &DIGEST[..7] }),
        (8, Frame::Checked { index: 3, bytes: 3 }),
        (8, Frame::Checked { index: 3, bytes: 1 }),
        (9, Frame::Resumed { index: 3, offset: 3, digest: &DIGEST }),
        (9, Frame::Resumed { index: 3, offset: 1, digest: &[] }),
        (10, Frame::Data { index: 3, offset: 0, bytes: b"xy" }),
        (10, Frame::Resumed { index: 3, offset: 2, digest: &DIGEST }),
        (11, Frame::Checked { index: 3, bytes: 2 }),
        (11, Frame::Same { index: 3, size: 2, digest: &DIGEST }),
    ] {
        let mut frames = shortened();
        frames[place] = bad.clone();
        assert_eq!(refused(&frames), Some(place), "{bad:?}");
    }
}
