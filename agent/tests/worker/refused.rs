//! What a worker refuses, or cannot do, and how it says so.

use std::fs::{File, OpenOptions};

use nixl_transfer_crds::Reason;
use transfer_agent::protocol::ToWorker;

use super::conductor::{HOP, entries, failure, options, prepared, to_read, to_write};
use super::process::Worker;
use super::{Outcome, content, file, folders};

#[test]
fn a_file_system_without_room_is_told() -> Outcome {
    let (from, _) = folders()?;
    file(from.path(), "large", &content(1 << 20, 5))?;
    let worker = Worker::start("target", None)?;
    let source = Worker::start("source", None)?;
    let stream = options(256 << 10, 2);
    source.say(&ToWorker::OpenSource { hop: HOP, stream })?;
    worker.say(&ToWorker::OpenTarget {
        hop: HOP,
        stream,
        read_back: false,
        key: "full".into(),
        forward: None,
    })?;
    let (agent, offer) = (prepared(&source)?, prepared(&worker)?);
    source.say(&ToWorker::Connect { hop: HOP, metadata: offer, worker: worker.name.clone() })?;
    worker.say(&ToWorker::Connect { hop: HOP, metadata: agent, worker: source.name.clone() })?;
    let entries = entries(from.path())?;
    let totals = Some(transfer_agent::manifest::totals(&entries));
    source.say(&ToWorker::Manifest { hop: HOP, entries, totals })?;
    let give = |worker: &Worker, message: ToWorker, file: File| {
        worker.say_with(&message, &[std::os::fd::AsFd::as_fd(&file)])
    };
    give(
        &source,
        ToWorker::Files { hop: HOP, files: to_read(&[1]) },
        File::open(from.path().join("large"))?,
    )?;
    // The kernel's own device that is always full.
    let full = OpenOptions::new().write(true).open("/dev/full")?;
    give(&worker, ToWorker::Partials { hop: HOP, files: vec![to_write(1, false)] }, full)?;
    let (found, _) = failure(&worker)?;
    assert_eq!(found.reason, Reason::InsufficientSpace, "{found}");
    assert!(found.message.contains("1048576 bytes"), "{found}");
    Ok(())
}

#[test]
fn metadata_that_does_not_fit_is_refused_and_the_worker_lives() -> Outcome {
    let (worker, other) = (Worker::start("source", None)?, Worker::start("target", None)?);
    let stream = options(64 << 10, 4);
    other.say(&ToWorker::OpenTarget {
        hop: HOP,
        stream,
        read_back: false,
        key: "k".into(),
        forward: None,
    })?;
    let offer = prepared(&other)?;
    let mut cases = vec![
        (stream, "{}".to_owned(), other.name.clone(), Reason::MetadataMalformed),
        (stream, "x".repeat(300 << 10), other.name.clone(), Reason::MetadataTooLarge),
        (stream, offer.clone(), worker.name.clone(), Reason::MetadataRejected),
        (options(128 << 10, 4), offer.clone(), other.name.clone(), Reason::MetadataRejected),
        (options(64 << 10, 5), offer.clone(), other.name.clone(), Reason::MetadataRejected),
    ];
    // Damage within the agent's own metadata, which would end NIXL.
    let at = offer.find("b64:").ok_or("no metadata")? + 40;
    let mut damaged = offer.clone();
    damaged.replace_range(at..at + 4, if &offer[at..at + 4] == "AAAA" { "BBBB" } else { "AAAA" });
    cases.push((stream, damaged, other.name.clone(), Reason::MetadataMalformed));
    for (stream, metadata, name, reason) in cases {
        worker.say(&ToWorker::OpenSource { hop: HOP, stream })?;
        prepared(&worker)?;
        worker.say(&ToWorker::Connect { hop: HOP, metadata, worker: name })?;
        let (found, _) = failure(&worker)?;
        assert_eq!(found.reason, reason, "{found}");
    }
    // The other way round: a target is told of a source under another name than its own.
    worker.say(&ToWorker::OpenSource { hop: HOP, stream })?;
    let agent = prepared(&worker)?;
    other.say(&ToWorker::Connect { hop: HOP, metadata: agent, worker: other.name.clone() })?;
    let (found, _) = failure(&other)?;
    assert_eq!(found.reason, Reason::MetadataRejected, "{found}");
    Ok(())
}
