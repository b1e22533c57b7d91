//! The peers that this session's agent knows and what of their memory NIXL has been told, and those it has lost. Decides
//! what must be loaded before a transfer. No I/O.
//!
//! NIXL only ever adds to what it knows of a peer, and refuses a key that changed: a range that was registered anew with
//! another key needs all of the peer to be forgotten first, which nothing may be in flight for. That is rare for a good
//! reason: UCX gets a new connection then, and the peer's side of the old one stays open for as long as the peer lives.
//! A lost name never comes back: NIXL can crash on a peer that restarts under its old name.

use std::collections::{BTreeMap, HashMap};

use xxhash_rust::xxh3::xxh3_64;

use super::SessionError;
use crate::metadata::{AgentMetadata, Connection, MemorySection, Region};

/// Stale ranges beyond which a peer is forgotten and loaded anew, as soon as nothing is in flight.
const ENOUGH: usize = 1024;
/// Beyond so many a transfer waits until nothing is in flight.
const TOO_MANY: usize = 8192;

enum Peer {
    Known(Known),
    Lost(String),
}

struct Known {
    /// The digest of its connections: another one is another process under the same name.
    address: u64,
    /// What NIXL knows, by kind of memory, device, address and length: the digest of the key.
    ranges: BTreeMap<Place, u64>,
    /// Used by a stream for as long as the session lives: never forgotten.
    pinned: bool,
    /// Transfers with it, and uses of its memory in parts: not forgotten meanwhile.
    uses: usize,
}

/// Kind of memory, device, address and length.
type Place = (u32, u64, u64, u64);

/// How transfers will name the ranges. NIXL finds one that is exactly what it looks for whatever lies around it; of a
/// part it looks only at the range that begins last before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    /// As they are, by operations.
    Exactly,
    /// By their parts, by streams and by remote memory.
    InParts,
}

/// What must happen before a transfer may be posted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Nothing: NIXL knows the ranges.
    Ready,
    /// NIXL must load this, which adds to what it knows.
    Load(AgentMetadata),
    /// NIXL must forget the peer, then load this.
    Replace(AgentMetadata),
    /// Another transfer with this peer, or use of its memory, must end first.
    Wait,
}

#[derive(Default)]
pub(super) struct Peers {
    known: HashMap<String, Peer>,
}

impl Peers {
    /// What NIXL must be told so that it knows `sections` of this peer. Call [`Peers::loaded`] when that is done.
    ///
    /// # Errors
    /// `PeerLost` for a lost name, `PeerReplaced` for another process under a known one, `PeerBusy` for ranges that a stream
    /// keeps from being loaded.
    pub(super) fn admit(
        &self,
        name: &str,
        connections: &[Connection],
        sections: Vec<MemorySection>,
        named: Named,
    ) -> Result<Admission, SessionError> {
        let metadata =
            |sections| AgentMetadata { agent: name.to_owned(), connections: connections.to_vec(), sections };
        let known = match self.known.get(name) {
            None => return Ok(Admission::Load(metadata(sections))),
            Some(Peer::Lost(reason)) => {
                return Err(SessionError::PeerLost { peer: name.to_owned(), reason: reason.clone() });
            }
            Some(Peer::Known(known)) => known,
        };
        if known.address != address(connections) {
            return Err(SessionError::PeerReplaced(name.to_owned()));
        }
        let idle = known.uses == 0 && !known.pinned;
        if sections
            .iter()
            .any(|section| section.regions.iter().any(|region| known.conflicts(section, region, named)))
        {
            return match (idle, known.pinned) {
                (true, _) => Ok(Admission::Replace(metadata(sections))),
                (false, false) => Ok(Admission::Wait),
                (false, true) => Err(SessionError::PeerBusy(name.to_owned())),
            };
        }
        let missing: Vec<MemorySection> = sections
            .iter()
            .map(|section| MemorySection {
                regions: section
                    .regions
                    .iter()
                    .filter(|region| !known.holds(section, region))
                    .cloned()
                    .collect(),
                ..section.clone()
            })
            .filter(|section| !section.regions.is_empty())
            .collect();
        if missing.is_empty() {
            return Ok(Admission::Ready);
        }
        match known.ranges.len() {
            ENOUGH.. if idle => Ok(Admission::Replace(metadata(sections))),
            TOO_MANY.. if !known.pinned => Ok(Admission::Wait),
            _ => Ok(Admission::Load(metadata(missing))),
        }
    }

    /// NIXL has loaded this; it had forgotten what it knew before if `anew`.
    pub(super) fn loaded(&mut self, metadata: &AgentMetadata, anew: bool) {
        let fresh = Known {
            address: address(&metadata.connections),
            ranges: BTreeMap::new(),
            pinned: false,
            uses: 0,
        };
        let peer = self.known.entry(metadata.agent.clone()).or_insert(Peer::Known(fresh));
        let Peer::Known(known) = peer else { return };
        if anew {
            known.ranges.clear();
        }
        for section in &metadata.sections {
            for region in &section.regions {
                known.ranges.insert(place(section, region), xxh3_64(&region.key));
            }
        }
    }

    /// Keeps what NIXL knows of the peer for as long as the session lives.
    pub(super) fn pin(&mut self, name: &str) {
        if let Some(Peer::Known(known)) = self.known.get_mut(name) {
            known.pinned = true;
        }
    }

    /// A transfer with this peer is posted, or its memory used in parts from now on.
    pub(super) fn used(&mut self, name: &str) {
        if let Some(Peer::Known(known)) = self.known.get_mut(name) {
            known.uses += 1;
        }
    }

    /// A transfer with this peer, or a use of its memory, has ended.
    pub(super) fn ended(&mut self, name: &str) {
        if let Some(Peer::Known(known)) = self.known.get_mut(name) {
            known.uses = known.uses.saturating_sub(1);
        }
    }

    /// Marks a peer as lost; true when it was not lost before.
    pub(super) fn lose(&mut self, name: &str, reason: &str) -> bool {
        if self.is_lost(name) {
            return false;
        }
        self.known.insert(name.to_owned(), Peer::Lost(reason.to_owned()));
        true
    }

    pub(super) fn is_known(&self, name: &str) -> bool {
        matches!(self.known.get(name), Some(Peer::Known(_)))
    }

    pub(super) fn is_lost(&self, name: &str) -> bool {
        matches!(self.known.get(name), Some(Peer::Lost(_)))
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Ranges of peers that NIXL knows.
    pub(super) fn ranges(&self) -> usize {
        let ranges = |peer: &Peer| if let Peer::Known(known) = peer { known.ranges.len() } else { 0 };
        self.known.values().map(ranges).sum()
    }
}

impl Known {
    fn holds(&self, section: &MemorySection, region: &Region) -> bool {
        self.ranges.get(&place(section, region)) == Some(&xxh3_64(&region.key))
    }

    /// Whether NIXL would refuse the region, or could not find its parts.
    fn conflicts(&self, section: &MemorySection, region: &Region, named: Named) -> bool {
        let place = place(section, region);
        match named {
            Named::Exactly => self.ranges.get(&place).is_some_and(|key| *key != xxh3_64(&region.key)),
            Named::InParts => !self.holds(section, region) && self.overlaps(place),
        }
    }

    fn overlaps(&self, (kind, device, address, length): Place) -> bool {
        let end = address.saturating_add(length);
        let mut begin_before = self.ranges.range((kind, device, 0, 0)..(kind, device, end, 0));
        begin_before.any(|((_, _, start, length), _)| start.saturating_add(*length) > address)
    }
}

fn place(section: &MemorySection, region: &Region) -> Place {
    (section.kind as u32, region.device, region.address, region.length)
}

fn address(connections: &[Connection]) -> u64 {
    let mut bytes = Vec::new();
    for connection in connections {
        bytes.extend_from_slice(connection.backend.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(&connection.address);
    }
    xxh3_64(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::MemoryKind;

    fn connections(address: u8) -> Vec<Connection> {
        vec![Connection { backend: "UCX".to_owned(), address: vec![address] }]
    }

    fn sections(ranges: &[(u64, u64, u8)]) -> Vec<MemorySection> {
        let region =
            |&(address, length, key): &(u64, u64, u8)| Region { address, length, device: 0, key: vec![key] };
        let regions = ranges.iter().map(region).collect();
        vec![MemorySection { backend: "UCX".to_owned(), kind: MemoryKind::Dram, regions }]
    }

    fn metadata(ranges: &[(u64, u64, u8)]) -> AgentMetadata {
        AgentMetadata { agent: "peer".to_owned(), connections: connections(1), sections: sections(ranges) }
    }

    fn knowing(ranges: &[(u64, u64, u8)]) -> Peers {
        let mut peers = Peers::default();
        peers.loaded(&metadata(ranges), false);
        peers
    }

    fn admit(peers: &Peers, ranges: &[(u64, u64, u8)]) -> Admission {
        peers.admit("peer", &connections(1), sections(ranges), Named::Exactly).unwrap()
    }

    fn admit_parts(peers: &Peers, ranges: &[(u64, u64, u8)]) -> Admission {
        peers.admit("peer", &connections(1), sections(ranges), Named::InParts).unwrap()
    }

    #[test]
    fn only_what_is_new_is_loaded() {
        assert_eq!(admit(&Peers::default(), &[(100, 10, 1)]), Admission::Load(metadata(&[(100, 10, 1)])));
        let peers = knowing(&[(100, 10, 1)]);
        assert_eq!(admit(&peers, &[(100, 10, 1)]), Admission::Ready);
        assert_eq!(admit(&peers, &[]), Admission::Ready);
        let both = &[(100, 10, 1), (110, 5, 1)];
        assert_eq!(admit(&peers, both), Admission::Load(metadata(&[(110, 5, 1)])));
    }

    #[test]
    fn a_range_registered_anew_replaces_the_peer_once_nothing_is_in_flight() {
        let mut peers = knowing(&[(100, 10, 1), (300, 10, 1)]);
        let anew = (100, 10, 2);
        assert_eq!(admit(&peers, &[anew]), Admission::Replace(metadata(&[anew])));
        assert_eq!(admit_parts(&peers, &[anew]), Admission::Replace(metadata(&[anew])));
        for across in [(100, 9, 1), (95, 10, 2), (105, 1, 1), (50, 500, 1), (109, 10, 1), (200, 101, 1)] {
            assert_eq!(admit(&peers, &[across]), Admission::Load(metadata(&[across])), "{across:?}");
            assert_eq!(admit_parts(&peers, &[across]), Admission::Replace(metadata(&[across])), "{across:?}");
        }
        for apart in [(90, 10, 1), (110, 10, 1), (310, 1, 1), (200, 100, 1)] {
            assert_eq!(admit(&peers, &[apart]), Admission::Load(metadata(&[apart])), "{apart:?}");
            assert_eq!(admit_parts(&peers, &[apart]), Admission::Load(metadata(&[apart])), "{apart:?}");
        }
        assert_eq!(admit_parts(&peers, &[(100, 10, 1)]), Admission::Ready);
        peers.used("peer");
        assert_eq!(admit(&peers, &[(100, 10, 2)]), Admission::Wait);
        assert_eq!(admit(&peers, &[(100, 10, 1)]), Admission::Ready);
        peers.ended("peer");
        peers.loaded(&metadata(&[(100, 10, 2)]), true);
        assert_eq!(admit(&peers, &[(100, 10, 2)]), Admission::Ready);
        assert_eq!(peers.ranges(), 1);
        peers.pin("peer");
        let busy = peers.admit("peer", &connections(1), sections(&[(100, 10, 3)]), Named::Exactly);
        assert!(matches!(busy, Err(SessionError::PeerBusy(_))), "{busy:?}");
    }

    #[test]
    fn stale_ranges_do_not_pile_up() {
        let many: Vec<(u64, u64, u8)> = (0..ENOUGH as u64).map(|number| (100 + number * 10, 10, 1)).collect();
        let mut peers = knowing(&many);
        let new = (1_000_000, 10, 1);
        assert_eq!(admit(&peers, &[new]), Admission::Replace(metadata(&[new])));
        peers.used("peer");
        assert_eq!(admit(&peers, &[new]), Admission::Load(metadata(&[new])));
        let many: Vec<(u64, u64, u8)> =
            (0..TOO_MANY as u64).map(|number| (100 + number * 10, 10, 1)).collect();
        peers.loaded(&metadata(&many), false);
        assert_eq!(admit(&peers, &[new]), Admission::Wait);
    }

    #[test]
    fn another_process_under_a_known_name_and_a_lost_one_are_refused() {
        let mut peers = knowing(&[]);
        let replaced = peers.admit("peer", &connections(2), Vec::new(), Named::Exactly);
        assert!(matches!(replaced, Err(SessionError::PeerReplaced(_))), "{replaced:?}");
        assert!(peers.lose("peer", "it died"));
        assert!(!peers.lose("peer", "again"));
        let lost = peers.admit("peer", &connections(1), Vec::new(), Named::Exactly);
        assert!(
            matches!(&lost, Err(SessionError::PeerLost { reason, .. }) if reason == "it died"),
            "{lost:?}"
        );
        // Neither a late load nor a late end brings it back.
        peers.loaded(&metadata(&[]), false);
        peers.ended("peer");
        assert!(peers.is_lost("peer"));
    }
}
