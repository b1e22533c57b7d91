//! Two real worker processes over real NIXL; the test plays control. What stands here cannot be shown with less: that
//! bytes arrive, that damage and changes are found, and how a worker ends.

#[path = "worker/chain.rs"]
mod chain;
#[path = "worker/conductor.rs"]
mod conductor;
#[path = "worker/faulty.rs"]
mod faulty;
#[path = "worker/network.rs"]
mod network;
#[path = "worker/process.rs"]
mod process;
#[path = "worker/refused.rs"]
mod refused;
#[path = "worker/resume.rs"]
mod resume;
#[path = "worker/target_end.rs"]
mod target_end;

use std::error::Error;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use conductor::{Conductor, HOP, entries, failure, options, prepared, to_read, to_write};
use faulty::FaultySource;
use nixl_transfer_crds::Reason;
use process::Worker;
use transfer_agent::protocol::{FromWorker, HopId, StreamOptions, ToWorker};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Bytes that differ from place to place.
fn content(length: usize, seed: u64) -> Vec<u8> {
    let word = |at: u64| (at + seed).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23).to_le_bytes();
    (0..length.div_ceil(8) as u64).flat_map(word).take(length).collect()
}

fn folders() -> Outcome<(tempfile::TempDir, tempfile::TempDir)> {
    let folder = || tempfile::Builder::new().prefix("nixl-transfer-worker-").tempdir();
    Ok((folder()?, folder()?))
}

fn file(folder: &Path, name: &str, bytes: &[u8]) -> Outcome {
    let mut file = File::create(folder.join(name))?;
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(0o640))?;
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789))?;
    Ok(())
}

fn assert_same(from: &Path, to: &Path) -> Outcome {
    for entry in entries(from)?.into_iter().skip(1) {
        let name = entry.path.display();
        assert_eq!(fs::read(from.join(&name))?, fs::read(to.join(&name))?, "{name}");
        let (one, other) = (from.join(&name).metadata()?, to.join(&name).metadata()?);
        let told = |m: &fs::Metadata| (m.mode(), m.mtime(), m.mtime_nsec());
        assert_eq!(told(&one), told(&other), "{name}");
    }
    Ok(())
}

#[test]
fn a_tree_arrives_equal() -> Outcome {
    let (from, to) = folders()?;
    file(from.path(), "large", &content(20 << 20, 1))?;
    file(from.path(), "empty", b"")?;
    for number in 0..300 {
        file(from.path(), &format!("small-{number:03}"), &content(number * 37, number as u64))?;
    }
    // One that stands there with the same content, one with other content of the same size.
    file(to.path(), "small-007", &content(7 * 37, 7))?;
    file(to.path(), "small-008", &content(8 * 37, 99))?;
    let mut conductor = Conductor::start(from.path(), to.path(), options(256 << 10, 8), None)?;
    conductor.run()?;
    let identical: Vec<u32> =
        conductor.target.stored.iter().filter(|file| file.identical).map(|file| file.index).collect();
    // The root, `empty` and `large` come before.
    assert_eq!(identical, [3 + 7]);
    fs::rename(to.path().join("small-008.beside"), to.path().join("small-008"))?;
    assert_same(from.path(), to.path())?;
    let bytes = entries(from.path())?.iter().map(size).sum::<u64>();
    // Of the identical one nothing was sent.
    let same = 7 * 37;
    for (counters, expected) in
        [(conductor.source.sent, (bytes - same, 0)), (conductor.target.arrived, (bytes, same))]
    {
        let counters = counters.ok_or("no counters")?;
        assert_eq!((counters.bytes, counters.resumed), expected);
        assert_eq!((counters.files, counters.resent), (302, 0));
    }
    assert_eq!(conductor.target.stored.len(), 302);
    assert!(conductor.source.hang_up()?.success());
    Ok(())
}

/// NIXL refuses transports without CUDA where sysfs shows an NVIDIA GPU. A fake one is shown to the same test again, in a mount
/// namespace of its own.
#[test]
fn a_tree_arrives_on_a_node_with_a_gpu_that_nobody_wants() -> Outcome {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: a mount namespace needs root");
        return Ok(());
    }
    let script = "set -e; pci=/sys/bus/pci/devices; mount -t tmpfs none $pci; mkdir $pci/0000:17:00.0; \
                  echo 0x10de >$pci/0000:17:00.0/vendor; echo 0x030200 >$pci/0000:17:00.0/class; exec \"$@\"";
    let output = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(std::env::current_exe()?)
        .args(["--exact", "a_tree_arrives_equal", "--nocapture"])
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    Ok(())
}

fn size(entry: &transfer_agent::protocol::entry::Entry) -> u64 {
    match entry.kind {
        transfer_agent::protocol::entry::EntryKind::File { size, .. } => size,
        _ => 0,
    }
}

#[test]
fn a_damaged_chunk_is_found_and_sent_again() -> Outcome {
    let (from, to) = folders()?;
    file(from.path(), "large", &content(8 << 20, 5))?;
    let mut conductor = Conductor::start(from.path(), to.path(), options(256 << 10, 4), Some(9))?;
    conductor.run()?;
    for counters in [conductor.source.sent, conductor.target.arrived] {
        assert_eq!(counters.ok_or("no counters")?.resent, 1);
    }
    assert_same(from.path(), to.path())
}

/// A bound that no machine can miss by being slow. That the limit is exact is shown where the clock is an argument.
#[test]
fn a_limited_hop_takes_its_time() -> Outcome {
    let (from, to) = folders()?;
    file(from.path(), "large", &content(3 << 20, 5))?;
    let limited = StreamOptions { bytes_per_second: Some(2 << 20), ..options(1 << 20, 8) };
    let mut conductor = Conductor::start(from.path(), to.path(), limited, None)?;
    let since = Instant::now();
    conductor.run()?;
    assert!(since.elapsed() >= Duration::from_millis(1400), "took {:?}", since.elapsed());
    assert_same(from.path(), to.path())
}

#[test]
fn a_file_that_changes_while_it_is_read_is_never_whole() -> Outcome {
    let (from, to) = folders()?;
    file(from.path(), "large", &content(8 << 20, 5))?;
    // So slow that the source is not at its end when it was changed.
    let slow = StreamOptions { bytes_per_second: Some(2 << 20), ..options(256 << 10, 2) };
    let mut conductor = Conductor::start(from.path(), to.path(), slow, None)?;
    conductor.source.open_files()?;
    conductor.await_manifest()?;
    conductor.target.open_partials()?;
    let since = Instant::now();
    while to.path().join("large").metadata()?.len() == 0 {
        assert!(since.elapsed() < process::PATIENCE, "nothing is written");
        std::thread::sleep(Duration::from_millis(5)); // polls a file, which gives no event
    }
    let mut writer = OpenOptions::new().write(true).open(from.path().join("large"))?;
    writer.seek(SeekFrom::Start(8 << 10))?;
    writer.write_all(b"new")?;
    drop(writer);
    let (source, _) = failure(&conductor.source)?;
    assert_eq!(source.reason, Reason::SourceChanged, "{source}");
    assert!(source.message.contains("large"), "{source}");
    // The source's worker goes; until then and after the target has nothing whole.
    assert!(conductor.source.hang_up()?.success());
    let (target, before) = failure(&conductor.target)?;
    assert_eq!(target.reason, Reason::PeerLost, "{target}");
    assert!(before.iter().all(|event| matches!(event, FromWorker::Progress { .. })), "{before:?}");
    Ok(())
}

#[test]
fn a_killed_target_is_a_lost_peer() -> Outcome {
    let (from, to) = folders()?;
    file(from.path(), "large", &content(8 << 20, 5))?;
    let mut conductor = Conductor::start(from.path(), to.path(), options(256 << 10, 2), None)?;
    conductor.source.open_files()?;
    conductor.await_manifest()?;
    conductor.target.kill()?;
    let killed = Instant::now();
    let (source, _) = failure(&conductor.source)?;
    assert_eq!(source.reason, Reason::PeerLost, "{source}");
    assert!(killed.elapsed() < Duration::from_secs(10), "took {:?}", killed.elapsed());
    // It serves other hops on.
    conductor.source.say(&ToWorker::OpenSource { hop: HOP, stream: options(64 << 10, 2) })?;
    prepared(&conductor.source)?;
    Ok(())
}

#[test]
fn a_hop_that_is_closed_leaves_the_workers_other_hop_alone() -> Outcome {
    let (from, to) = folders()?;
    file(from.path(), "large", &content(8 << 20, 5))?;
    let stream = options(256 << 10, 2);
    let mut conductor = Conductor::start(from.path(), to.path(), stream, None)?;
    // A second hop of the same source, stuck in its stream: its target has no file to write into.
    let (stuck, second) = (HopId(9), Worker::start("target", None)?);
    conductor.source.say(&ToWorker::OpenSource { hop: stuck, stream })?;
    second.say(&ToWorker::OpenTarget {
        hop: HOP,
        stream,
        read_back: false,
        key: "second".into(),
        forward: None,
    })?;
    let FromWorker::Prepared { hop: HopId(9), metadata: agent } = conductor.source.next()? else {
        return Err("the second hop was not prepared".into());
    };
    let offer = prepared(&second)?;
    conductor.source.say(&ToWorker::Connect { hop: stuck, metadata: offer, worker: second.name.clone() })?;
    second.say(&ToWorker::Connect { hop: HOP, metadata: agent, worker: conductor.source.name.clone() })?;
    let entries = entries(from.path())?;
    let totals = Some(transfer_agent::manifest::totals(&entries));
    conductor.source.say(&ToWorker::Manifest { hop: stuck, entries, totals })?;
    let large = File::open(from.path().join("large"))?;
    let files = ToWorker::Files { hop: stuck, files: to_read(&[1]) };
    conductor.source.say_with(&files, &[std::os::fd::AsFd::as_fd(&large)])?;
    assert!(matches!(second.next()?, FromWorker::Uses { .. }));
    assert!(matches!(second.next()?, FromWorker::Manifest { .. }));
    conductor.source.say(&ToWorker::Close { hop: stuck })?;
    conductor.run()?;
    assert_same(from.path(), to.path())?;
    assert!(conductor.source.hang_up()?.success());
    Ok(())
}

/// Not a test of its own: the body of the process that the next one starts.
#[test]
#[ignore = "a role for the process that another test starts"]
fn faulty_source() {
    faulty::run();
}

#[test]
fn wrong_bytes_are_found_although_every_chunk_is_sound() -> Outcome {
    let stream = options(64 << 10, 2);
    let cases = [
        ("none", None),
        ("file", Some("f: the digest of what arrived")),
        ("whole", Some("the digest of the whole")),
        ("disk", Some("f: the disk gives back other bytes")),
    ];
    for (fault, words) in cases {
        let (_, to) = folders()?;
        let target = Worker::start("target", None)?;
        target.say(&ToWorker::OpenTarget {
            hop: HOP,
            stream,
            read_back: true,
            key: fault.into(),
            forward: None,
        })?;
        let mut source = FaultySource::start(stream, &prepared(&target)?, fault)?;
        let (metadata, worker) = (source.metadata.clone(), source.name.clone());
        target.say(&ToWorker::Connect { hop: HOP, metadata, worker })?;
        while !matches!(target.next()?, FromWorker::Manifest { totals: Some(_), .. }) {}
        let mut partial =
            File::options().read(true).write(true).create_new(true).open(to.path().join("f"))?;
        let message = ToWorker::Partials { hop: HOP, files: vec![to_write(1, false)] };
        target.say_with(&message, &[std::os::fd::AsFd::as_fd(&partial)])?;
        let since = Instant::now();
        while partial.metadata()?.len() < faulty::CONTENT.len() as u64 {
            assert!(since.elapsed() < process::PATIENCE, "{fault}: nothing is written");
            std::thread::sleep(Duration::from_millis(5)); // polls a file, which gives no event
        }
        if fault == "disk" {
            partial.write_all(faulty::OTHER)?;
        }
        source.go_on()?;
        let failed = loop {
            match target.next()? {
                FromWorker::Failed { failure, .. } => break Some(failure),
                FromWorker::Received { .. } => break None,
                _ => {}
            }
        };
        match (failed, words) {
            (None, None) => {}
            (Some(failure), Some(words)) if failure.message.contains(words) => {
                assert_eq!(failure.reason, Reason::IntegrityError, "{fault}: {failure}");
            }
            (found, _) => panic!("{fault}: {found:?}"),
        }
    }
    Ok(())
}

#[test]
fn a_warm_worker_is_quiet_and_ends_with_its_socket() -> Outcome {
    let worker = Worker::start("warm", None)?;
    // An answer shows that the assignment is behind it.
    worker.say(&ToWorker::OpenSource { hop: HOP, stream: options(64 << 10, 2) })?;
    prepared(&worker)?;
    worker.say(&ToWorker::Close { hop: HOP })?;
    let before = worker.processor_ticks()?;
    // Nothing comes; this is the time over which processor time is measured, heartbeats included.
    assert!(worker.events.recv_timeout(Duration::from_millis(2500)).is_err());
    let used = worker.processor_ticks()? - before;
    assert!(used <= 2, "{used} ticks of 10 ms in 2.5 s");
    let since = Instant::now();
    assert!(worker.hang_up()?.success());
    assert!(since.elapsed() < Duration::from_secs(1), "took {:?}", since.elapsed());
    Ok(())
}

/// Figures for people: `cargo test -p transfer-agent --test worker -- --ignored --nocapture measures`.
#[test]
#[ignore = "measures, asserts nothing about time"]
fn measures() -> Outcome {
    let folder = |place: &str| tempfile::Builder::new().prefix("nixl-transfer-worker-").tempdir_in(place);
    let memory = (folder("/dev/shm")?, folder("/dev/shm")?);
    file(memory.0.path(), "large", &content(1 << 30, 1))?;
    for (chunk, fresh) in [(256 << 10, false), (1 << 20, false), (4 << 20, false), (1 << 20, true)] {
        let at = memory.1.path().join("large");
        if fresh {
            fs::remove_file(&at)?;
        } else {
            // Pages of tmpfs that are touched for the first time cost more than all the rest.
            fs::write(&at, vec![1; 1 << 30])?;
        }
        let stream = options(chunk, 8);
        let mut conductor = Conductor::start_with(memory.0.path(), memory.1.path(), stream, None, fresh)?;
        let (mut ticks, since) = (Vec::new(), Instant::now());
        conductor.run_with(|conductor| {
            ticks = vec![conductor.source.processor_ticks()?, conductor.target.processor_ticks()?];
            Ok(())
        })?;
        let seconds = since.elapsed().as_secs_f64();
        let what = if fresh { "new pages, read back" } else { "pages there before" };
        let rate = (1_u64 << 30) as f64 / seconds / 1e9;
        println!(
            "1 GiB, chunks of {chunk}, {what}: {seconds:.2} s, {rate:.2} GB/s; ticks of source, target: {ticks:?}"
        );
    }
    let (from, to) = folders()?;
    for number in 0..1000 {
        file(from.path(), &format!("small-{number:04}"), &content(4096, number))?;
    }
    let mut conductor = Conductor::start(from.path(), to.path(), options(1 << 20, 8), None)?;
    let since = Instant::now();
    conductor.run()?;
    println!("1,000 files of 4 KiB on {}: {:.2} s", to.path().display(), since.elapsed().as_secs_f64());
    Ok(())
}
