//! Properties of frames: what is written is read; any bytes are refused or are exactly what would be written.

use proptest::prelude::*;

use super::*;
use crate::protocol::entry::{EntryKind, RelativePath, Time};

/// A frame that owns its bytes, to be made by a strategy.
#[derive(Clone, Debug)]
enum Owned {
    Manifest(Vec<Entry>),
    ManifestEnd(Totals),
    Data(u32, u64, Vec<u8>),
    FileEnd(u32, u64, Vec<u8>),
    Resumed(u32, u64, Vec<u8>),
    Same(u32, u64, Vec<u8>),
    Checked(u32, u64),
    End(Totals, Vec<u8>),
}

impl Owned {
    fn frame(&self) -> Frame<'_> {
        match self {
            Self::Manifest(entries) => Frame::Manifest(entries.clone()),
            Self::ManifestEnd(totals) => Frame::ManifestEnd(*totals),
            Self::Data(index, offset, bytes) => Frame::Data { index: *index, offset: *offset, bytes },
            Self::FileEnd(index, size, digest) => Frame::FileEnd { index: *index, size: *size, digest },
            Self::Resumed(index, offset, digest) => Frame::Resumed { index: *index, offset: *offset, digest },
            Self::Same(index, size, digest) => Frame::Same { index: *index, size: *size, digest },
            Self::Checked(index, bytes) => Frame::Checked { index: *index, bytes: *bytes },
            Self::End(totals, digest) => Frame::End { totals: *totals, digest },
        }
    }
}

fn write(frames: &[Frame<'_>]) -> Vec<u8> {
    let mut bytes = vec![0; 64 << 10];
    let mut writer = FrameWriter::new(&mut bytes, 0);
    for frame in frames {
        let written = match frame {
            Frame::Manifest(entries) => {
                let texts: Vec<Vec<u8>> = entries.iter().map(encoded_entry).collect();
                writer.manifest(texts.iter().map(Vec::as_slice)) == entries.len()
            }
            Frame::ManifestEnd(totals) => writer.manifest_end(*totals),
            Frame::Data { index, offset, bytes } => writer.data(*index, *offset, bytes),
            Frame::FileEnd { index, size, digest } => writer.file_end(*index, *size, digest),
            Frame::Resumed { index, offset, digest } => writer.resumed(*index, *offset, digest),
            Frame::Same { index, size, digest } => writer.same(*index, *size, digest),
            Frame::Checked { index, bytes } => writer.checked(*index, *bytes),
            Frame::End { totals, digest } => writer.end(*totals, digest),
        };
        assert!(written, "{frame:?} did not fit");
    }
    let length = writer.position();
    bytes.truncate(length);
    bytes
}

fn read(bytes: &[u8]) -> Result<Vec<Frame<'_>>, WireError> {
    Frames::new(bytes)?.collect()
}

fn path() -> impl Strategy<Value = RelativePath> {
    prop_oneof![prop::collection::vec(any::<u8>(), 0..40), any::<String>().prop_map(String::into_bytes)]
        .prop_map(RelativePath)
}

fn entry() -> impl Strategy<Value = Entry> {
    let time =
        (any::<i64>(), 0..1_000_000_000_u32).prop_map(|(seconds, nanoseconds)| Time { seconds, nanoseconds });
    let kind = prop_oneof![
        (any::<u32>(), time.clone()).prop_map(|(mode, mtime)| EntryKind::Directory { mode, mtime }),
        (any::<u64>(), any::<u32>(), time, any::<u64>())
            .prop_map(|(size, mode, mtime, inode)| EntryKind::File { size, mode, mtime, inode }),
        path().prop_map(|target| EntryKind::Link { target }),
    ];
    (path(), kind).prop_map(|(path, kind)| Entry { path, kind })
}

fn frame() -> impl Strategy<Value = Owned> {
    let totals = (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(entries, files, bytes)| Totals {
        entries,
        files,
        bytes,
    });
    let digest = prop::collection::vec(any::<u8>(), 1..=MAX_DIGEST);
    prop_oneof![
        prop::collection::vec(entry(), 1..5).prop_map(Owned::Manifest),
        totals.clone().prop_map(Owned::ManifestEnd),
        (any::<u32>(), 0..1_u64 << 62, prop::collection::vec(any::<u8>(), 1..300))
            .prop_map(|(index, offset, bytes)| Owned::Data(index, offset, bytes)),
        (any::<u32>(), 0..1_u64 << 63, digest.clone())
            .prop_map(|(index, size, digest)| Owned::FileEnd(index, size, digest)),
        (any::<u32>(), 1..1_u64 << 63, digest.clone())
            .prop_map(|(index, offset, digest)| Owned::Resumed(index, offset, digest)),
        (any::<u32>(), 0..1_u64 << 63, digest.clone())
            .prop_map(|(index, size, digest)| Owned::Same(index, size, digest)),
        (any::<u32>(), any::<u64>()).prop_map(|(index, bytes)| Owned::Checked(index, bytes)),
        (totals, digest).prop_map(|(totals, digest)| Owned::End(totals, digest)),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(owned in prop::collection::vec(frame(), 1..8)) {
        let frames: Vec<Frame<'_>> = owned.iter().map(Owned::frame).collect();
        let bytes = write(&frames);
        prop_assert_eq!(read(&bytes), Ok(frames));
    }

    #[test]
    fn a_cut_is_found_or_falls_between_two_frames(owned in prop::collection::vec(frame(), 1..5), cut in any::<prop::sample::Index>()) {
        let frames: Vec<Frame<'_>> = owned.iter().map(Owned::frame).collect();
        let bytes = write(&frames);
        let cut = cut.index(bytes.len());
        if let Ok(some) = read(&bytes[..cut]) {
            prop_assert_eq!(&some[..], &frames[..some.len()]);
            prop_assert_eq!(write(&some).len(), cut);
        }
    }

    /// Whatever comes is refused, or is the very text of the frames that are read from it.
    #[test]
    fn bytes_are_refused_or_canonical(mut bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0_u8..10) {
        if let Some(first) = bytes.first_mut() {
            *first = kind;
        }
        if let Ok(frames) = read(&bytes) {
            prop_assert_eq!(write(&frames), bytes);
        }
    }

    #[test]
    fn a_changed_byte_is_refused_or_canonical(
        owned in prop::collection::vec(frame(), 1..4), at in any::<prop::sample::Index>(), change in 1_u8..,
    ) {
        let mut bytes = write(&owned.iter().map(Owned::frame).collect::<Vec<_>>());
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        if let Ok(frames) = read(&bytes) {
            prop_assert_eq!(write(&frames), bytes);
        }
    }
}

#[test]
fn lengths_beyond_their_bounds_are_refused_before_they_are_used() {
    let part = [&[MANIFEST][..], &u32::MAX.to_le_bytes()].concat();
    assert!(matches!(read(&part), Err(WireError::Bounds { .. })));
    let piece = |offset: u64, length: u32| {
        [&[DATA][..], &7_u32.to_le_bytes(), &offset.to_le_bytes(), &length.to_le_bytes(), b"abc"].concat()
    };
    assert!(read(&piece(0, 3)).is_ok());
    assert_eq!(read(&piece(0, 4)), Err(WireError::CutOff(20)));
    assert!(matches!(read(&piece(0, 0)), Err(WireError::Bounds { .. })));
    assert!(matches!(read(&piece(u64::MAX, 3)), Err(WireError::Bounds { .. })));
    assert!(matches!(read(&piece(i64::MAX as u64 - 2, 3)), Err(WireError::Bounds { .. })));
    assert_eq!(read(&[]), Err(WireError::Empty));
}

#[test]
fn a_frame_that_does_not_fit_leaves_everything_as_it_was() {
    let mut bytes = [0xEE; 20];
    let mut writer = FrameWriter::new(&mut bytes, 1);
    assert!(!writer.data(1, 2, &[0; 3]));
    assert!(!writer.file_end(1, 2, &[0; 16]));
    assert!(!writer.manifest_end(Totals::default()));
    assert_eq!(writer.manifest([&[b'x'; 14][..]]), 0);
    assert_eq!(writer.position(), 1);
    assert_eq!(bytes, [0xEE; 20]);
}
