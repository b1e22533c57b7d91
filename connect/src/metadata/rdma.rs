//! `RdmaMetadata`, the object by which a passive side says what it offers, in the exact wire form of Dynamo's
//! `nixl_connect`: compact JSON, this field order, nothing more. No I/O.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    CheckedMetadata, Encoding, MAX_AGENT_METADATA, MAX_DESCRIPTORS, MAX_NOTIFICATION_KEY, MetadataError,
    SerializedDescriptor, decode_agent_metadata, encode_agent_metadata,
};

/// Room for the metadata in its longer form and for every descriptor.
const MAX_TEXT: usize = 3 * MAX_AGENT_METADATA;

/// What the *active* side does: a Readable offers READ, a Writable offers WRITE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum OperationKind {
    /// The active side reads from the descriptors.
    Read = 1,
    /// The active side writes into the descriptors.
    Write = 2,
}

impl Serialize for OperationKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(*self as u8)
    }
}

impl std::fmt::Display for OperationKind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Read => "READ",
            Self::Write => "WRITE",
        })
    }
}

/// What a passive side hands out, and an active side needs: descriptors, the way to their agent, and the key that says
/// "done". It is a capability: who has it can reach the memory.
///
/// On the wire it is compact JSON with four fields in this order, and nothing more:
/// ```json
/// {"descriptors":[{"device":"cpu","ptr":94414798545472,"size":64}],"nixl_metadata":"b64:eJz…","notification_key":"8e20…","operation_kind":1}
/// ```
/// `nixl_metadata` is the agent's metadata, compressed with zlib: `b64:` and padded base64, or lower-case hexadecimal for
/// peers from before October 2025. `operation_kind` is what the *active* side does, 1 READ or 2 WRITE. The source of the
/// format is `dynamo.nixl_connect` 1.6.1.
///
/// A value of this type has passed every check that needs no NIXL: counts, sizes, kind, and that each descriptor
/// lies in memory which the agent's own metadata lists. It keeps the metadata as text, so that writing gives
/// the bytes that were read. It is [`Serialize`], to be a field of another JSON object.
///
/// # Example
/// ```
/// # fn from_the_peer() -> String {
/// #     let vectors = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/golden_rdma_metadata.json"));
/// #     let vectors: serde_json::Value = serde_json::from_str(vectors).unwrap();
/// #     vectors.as_array().unwrap().iter().find(|vector| vector["name"] == "read-list-b64").unwrap()["json"]
/// #         .as_str()
/// #         .unwrap()
/// #         .to_owned()
/// # }
/// use nixl_connect::{Encoding, OperationKind, RdmaMetadata};
///
/// let text: String = from_the_peer();
/// let metadata = RdmaMetadata::parse(&text)?;
/// assert_eq!(metadata.operation_kind(), OperationKind::Read);
/// let sizes: Vec<u64> = metadata.descriptors().iter().map(|descriptor| descriptor.size).collect();
/// assert_eq!(sizes, [64, 32, 1]);
/// assert_eq!(metadata.to_json(), text);
///
/// // For a peer from before October 2025:
/// let older = metadata.with_encoding(Encoding::Hex)?;
/// assert_eq!(older.descriptors(), metadata.descriptors());
///
/// let damaged = text.replace("\"operation_kind\":1", "\"operation_kind\":3");
/// assert_eq!(RdmaMetadata::parse(&damaged).unwrap_err().name(), "OperationKind");
/// # Ok::<(), nixl_connect::MetadataError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct RdmaMetadata {
    descriptors: Vec<SerializedDescriptor>,
    #[serde(rename = "nixl_metadata")]
    encoded: String,
    notification_key: String,
    operation_kind: OperationKind,
    #[serde(skip)]
    agent: CheckedMetadata,
}

/// The fields as they stand in the JSON, before they are believed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    #[serde(deserialize_with = "bounded")]
    descriptors: Vec<SerializedDescriptor>,
    nixl_metadata: String,
    notification_key: String,
    operation_kind: i64,
}

impl RdmaMetadata {
    /// Puts one together; `encoded` is an agent's metadata in text form, from
    /// [`encode_agent_metadata`]. Operations make their own: see
    /// [`PassiveOperation::metadata`](crate::PassiveOperation::metadata).
    ///
    /// # Errors
    /// As [`RdmaMetadata::parse`]: what this crate would refuse to read it does not write.
    pub fn new(
        descriptors: Vec<SerializedDescriptor>,
        encoded: String,
        notification_key: String,
        operation_kind: OperationKind,
    ) -> Result<Self, MetadataError> {
        if descriptors.is_empty() || descriptors.len() > MAX_DESCRIPTORS {
            return Err(MetadataError::DescriptorCount(descriptors.len()));
        }
        let faults = descriptors.iter().map(SerializedDescriptor::fault).enumerate();
        if let Some((index, fault)) = faults.filter_map(|(index, fault)| Some((index, fault?))).next() {
            return Err(MetadataError::Descriptor { index, fault });
        }
        if notification_key.is_empty() || notification_key.len() > MAX_NOTIFICATION_KEY {
            return Err(MetadataError::NotificationKey(notification_key.len()));
        }
        let agent = CheckedMetadata::decode(&encoded, None)?;
        let unregistered = descriptors.iter().position(|descriptor| !agent.holds(descriptor));
        if let Some(index) = unregistered {
            return Err(MetadataError::Unregistered(index));
        }
        Ok(Self { descriptors, encoded, notification_key, operation_kind, agent })
    }

    /// Reads the JSON text, at most 3 MiB of it.
    ///
    /// # Errors
    /// The first thing that is wrong: `TooLong`, `Json` (no JSON, a field that is missing or unknown, a wrong type, a device
    /// that is none), `OperationKind`, `DescriptorCount`, `Descriptor`, `NotificationKey`, then what
    /// [`CheckedMetadata::decode`] says of `nixl_metadata`, then `Unregistered`. All are final: the same text will be
    /// refused again.
    pub fn parse(text: &str) -> Result<Self, MetadataError> {
        if text.len() > MAX_TEXT {
            return Err(MetadataError::TooLong { length: text.len(), limit: MAX_TEXT });
        }
        let wire: Wire =
            serde_json::from_str(text).map_err(|error| MetadataError::Json(error.to_string()))?;
        let kind = match wire.operation_kind {
            1 => OperationKind::Read,
            2 => OperationKind::Write,
            other => return Err(MetadataError::OperationKind(other)),
        };
        Self::new(wire.descriptors, wire.nixl_metadata, wire.notification_key, kind)
    }

    /// The JSON text, as `nixl_connect` writes it.
    pub fn to_json(&self) -> String {
        // Strings and integers cannot fail to become JSON.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The memory on offer, 1 to [`MAX_DESCRIPTORS`] pieces, each of one byte or more.
    pub fn descriptors(&self) -> &[SerializedDescriptor] {
        &self.descriptors
    }

    /// What the active side may do with it.
    pub fn operation_kind(&self) -> OperationKind {
        self.operation_kind
    }

    /// The bytes of the notification that says "done", at most [`MAX_NOTIFICATION_KEY`]; for a stream, the stream's name.
    pub fn notification_key(&self) -> &str {
        &self.notification_key
    }

    /// The same, with the agent's metadata in this text form: older peers know only [`Encoding::Hex`].
    ///
    /// # Errors
    /// Never for a value of this crate; the bytes were bounded before.
    pub fn with_encoding(&self, encoding: Encoding) -> Result<Self, MetadataError> {
        let encoded = encode_agent_metadata(&decode_agent_metadata(&self.encoded)?, encoding)?;
        Ok(Self { encoded, ..self.clone() })
    }

    pub(crate) fn into_agent(self) -> CheckedMetadata {
        self.agent
    }

    /// The agent that owns the memory.
    pub fn agent(&self) -> &CheckedMetadata {
        &self.agent
    }
}

/// A capability: shown without addresses, metadata or key.
impl std::fmt::Debug for RdmaMetadata {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("RdmaMetadata")
            .field("agent", &self.agent.agent())
            .field("descriptors", &self.descriptors.len())
            .field("operation_kind", &self.operation_kind)
            .finish_non_exhaustive()
    }
}

/// Stops reading at the first descriptor too many, instead of building a list of what a long text can hold.
fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SerializedDescriptor>, D::Error> {
    struct Bounded;
    impl<'de> serde::de::Visitor<'de> for Bounded {
        type Value = Vec<SerializedDescriptor>;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(formatter, "1 to {MAX_DESCRIPTORS} descriptors")
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
            let mut descriptors = Vec::new();
            while let Some(descriptor) = sequence.next_element()? {
                if descriptors.len() == MAX_DESCRIPTORS {
                    return Err(serde::de::Error::invalid_length(MAX_DESCRIPTORS + 1, &self));
                }
                descriptors.push(descriptor);
            }
            Ok(descriptors)
        }
    }
    deserializer.deserialize_seq(Bounded)
}
