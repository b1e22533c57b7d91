//! The notifications of a stream: small, fixed layouts, read strictly. Bytes that are not exactly one of these are
//! another's. Pure.
//!
//! Layout, little-endian: magic `NXS1`, kind u8, stream u64, then chunk: sequence u64, slot u32, length u32, digest u64;
//! end, received and farewell: count u64; credit, reject and
//! verified: sequence u64, slot u32; alive: nothing; answer: sequence
//! u64, length u32, text.

use xxhash_rust::xxh3::xxh3_64;

use super::answers::MAX_ANSWER;

const MAGIC: [u8; 4] = *b"NXS1";

/// A stream's number, derived from its key. Keys are unique (UUIDs), so a clash of two in one session is no concern;
/// it would end as `Malformed` or a wrong digest, not as wrong data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct StreamId(pub(super) u64);

impl StreamId {
    pub(super) fn of(key: &str) -> Self {
        Self(xxh3_64(key.as_bytes()))
    }
}

/// What one end tells the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// Sender: the chunk's bytes lie in the slot.
    Chunk { sequence: u64, slot: u32, length: u32, digest: u64 },
    /// Sender: so many chunks were all.
    End { count: u64 },
    /// Receiver: verified and used, the slot is the sender's again.
    Credit { sequence: u64, slot: u32 },
    /// Receiver: whole, and not used yet. It will not have to be sent again; the slot is still the receiver's.
    Verified { sequence: u64, slot: u32 },
    /// Receiver: damaged, send it again into the same slot.
    Reject { sequence: u64, slot: u32 },
    /// Receiver: the end is known.
    Received { count: u64 },
    /// Sender: every slot is back; the receiver's process may go.
    Farewell { count: u64 },
    /// Either: nothing but a sign of life. Sending it is what finds a dead peer.
    Alive { from_sender: bool },
    /// Receiver: what its user has to say, numbered from 0.
    Answer { sequence: u64, text: Vec<u8> },
}

impl Message {
    /// Whether it goes from the sender to the receiver.
    pub(super) fn is_senders(&self) -> bool {
        match self {
            Self::Chunk { .. } | Self::End { .. } | Self::Farewell { .. } => true,
            Self::Credit { .. }
            | Self::Verified { .. }
            | Self::Reject { .. }
            | Self::Received { .. }
            | Self::Answer { .. } => false,
            Self::Alive { from_sender } => *from_sender,
        }
    }

    pub(super) fn encode(&self, stream: StreamId) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(40);
        bytes.extend_from_slice(&MAGIC);
        let kind = match self {
            Self::Chunk { .. } => 1_u8,
            Self::End { .. } => 2,
            Self::Credit { .. } => 3,
            Self::Reject { .. } => 4,
            Self::Received { .. } => 5,
            Self::Alive { from_sender: true } => 6,
            Self::Alive { from_sender: false } => 7,
            Self::Farewell { .. } => 8,
            Self::Answer { .. } => 9,
            Self::Verified { .. } => 10,
        };
        bytes.push(kind);
        bytes.extend_from_slice(&stream.0.to_le_bytes());
        match self {
            Self::Chunk { sequence, slot, length, digest } => {
                bytes.extend_from_slice(&sequence.to_le_bytes());
                bytes.extend_from_slice(&slot.to_le_bytes());
                bytes.extend_from_slice(&length.to_le_bytes());
                bytes.extend_from_slice(&digest.to_le_bytes());
            }
            Self::End { count } | Self::Received { count } | Self::Farewell { count } => {
                bytes.extend_from_slice(&count.to_le_bytes())
            }
            Self::Credit { sequence, slot }
            | Self::Verified { sequence, slot }
            | Self::Reject { sequence, slot } => {
                bytes.extend_from_slice(&sequence.to_le_bytes());
                bytes.extend_from_slice(&slot.to_le_bytes());
            }
            Self::Alive { .. } => {}
            Self::Answer { sequence, text } => {
                bytes.extend_from_slice(&sequence.to_le_bytes());
                bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
                bytes.extend_from_slice(text);
            }
        }
        bytes
    }

    /// `None` for anything that `encode` does not make.
    pub(super) fn decode(bytes: &[u8]) -> Option<(StreamId, Self)> {
        let mut fields = Fields(bytes.strip_prefix(&MAGIC)?);
        let [kind] = fields.take::<1>()?;
        let stream = StreamId(fields.u64()?);
        let message = match kind {
            1 => Self::Chunk {
                sequence: fields.u64()?,
                slot: fields.u32()?,
                length: fields.u32()?,
                digest: fields.u64()?,
            },
            2 => Self::End { count: fields.u64()? },
            3 => Self::Credit { sequence: fields.u64()?, slot: fields.u32()? },
            4 => Self::Reject { sequence: fields.u64()?, slot: fields.u32()? },
            5 => Self::Received { count: fields.u64()? },
            6 => Self::Alive { from_sender: true },
            7 => Self::Alive { from_sender: false },
            10 => Self::Verified { sequence: fields.u64()?, slot: fields.u32()? },
            8 => Self::Farewell { count: fields.u64()? },
            9 => {
                let (sequence, length) = (fields.u64()?, fields.u32()? as usize);
                let text = std::mem::take(&mut fields.0);
                if text.len() != length || length == 0 || length > MAX_ANSWER {
                    return None;
                }
                Self::Answer { sequence, text: text.to_vec() }
            }
            _ => return None,
        };
        fields.0.is_empty().then_some((stream, message))
    }
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_message() -> impl Strategy<Value = Message> {
        prop_oneof![
            (any::<u64>(), any::<u32>(), any::<u32>(), any::<u64>()).prop_map(
                |(sequence, slot, length, digest)| { Message::Chunk { sequence, slot, length, digest } }
            ),
            any::<u64>().prop_map(|count| Message::End { count }),
            any::<u64>().prop_map(|count| Message::Received { count }),
            any::<u64>().prop_map(|count| Message::Farewell { count }),
            (any::<u64>(), any::<u32>()).prop_map(|(sequence, slot)| Message::Credit { sequence, slot }),
            (any::<u64>(), any::<u32>()).prop_map(|(sequence, slot)| Message::Reject { sequence, slot }),
            (any::<u64>(), any::<u32>()).prop_map(|(sequence, slot)| Message::Verified { sequence, slot }),
            any::<bool>().prop_map(|from_sender| Message::Alive { from_sender }),
            (any::<u64>(), prop::collection::vec(any::<u8>(), 1..64))
                .prop_map(|(sequence, text)| Message::Answer { sequence, text }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(message in any_message(), stream: u64) {
            let bytes = message.encode(StreamId(stream));
            prop_assert_eq!(Message::decode(&bytes), Some((StreamId(stream), message)));
        }

        #[test]
        fn another_length_is_refused(message in any_message(), extra in 1_usize..8) {
            let mut bytes = message.encode(StreamId(7));
            let shorter = bytes.len() - extra.min(bytes.len());
            prop_assert_eq!(Message::decode(&bytes[..shorter]), None);
            bytes.resize(bytes.len() + extra, 0);
            prop_assert_eq!(Message::decode(&bytes), None);
        }

        #[test]
        fn what_is_read_is_what_would_be_written(bytes in prop::collection::vec(any::<u8>(), 0..64), kind in 0_u8..12) {
            let mut framed = MAGIC.to_vec();
            framed.push(kind);
            framed.extend_from_slice(&bytes);
            for candidate in [&bytes, &framed] {
                if let Some((stream, message)) = Message::decode(candidate) {
                    prop_assert_eq!(&message.encode(stream), candidate);
                }
            }
        }
    }
}
