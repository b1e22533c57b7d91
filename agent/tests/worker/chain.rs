//! A chain of three workers: the one in the middle stores what it receives and sends it on.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nixl_transfer_crds::Reason;
use transfer_agent::protocol::{FromWorker, HopId, Prefix, StreamOptions, ToWorker};

use super::conductor::{HOP, SourceEnd, options, prepared};
use super::process::PATIENCE;
use super::target_end::TargetEnd;
use super::{Outcome, assert_same, content, file, folders};

const RELAY: HopId = HopId(4);

struct Chain {
    source: SourceEnd,
    middle: TargetEnd,
    last: TargetEnd,
}

impl Chain {
    fn start(from: &Path, middle: &Path, last: &Path, stream: StreamOptions) -> Outcome<Self> {
        let chain = Self::start_but_source(from, middle, last, stream)?;
        chain.0.connect_source(&chain.1)?;
        chain.0.source.announce()?;
        Ok(chain.0)
    }

    /// All but the source's connection; gives what that needs.
    fn start_but_source(
        from: &Path,
        middle: &Path,
        last: &Path,
        stream: StreamOptions,
    ) -> Outcome<(Self, [String; 2])> {
        let source = SourceEnd::open(from, stream, None)?;
        let middle = TargetEnd::open(middle, stream, true, Some(RELAY))?;
        let last = TargetEnd::open(last, stream, true, None)?;
        let (agent, end) = (prepared(&source)?, prepared(&last)?);
        let (mut offer, mut onward) = (None, None);
        while offer.is_none() || onward.is_none() {
            match middle.next()? {
                FromWorker::Prepared { hop: HOP, metadata } => offer = Some(metadata),
                FromWorker::Prepared { hop: RELAY, metadata } => onward = Some(metadata),
                other => return Err(format!("not prepared: {other:?}").into()),
            }
        }
        let (offer, onward) = (offer.ok_or("no offer")?, onward.ok_or("no agent")?);
        last.say(&ToWorker::Connect { hop: HOP, metadata: onward, worker: middle.name.clone() })?;
        middle.say(&ToWorker::ConnectRelay {
            hop: RELAY,
            metadata: end,
            worker: last.name.clone(),
            progress_seconds: stream.progress_seconds - 1,
        })?;
        Ok((Self { source, middle, last }, [agent, offer]))
    }

    fn connect_source(&self, [agent, offer]: &[String; 2]) -> Outcome {
        let (metadata, worker) = (offer.clone(), self.middle.name.clone());
        self.source.say(&ToWorker::Connect { hop: HOP, metadata, worker })?;
        let (metadata, worker) = (agent.clone(), self.source.name.clone());
        self.middle.say(&ToWorker::Connect { hop: HOP, metadata, worker })
    }

    /// Conducts until `done` says that it is.
    fn run(&mut self, with_last: bool, done: impl Fn(&Self) -> bool) -> Outcome {
        self.source.open_files()?;
        let since = std::time::Instant::now();
        while !done(self) {
            assert!(since.elapsed() < PATIENCE, "not done in time");
            let mut any = self.source.take_all()? | self.middle.take_all()?;
            any |= with_last && self.last.take_all()?;
            if !any && let Ok(event) = self.middle.events.recv_timeout(Duration::from_millis(2)) {
                self.middle.said(event)?;
            }
        }
        Ok(())
    }

    fn all_done(&self) -> bool {
        self.source.sent.is_some()
            && self.middle.arrived.is_some()
            && self.middle.relayed.is_some()
            && self.last.arrived.is_some()
    }
}

#[test]
fn a_relay_stores_and_sends_on() -> Outcome {
    let ((from, middle), (last, _)) = (folders()?, folders()?);
    file(from.path(), "large", &content(40 << 20, 1))?;
    file(from.path(), "empty", b"")?;
    for number in 0..300 {
        file(from.path(), &format!("small-{number:03}"), &content(number * 37, number as u64))?;
    }
    let mut chain = Chain::start(from.path(), middle.path(), last.path(), options(256 << 10, 8))?;
    chain.run(true, Chain::all_done)?;
    assert_same(from.path(), middle.path())?;
    assert_same(from.path(), last.path())?;
    let sent = chain.source.sent.ok_or("nothing sent")?.bytes;
    let relayed = chain.middle.relayed.ok_or("nothing relayed")??.bytes;
    assert_eq!(sent, relayed, "each byte left the source once, and the middle once");
    Ok(())
}

/// What the last one lacks comes from the source although the one in the middle has it.
#[test]
fn only_what_all_have_is_left_out() -> Outcome {
    let ((from, middle), (last, _)) = (folders()?, folders()?);
    let large = content(24 << 20, 1);
    for name in ["all", "middle", "none"] {
        file(from.path(), name, &large)?;
    }
    file(middle.path(), "all", &large)?;
    file(middle.path(), "middle", &large)?;
    file(last.path(), "all", &large)?;
    let part = |length: usize| Prefix {
        length: length as u64,
        digest: transfer_agent::digest::of(nixl_transfer_crds::Algorithm::Xxh3, &large[..length]).bytes,
    };
    file(from.path(), "part", &large)?;
    let mut chain = Chain::start(from.path(), middle.path(), last.path(), options(256 << 10, 8))?;
    for (end, folder, length) in
        [(&mut chain.middle, middle.path(), 16 << 20), (&mut chain.last, last.path(), 10 << 20)]
    {
        fs::write(folder.join("part"), &large[..length])?;
        end.prefixes.insert("part".into(), part(length));
    }
    chain.run(true, Chain::all_done)?;
    assert_eq!(chain.source.sent.ok_or("nothing sent")?.bytes, (24 + 24 + 14) << 20);
    assert_eq!(chain.last.arrived.ok_or("nothing")?.resumed, (24 + 10) << 20);
    for folder in [middle.path(), last.path()] {
        for name in ["all", "none", "part"] {
            assert_eq!(fs::read(folder.join(name))?, large, "{name}");
        }
    }
    assert_eq!(fs::read(last.path().join("middle"))?, large);
    chain.middle.stored.sort_unstable_by_key(|file| file.index);
    let identical: Vec<bool> = chain.middle.stored.iter().map(|file| file.identical).collect();
    assert_eq!(identical, [true, true, false, false], "what stands there already stays");
    Ok(())
}

#[test]
fn a_relay_whose_next_node_dies_has_its_own_copy() -> Outcome {
    let ((from, middle), (last, _)) = (folders()?, folders()?);
    file(from.path(), "large", &content(64 << 20, 1))?;
    let mut chain = Chain::start(from.path(), middle.path(), last.path(), options(256 << 10, 8))?;
    chain.run(true, |chain| !chain.last.durable.is_empty())?;
    chain.last.kill()?;
    chain.run(false, |chain| {
        chain.source.sent.is_some() && chain.middle.arrived.is_some() && chain.middle.relayed.is_some()
    })?;
    assert_same(from.path(), middle.path())?;
    let failure = chain.middle.relayed.ok_or("nothing")?.err().ok_or("the relay did not fail")?;
    assert_eq!(failure.reason, Reason::PeerLost, "{failure}");
    Ok(())
}

/// A relay that is given up before it was connected leaves the middle a hop like any other.
#[test]
fn a_relay_that_is_closed_before_it_begins_holds_nobody_up() -> Outcome {
    let ((from, middle), _) = (folders()?, ());
    file(from.path(), "large", &content(1 << 20, 1))?;
    let stream = options(256 << 10, 4);
    let mut source = SourceEnd::open(from.path(), stream, None)?;
    let mut middle_end = TargetEnd::open(middle.path(), stream, true, Some(RELAY))?;
    let agent = prepared(&source)?;
    let offer = loop {
        if let FromWorker::Prepared { hop: HOP, metadata } = middle_end.next()? {
            break metadata;
        }
    };
    source.say(&ToWorker::Connect { hop: HOP, metadata: offer, worker: middle_end.name.clone() })?;
    middle_end.say(&ToWorker::Connect { hop: HOP, metadata: agent, worker: source.name.clone() })?;
    middle_end.say(&ToWorker::Close { hop: RELAY })?;
    source.announce()?;
    source.open_files()?;
    while middle_end.arrived.is_none() {
        source.take_all()?;
        match middle_end.next()? {
            FromWorker::Prepared { hop: RELAY, .. } => {}
            other => middle_end.said(other)?,
        }
    }
    assert_same(from.path(), middle.path())
}

/// Its walk of the tree may take minutes; those who are ready first do not take each other for lost meanwhile.
#[test]
fn a_source_that_is_ready_late_is_waited_for() -> Outcome {
    let ((from, middle), (last, _)) = (folders()?, folders()?);
    file(from.path(), "large", &content(1 << 20, 1))?;
    let stream = StreamOptions { progress_seconds: 2, ..options(256 << 10, 4) };
    let (mut chain, late) = Chain::start_but_source(from.path(), middle.path(), last.path(), stream)?;
    // The last one is connected and knows by what.
    let first = chain.last.next()?;
    assert!(matches!(first, FromWorker::Uses { .. }), "{first:?}");
    for end in [&chain.middle, &chain.last] {
        // Longer than any of them may stand still once bytes move; that nothing comes is what is shown.
        let early = end.events.recv_timeout(Duration::from_millis(1700));
        assert!(early.is_err(), "{early:?}");
    }
    chain.connect_source(&late)?;
    chain.source.announce()?;
    chain.run(true, Chain::all_done)?;
    assert_same(from.path(), last.path())
}

/// Before the first byte, when what it has is waited for.
#[test]
fn a_last_node_that_hangs_at_once_is_given_up_by_the_one_before_it() -> Outcome {
    let ((from, middle), (last, _)) = (folders()?, folders()?);
    file(from.path(), "large", &content(8 << 20, 1))?;
    let stream = StreamOptions { progress_seconds: 5, ..options(256 << 10, 4) };
    let (mut chain, ends) = Chain::start_but_source(from.path(), middle.path(), last.path(), stream)?;
    chain.last.stop()?;
    chain.connect_source(&ends)?;
    chain.source.announce()?;
    chain.run(false, |chain| chain.source.sent.is_some() && chain.middle.arrived.is_some())?;
    assert_same(from.path(), middle.path())
}
