//! What shall stand in a TransferNode's status. Pure.

use jiff::Timestamp;
use nixl_transfer_crds::{
    Reason,
    condition::{self, READY, Truth},
    node::{BackendStatus, Budget, TransferNodeStatus, VolumeStatus, devices::GpuStatus},
};

use super::{super::workers::NixlFacts, looks::Seen};
use crate::{config::Config, region};

/// Free space is written again when it has changed by more than one part in so many of the capacity.
const WORTH_WRITING: i64 = 100;
/// Longest texts and lists that the API server takes.
const MAX_TEXT: usize = 64;
const MAX_SHORT: usize = 32;
const MAX_LIST: usize = 32;
const MAX_MEMORY_TYPES: usize = 16;

/// What is known now.
pub struct Facts<'a> {
    /// The agent's configuration.
    pub config: &'a Config,
    /// UUID of this start of the agent.
    pub instance: &'a str,
    /// What was seen of the node at the last look.
    pub seen: &'a Seen,
    /// Volumes that could not be opened: why.
    pub missing: &'a [String],
    /// What workers found out, if one has tried.
    pub nixl: Option<&'a NixlFacts>,
    /// Memory that regions may take.
    pub memory: &'a region::Budgets,
    /// This agent's key.
    pub public_key: &'a str,
    /// Whether the Lease is too old.
    pub fenced: bool,
    /// Whether the agent ends.
    pub ending: bool,
}

impl Facts<'_> {
    /// The status, given what stands there.
    pub fn status(&self, before: &TransferNodeStatus, now: Timestamp) -> TransferNodeStatus {
        let (nixl_version, backends, memlock) = match self.nixl {
            Some(NixlFacts::Usable { version, backends, memlock }) => {
                (cut(version, MAX_TEXT), backends.iter().take(MAX_LIST).map(backend).collect(), *memlock)
            }
            _ => (String::new(), Vec::new(), None),
        };
        let (truth, reason, message) = self.ready();
        let mut conditions = before.conditions.clone();
        condition::set(&mut conditions, READY, truth, reason, &message, None, now);
        TransferNodeStatus {
            instance: self.instance.to_owned(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            nixl_version,
            public_key: self.public_key.to_owned(),
            backends,
            gpus: self.seen.devices.gpus.iter().map(|gpu| self.gpu(gpu)).collect(),
            nics: self.seen.devices.nics.clone(),
            gpu_direct: self.seen.devices.gpu_direct,
            volumes: self.seen.volumes.iter().map(|volume| settled(volume, before)).collect(),
            staging: Some(Budget { total: signed(self.config.staging_bytes()), free: None }),
            memory: Some(Budget {
                total: signed(self.memory.host().total()),
                free: Some(signed(self.memory.host().free())),
            }),
            slots: Some(Budget { total: self.config.slots.into(), free: None }),
            memlock: memlock.map(signed),
            conditions,
        }
    }

    fn gpu(&self, gpu: &GpuStatus) -> GpuStatus {
        let budget = self.memory.gpu(&gpu.uuid);
        let regions = Budget { total: signed(budget.total()), free: Some(signed(budget.free())) };
        GpuStatus { regions: Some(regions), ..gpu.clone() }
    }

    /// An ordered chain: the first that holds is said.
    fn ready(&self) -> (Truth, Reason, String) {
        let not = |message: String| (Truth::False, Reason::AgentNotReady, message);
        if self.ending {
            return not("the agent is ending".into());
        }
        if self.fenced {
            return not("the agent has not renewed its Lease; look at the network to the API server".into());
        }
        match self.nixl {
            None => not("no worker has loaded NIXL yet".into()),
            Some(NixlFacts::Unusable(message)) => {
                (Truth::False, Reason::BackendUnavailable, format!("NIXL cannot be used: {message}"))
            }
            Some(NixlFacts::Usable { .. }) => (Truth::True, Reason::Succeeded, self.ready_message()),
        }
    }

    fn ready_message(&self) -> String {
        let mut buts = Vec::new();
        if !self.missing.is_empty() {
            buts.push(format!("without volumes that cannot be opened: {}", self.missing.join("; ")));
        }
        buts.extend(self.seen.troubles.iter().cloned());
        if buts.is_empty() { "ready for transfers".into() } else { format!("ready, but {}", buts.join("; ")) }
    }
}

/// A small change of free space is no news: the old figure stays.
fn settled(now: &VolumeStatus, before: &TransferNodeStatus) -> VolumeStatus {
    let mut volume = now.clone();
    let old = before.volumes.iter().find(|old| old.name == now.name && old.capacity == now.capacity);
    if let Some(old) =
        old.filter(|old| old.free.abs_diff(now.free) <= (now.capacity / WORTH_WRITING).unsigned_abs())
    {
        volume.free = old.free;
    }
    volume
}

fn backend(facts: &crate::protocol::BackendFacts) -> BackendStatus {
    let memory_types =
        facts.memory_types.iter().take(MAX_MEMORY_TYPES).map(|kind| cut(kind, MAX_MEMORY_TYPES));
    BackendStatus { name: cut(&facts.name, MAX_SHORT), memory_types: memory_types.collect() }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A worker's words are not trusted to fit.
fn cut(text: &str, longest: usize) -> String {
    text.chars().take(longest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::BackendFacts;
    use nixl_transfer_crds::node::devices::{GpuDirectStatus, GpuStatus, NicStatus};

    const CONFIG: &str = "
nodeName: a
nixl: {library: /l, plugins: /p}
slots: 3
volumes: []
";

    fn volume(free: i64) -> VolumeStatus {
        let allowed_namespaces = vec!["*".to_owned()];
        VolumeStatus { name: "data".into(), read_only: false, capacity: 10_000, free, allowed_namespaces }
    }

    fn status(
        nixl: Option<&NixlFacts>,
        fenced: bool,
        free: i64,
        before: &TransferNodeStatus,
    ) -> TransferNodeStatus {
        let seen = Seen { volumes: vec![volume(free)], ..Seen::default() };
        status_of(&seen, &[], nixl, fenced, before)
    }

    fn status_of(
        seen: &Seen,
        missing: &[String],
        nixl: Option<&NixlFacts>,
        fenced: bool,
        before: &TransferNodeStatus,
    ) -> TransferNodeStatus {
        let config = Config::parse("agent.yaml", CONFIG, None).unwrap();
        let facts = Facts {
            config: &config,
            instance: "i",
            seen,
            missing,
            nixl,
            memory: &region::Budgets::new(1 << 20, 7),
            public_key: "k",
            fenced,
            ending: false,
        };
        facts.status(before, Timestamp::UNIX_EPOCH)
    }

    fn usable() -> NixlFacts {
        let backends = vec![BackendFacts { name: "UCX".into(), memory_types: vec!["DRAM".into()] }];
        NixlFacts::Usable { version: "1.5.1".into(), backends, memlock: Some(64) }
    }

    #[test]
    fn ready_only_with_nixl_and_a_lease_and_says_why_not() {
        let nothing = TransferNodeStatus::default();
        let message = |status: &TransferNodeStatus| {
            let ready = condition::find(&status.conditions, READY).unwrap();
            (ready.status.clone(), ready.message.clone())
        };
        let (truth, why) = message(&status(None, false, 1, &nothing));
        assert!(truth == "False" && why.contains("no worker"), "{why}");
        let broken = NixlFacts::Unusable("no NIXL library at /l".into());
        let (truth, why) = message(&status(Some(&broken), false, 1, &nothing));
        assert!(truth == "False" && why.contains("no NIXL library at /l"), "{why}");
        let (truth, why) = message(&status(Some(&usable()), true, 1, &nothing));
        assert!(truth == "False" && why.contains("Lease"), "{why}");
        let ready = status(Some(&usable()), false, 1, &nothing);
        assert_eq!(message(&ready).0, "True");
        assert_eq!(
            (ready.nixl_version.as_str(), ready.memlock, ready.slots),
            ("1.5.1", Some(64), Some(Budget { total: 3, free: None }))
        );
    }

    #[test]
    fn free_space_is_news_only_beyond_a_hundredth() {
        let first = status(Some(&usable()), false, 5_000, &TransferNodeStatus::default());
        let same = status(Some(&usable()), false, 4_900, &first);
        assert_eq!(same, first);
        let other = status(Some(&usable()), false, 4_899, &first);
        assert_eq!(other.volumes[0].free, 4_899);
    }

    #[test]
    fn devices_are_shown_and_troubles_are_said() {
        let mut seen = Seen::default();
        seen.devices.nics = vec![NicStatus { name: "mlx5_0".into(), ..NicStatus::default() }];
        seen.devices.gpus = vec![GpuStatus { uuid: "GPU-x".into(), ..GpuStatus::default() }];
        seen.devices.gpu_direct = Some(GpuDirectStatus { peer_memory_module: true, storage_module: false });
        seen.troubles = vec!["volume data is read-only".into(), "NVML fails".into()];
        let missing = ["volume old: no such file".to_owned()];
        let status = status_of(&seen, &missing, Some(&usable()), false, &TransferNodeStatus::default());
        assert_eq!((&status.nics, status.gpus.len()), (&seen.devices.nics, 1));
        let regions = Some(Budget { total: 7, free: Some(7) });
        assert_eq!(status.gpus[0], GpuStatus { regions, ..seen.devices.gpus[0].clone() });
        assert_eq!(status.gpu_direct, seen.devices.gpu_direct);
        let ready = condition::find(&status.conditions, READY).unwrap();
        assert_eq!(ready.status, "True", "the rest of the node is of use");
        assert_eq!(
            ready.message,
            "ready, but without volumes that cannot be opened: volume old: no such file; volume data is read-only; NVML fails"
        );
    }
}
