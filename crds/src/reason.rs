//! The closed list of reasons: used by conditions, events, task halves and metrics, and the source of the documentation.
//! Pure. A reason is added here and nowhere else.

/// What a reason means for the one who sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Says how far something is; no failure.
    Progress,
    /// Waits for something outside until `pendingDeadlineSeconds`, then fails.
    Waiting,
    /// The attempt failed; another one follows until `backoffLimit`.
    Retryable,
    /// Failed for good; only a change by the user helps.
    Final,
    /// Why a slower network was used.
    Fallback,
    /// Stands in events only.
    EventOnly,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The reason.
    pub reason: Reason,
    /// As it stands in conditions, events and metrics.
    pub name: &'static str,
    /// What it means for the one who sees it.
    pub class: Class,
    /// What happened.
    pub meaning: &'static str,
    /// What the user should do.
    pub remedy: &'static str,
}

macro_rules! reasons {
    ($($name:ident, $class:ident, $meaning:literal, $remedy:literal;)*) => {
        /// A reason from the closed list.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $(#[doc = $meaning] $name,)*
        }

        /// The table, in the order of the documentation.
        pub const TABLE: &[Entry] = &[
            $(Entry {
                reason: Reason::$name,
                name: stringify!($name),
                class: Class::$class,
                meaning: $meaning,
                remedy: $remedy,
            },)*
        ];
    };
}

reasons! {
    Pending, Progress, "The job was seen; nothing was decided yet.",
        "Wait.";
    Queued, Progress, "Every transfer slot of a node is taken.",
        "Wait, or raise `slots` in the agent's configuration.";
    Preparing, Progress, "Agents take workers, open files and exchange metadata.",
        "Wait.";
    Transferring, Progress, "Bytes move.",
        "Wait.";
    Verifying, Progress, "Digests are compared.",
        "Wait.";
    Retrying, Progress, "An attempt failed; the next one comes after a pause.",
        "Read the message; nothing to do if it passes.";
    Succeeded, Progress, "Every destination holds the data; each digest was equal.",
        "Nothing.";
    Suspended, Progress, "`spec.suspend` is true.",
        "Set it to false to go on.";
    Cancelled, Progress, "The attempt was ended on request: suspension, deletion, or a change of the spec.",
        "Nothing.";
    SourceNotFound, Final, "The source path does not exist in its volume.",
        "Correct `spec.source.volume.path`, or put the data there and change `spec.trigger`.";
    SourceChanged, Retryable, "A source file was written, truncated or replaced while it was read.",
        "Let the writer finish first; move a snapshot if it never does.";
    SourceEmpty, Final, "The source directory, after the filters, holds nothing to move.",
        "Correct the path or the globs in `include` and `exclude`.";
    NodeNotFound, Waiting, "No Node object of that name exists.",
        "Correct the name, or wait for the node to join.";
    NoNodeMatches, Waiting, "The selector matches no node that can serve.",
        "Correct the selector, or label a node.";
    AgentNotReady, Waiting, "The node has no agent, or its agent has not renewed its Lease.",
        "Look at the agent's pod on that node and at its TransferNode.";
    VolumeNotFound, Waiting, "The node's agent publishes no volume of that name.",
        "Correct the name, or add the volume to the agent's configuration.";
    VolumeForbidden, Final, "The volume is not published for the job's namespace.",
        "Ask the administrator to add the namespace to the volume's `allowedNamespaces`.";
    VolumeReadOnly, Final, "The destination volume is published read-only.",
        "Choose another volume.";
    InvalidPath, Final, "A path leaves its volume, crosses a symbolic link, is reserved, or is too long.",
        "Correct the path, or the link that the message names.";
    NotRegularFile, Final, "The source is, or holds, something that is no file, directory or symbolic link.",
        "Remove it, or leave it out with `exclude`.";
    DestinationExists, Final, "The destination exists and may not be replaced.",
        "Remove it, choose another path, or set `spec.writePolicy`.";
    DestinationBusy, Waiting, "Another transfer writes to the same directory, to one inside it, or around it.",
        "Wait for it, or choose another path.";
    SameEndpoint, Final, "Source and destination are the same directory on the same node.",
        "Correct the destination.";
    InsufficientSpace, Retryable, "The destination's file system is full.",
        "Free space on the node's volume.";
    InsufficientStagingMemory, Final, "`chunkSize` times `inFlight` is more than the staging memory of an agent.",
        "Lower `spec.transport.chunkSize` or `inFlight`, or raise `staging` in the agent's configuration.";
    RegionNotFound, Waiting, "No MemoryRegion of that name exists on the node.",
        "Correct the name, or make the region.";
    RegionNotReady, Waiting, "The MemoryRegion has no memory, or no content, that could be used now.",
        "Look at its Ready condition; wait for its owner, or for the transfer that fills it.";
    LengthMismatch, Final, "The source does not fit the memory region.",
        "Make the region as large as the source.";
    NoSuchDevice, Final, "The device does not exist on the node.",
        "Choose one that the TransferNode lists.";
    BackendUnavailable, Final, "No acceptable NIXL backend or network is there on both nodes.",
        "Look at the TransferNodes; relax `spec.transport`.";
    MetadataMalformed, Retryable, "Metadata of the other side could not be read.",
        "If it stays, look for damage between the agents and report the message.";
    MetadataTooLarge, Final, "Metadata exceeds 256 KiB.",
        "Lower `spec.transport.inFlight`.";
    MetadataRejected, Retryable, "Metadata does not fit the task: another worker, another size, another kind.",
        "If it stays, report the message.";
    IncompatiblePeer, Final, "The two agents' NIXL versions or protocols do not fit.",
        "Bring both nodes to one version.";
    PeerLost, Retryable, "The connection to the other side broke.",
        "Nothing if the retry passes; else look at the network and the other node.";
    WorkerLost, Retryable, "A worker died or hung and was ended.",
        "Nothing if the retry passes; else look at the agent's log.";
    AgentRestarted, Retryable, "The agent was restarted while it worked on the task.",
        "Nothing.";
    IoError, Retryable, "Reading or writing a file failed.",
        "Look at the node's disk and at the message.";
    IntegrityError, Retryable, "A digest differed.",
        "If it stays, test the node's memory, disk and network.";
    ProgressDeadlineExceeded, Retryable, "A hop moved no byte for `progressDeadlineSeconds`.",
        "Look at both nodes and the network between them.";
    DeadlineExceeded, Final, "Waiting exceeded `pendingDeadlineSeconds`, or the run `activeDeadlineSeconds`.",
        "Remove what the message says it waited for, then change `spec.trigger`.";
    BackoffLimitExceeded, Final, "Every attempt that `backoffLimit` allows has failed.",
        "Remove the cause in the message, then change `spec.trigger`.";
    InvalidSpec, Final, "The spec passed the API server and still cannot be carried out.",
        "Correct the field in the message.";
    Unverified, Progress, "One end could not be read, so nothing proves the content.",
        "Give a digest, or compare by other means.";
    NoRdmaDevice, Fallback, "A node has no active RDMA device; TCP was used.",
        "Nothing, or give the nodes RDMA.";
    NoCommonBackend, Fallback, "The preferred backend or network is missing on one side, or could not be used.",
        "Give it to both nodes; an agent's log has what UCX says.";
    MemlockTooSmall, Fallback, "The limit for locked memory is too small for RDMA.",
        "Raise the container runtime's memlock limit.";
    LinkDown, Fallback, "The RDMA port is down.",
        "Repair the link.";
    TTLIgnored, EventOnly, "An object that GitOps or Helm tracks is not deleted by its TTL.",
        "Remove the TTL, or delete the object from Git.";
}

impl Reason {
    /// The row of this reason.
    pub fn entry(self) -> &'static Entry {
        &TABLE[self as usize]
    }

    /// As it stands in conditions, events and metrics.
    pub fn as_str(self) -> &'static str {
        self.entry().name
    }

    /// What it means for the one who sees it.
    pub fn class(self) -> Class {
        self.entry().class
    }

    /// Whether another attempt may succeed without anyone changing the spec. What waits in the operator is retried
    /// when an agent reports it, because what was missing may have come.
    pub fn is_retryable(self) -> bool {
        matches!(self.class(), Class::Retryable | Class::Waiting)
    }

    /// The reason of that name.
    pub fn parse(name: &str) -> Option<Reason> {
        TABLE.iter().find(|entry| entry.name == name).map(|entry| entry.reason)
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_stands_at_its_own_row_and_reads_back() {
        for entry in TABLE {
            assert_eq!(entry.reason.entry().name, entry.name);
            assert_eq!(Reason::parse(entry.name), Some(entry.reason));
            assert!(entry.meaning.ends_with('.') && entry.remedy.ends_with('.'), "{}", entry.name);
        }
    }
}
