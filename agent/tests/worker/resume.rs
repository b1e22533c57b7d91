//! What a target has of a file is not sent again, when it is proven to be the source's; else the file comes whole.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use nixl_transfer_crds::Algorithm;
use transfer_agent::digest;
use transfer_agent::protocol::{Counters, FromWorker, Prefix, StreamOptions};

use super::conductor::{Conductor, failure, options};
use super::{Outcome, assert_same, content, file, folders};

const SIZE: usize = 56 << 20;
const PART: u64 = 40 << 20;

fn prefix(bytes: &[u8]) -> Prefix {
    Prefix { length: bytes.len() as u64, digest: digest::of(Algorithm::Xxh3, bytes).bytes }
}

/// Moves a file of which the target has a part; gives what the source sent and the target took.
fn resumed(here: &[u8], said: Prefix, source: &[u8]) -> Outcome<(Counters, Counters)> {
    let (from, to) = folders()?;
    file(from.path(), "large", source)?;
    fs::write(to.path().join("large"), here)?;
    let mut conductor = Conductor::start(from.path(), to.path(), options(1 << 20, 8), None)?;
    conductor.target.prefixes.insert("large".into(), said);
    conductor.run()?;
    assert_same(from.path(), to.path())?;
    let counters = (conductor.source.sent, conductor.target.arrived);
    Ok((counters.0.ok_or("no counters")?, counters.1.ok_or("no counters")?))
}

#[test]
fn what_is_here_is_not_sent_again() -> Outcome {
    let source = content(SIZE, 1);
    let (sent, arrived) = resumed(&source[..PART as usize], prefix(&source[..PART as usize]), &source)?;
    assert_eq!(sent.bytes, SIZE as u64 - PART);
    assert_eq!((arrived.bytes, arrived.resumed), (SIZE as u64, PART));
    Ok(())
}

#[test]
fn a_source_that_was_changed_since_is_never_spliced() -> Outcome {
    let mut source = content(SIZE, 1);
    let before = source[..PART as usize].to_vec();
    source[4711] ^= 1;
    let (sent, arrived) = resumed(&before, prefix(&before), &source)?;
    assert_eq!((sent.bytes, arrived.resumed), (SIZE as u64, 0));
    Ok(())
}

#[test]
fn a_partial_file_that_is_not_what_its_journal_says_is_not_believed() -> Outcome {
    let source = content(SIZE, 1);
    let said = prefix(&source[..PART as usize]);
    let mut damaged = source[..PART as usize].to_vec();
    damaged[PART as usize - 1] ^= 1;
    for here in [&damaged, &source[..PART as usize - 1]] {
        let (sent, arrived) = resumed(here, said.clone(), &source)?;
        assert_eq!((sent.bytes, arrived.resumed), (SIZE as u64, 0));
    }
    Ok(())
}

/// What is said to be durable is on the disk with that digest, and of what is written no more is unsaid than may be lost.
#[test]
fn checkpoints_say_what_is_durable() -> Outcome {
    let (from, to) = folders()?;
    let source = content(SIZE, 3);
    file(from.path(), "large", &source)?;
    let mut conductor = Conductor::start(from.path(), to.path(), options(1 << 20, 8), None)?;
    conductor.run()?;
    let durable = &conductor.target.durable;
    assert!(
        durable.iter().all(|(index, said)| *index == 1 && prefix(&source[..said.length as usize]) == *said)
    );
    let lengths: Vec<u64> = durable.iter().map(|(_, said)| said.length >> 20).collect();
    assert_eq!(lengths.len(), 3, "{lengths:?}");
    assert!(lengths.windows(2).all(|pair| pair[1] - pair[0] <= 18), "{lengths:?}");
    Ok(())
}

/// A target that is killed goes on from its last checkpoint in another worker, and less than 64 MiB come twice.
#[test]
fn a_killed_target_goes_on_from_its_last_checkpoint() -> Outcome {
    let (from, to) = folders()?;
    let source = content(160 << 20, 5);
    file(from.path(), "large", &source)?;
    let mut conductor = Conductor::start(from.path(), to.path(), options(1 << 20, 8), None)?;
    conductor.source.open_files()?;
    conductor.await_manifest()?;
    conductor.target.open_partials()?;
    while conductor.target.durable.last().is_none_or(|(_, said)| said.length < 80 << 20) {
        let event = conductor.target.next()?;
        conductor.target.said(event)?;
    }
    conductor.target.kill()?;
    let written = to.path().join("large").metadata()?.len();
    let durable = loop {
        // What it said before its end.
        match conductor.target.events.recv() {
            Ok(FromWorker::Durable { length, digest, .. }) => {
                conductor.target.durable.push((1, Prefix { length, digest }))
            }
            Ok(_) => {}
            Err(_) => break conductor.target.durable.last().ok_or("nothing durable")?.1.clone(),
        }
    };
    let (lost, _) = failure(&conductor.source)?;
    assert!(written - durable.length < 64 << 20, "{written} written, {} durable: {lost}", durable.length);

    // As control opens it: what is beyond the checkpoint is cut off.
    OpenOptions::new().write(true).open(to.path().join("large"))?.set_len(durable.length)?;
    let mut again = Conductor::start(from.path(), to.path(), options(1 << 20, 8), None)?;
    again.target.prefixes.insert("large".into(), durable.clone());
    again.run()?;
    assert_eq!(again.source.sent.ok_or("no counters")?.bytes, (160 << 20) - durable.length);
    assert_same(from.path(), to.path())
}

/// The file that stands at the destination is compared where it lies; a change of it is the source's to send.
#[test]
fn a_file_of_the_same_size_is_sent_only_when_it_differs() -> Outcome {
    let (from, to) = folders()?;
    file(from.path(), "same", &content(3 << 20, 1))?;
    file(from.path(), "other", &content(3 << 20, 2))?;
    file(to.path(), "same", &content(3 << 20, 1))?;
    file(to.path(), "other", &content(3 << 20, 2))?;
    OpenOptions::new().write(true).open(to.path().join("other"))?.write_all_at(b"x", 1 << 20)?;
    let mut conductor = Conductor::start(from.path(), to.path(), options(256 << 10, 8), None)?;
    conductor.run()?;
    assert_eq!(conductor.source.sent.ok_or("no counters")?.bytes, 3 << 20);
    let mut identical: Vec<_> =
        conductor.target.stored.iter().map(|file| (file.index, file.identical)).collect();
    identical.sort_unstable();
    assert_eq!(identical, [(1, false), (2, true)]);
    assert_eq!(fs::read(to.path().join("other.beside"))?, content(3 << 20, 2));
    Ok(())
}

/// To compare takes longer than a hop may stand still: that is work, and is told as such.
#[test]
fn what_takes_long_to_compare_is_no_standing_still() -> Outcome {
    let (from, to) = folders()?;
    // Zeros without a byte on the disk, so much that no processor is through them in that time.
    for folder in [&from, &to] {
        file(folder.path(), "large", b"")?;
        OpenOptions::new().write(true).open(folder.path().join("large"))?.set_len(24 << 30)?;
    }
    let stream = StreamOptions { progress_seconds: 2, ..options(256 << 10, 4) };
    let mut conductor = Conductor::start(from.path(), to.path(), stream, None)?;
    conductor.run()?;
    assert_eq!(conductor.source.sent.ok_or("no counters")?.bytes, 0);
    let arrived = conductor.target.arrived.ok_or("no counters")?;
    assert_eq!((arrived.bytes, arrived.resumed), (24 << 30, 24 << 30));
    assert!(arrived.signs > 1, "{arrived:?}");
    Ok(())
}
