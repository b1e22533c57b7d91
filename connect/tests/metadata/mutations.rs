//! Damage to whole objects: every mutation is refused with the place of the fault, or taken for exactly what it says. No
//! NIXL is loaded here, so it sees none of them.

use nixl_connect::{
    AgentMetadata, Device, Encoding, MetadataError, OperationKind, RdmaMetadata, SerializedDescriptor,
    encode_agent_metadata,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{Outcome, allocated_by, golden, rich};

/// Where a refusal may say that the fault is.
const PLACES: [&str; 7] = [
    "line ",
    "byte ",
    "descriptors",
    "nixl_metadata",
    "notification_key",
    "operation_kind",
    "has no UCX connection",
];
/// serde's buffers, and zlib's as far as they are Rust's.
const BOUND: usize = 256 * 1024;

/// Gives what the text was taken for, if it was.
fn check(text: &str) -> Option<RdmaMetadata> {
    let (parsed, allocated) = allocated_by(|| RdmaMetadata::parse(text));
    assert!(allocated <= 16 * text.len() + BOUND, "{allocated} bytes for {}", text.len());
    match parsed {
        Ok(parsed) => {
            let written = parsed.to_json();
            assert_eq!(says(&written), says(text), "{text}");
            assert_eq!(RdmaMetadata::parse(&written).as_ref(), Ok(&parsed));
            Some(parsed)
        }
        Err(error) => {
            let message = error.to_string();
            assert!(PLACES.iter().any(|place| message.contains(place)), "no place in {message:?}, {text}");
            None
        }
    }
}

/// The text as data, apart from the leniency of devices.
fn says(text: &str) -> Option<Value> {
    let mut object: Value = serde_json::from_str(text).ok()?;
    for descriptor in object["descriptors"].as_array_mut()? {
        let device: Device = descriptor["device"].as_str()?.parse().ok()?;
        descriptor["device"] = json!(device.to_string());
    }
    Some(object)
}

#[test]
fn every_single_change_of_a_golden_object_is_refused_or_understood() -> Outcome {
    for (text, ..) in golden()? {
        for at in 0..text.len() {
            let (before, after) = (&text[..at], &text[at + 1..]);
            assert!(RdmaMetadata::parse(before).is_err(), "cut at {at}");
            check(before);
            check(&format!("{before}{after}"));
            for byte in ['0', '9', '"', ',', '}', 'A', 'g', '-', ' ', '\u{0}', 'ä'] {
                check(&format!("{before}{byte}{after}"));
                check(&format!("{before}{byte}{}", &text[at..]));
            }
        }
        for behind in ["{}", ",", "\u{0}", &text] {
            assert!(check(&format!("{text}{behind}")).is_none(), "followed by {behind}");
        }
    }
    Ok(())
}

/// Behind JSON, base64 and zlib, where no change of a character of the text gets.
#[test]
fn every_bit_of_the_agent_metadata_counts() -> Outcome {
    let (text, _, raw) = golden()?.remove(0);
    let object: Value = serde_json::from_str(&text)?;
    for bit in 0..raw.len() * 8 {
        let mut damaged = raw.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let mut object = object.clone();
        object["nixl_metadata"] = encode_agent_metadata(&damaged, Encoding::Hex)?.into();
        if let Some(taken) = check(&object.to_string()) {
            assert_eq!(taken.agent().parsed().to_bytes(), damaged, "bit {bit}");
        }
    }
    Ok(())
}

/// Sound metadata of one or more ranges of the agent `rich`.
fn objects() -> impl Strategy<Value = RdmaMetadata> {
    let range = (0_usize..5, 0_u64..4096, 1_u64..=4096).prop_map(|(region, start, size)| {
        let ptr = ((region as u64 + 1) << 20) + start.min(4096 - size);
        SerializedDescriptor { device: Device::Cpu, ptr, size }
    });
    let kind = prop_oneof![Just(OperationKind::Read), Just(OperationKind::Write)];
    let encoding = prop_oneof![Just(Encoding::Base64), Just(Encoding::Hex)];
    (prop::collection::vec(range, 1..6), "\\PC{1,60}", kind, encoding).prop_map(
        |(descriptors, key, kind, encoding)| {
            let encoded = encode_agent_metadata(&host().to_bytes(), encoding).unwrap();
            RdmaMetadata::new(descriptors, encoded, key, kind).unwrap()
        },
    )
}

/// `rich`, whose host memory is the host's.
fn host() -> AgentMetadata {
    let mut agent = rich();
    for region in agent.sections.iter_mut().flat_map(|section| &mut section.regions) {
        region.device = 0;
    }
    agent
}

proptest! {
    #[test]
    fn what_is_made_here_is_read_back(object in objects()) {
        let read = check(&object.to_json());
        prop_assert_eq!(read.as_ref(), Some(&object));
        for encoding in [Encoding::Base64, Encoding::Hex] {
            let other = object.with_encoding(encoding).unwrap();
            prop_assert_eq!(check(&other.to_json()), Some(other.clone()));
            prop_assert_eq!(other.agent(), object.agent());
        }
    }

    #[test]
    fn numbers_beyond_the_registered_memory_are_refused_at_their_descriptor(
        object in objects(), which in any::<prop::sample::Index>(),
        ptr in prop_oneof![Just(0), Just(u64::MAX), 1_u64 << 20..6 << 20, any::<u64>()],
        size in prop_oneof![Just(0), Just(u64::MAX), 1_u64..8192, any::<u64>()],
    ) {
        let mut descriptors = object.descriptors().to_vec();
        let index = which.index(descriptors.len());
        descriptors[index] = SerializedDescriptor { device: Device::Cpu, ptr, size };
        let mut changed: Value = serde_json::from_str(&object.to_json()).unwrap();
        changed["descriptors"][index] = json!({"device": "cpu", "ptr": ptr, "size": size});
        let registered = (1..=5).any(|region| {
            let start = region << 20;
            ptr >= start && size >= 1 && ptr.checked_add(size).is_some_and(|end| end <= start + 4096)
        });
        match RdmaMetadata::parse(&changed.to_string()) {
            Ok(taken) => {
                prop_assert!(registered);
                prop_assert_eq!(taken.descriptors(), &descriptors[..]);
            }
            Err(MetadataError::Descriptor { index: at, .. } | MetadataError::Unregistered(at)) => {
                prop_assert!(!registered);
                prop_assert_eq!(at, index);
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn other_values_in_any_field_are_refused_or_understood(
        object in objects(), field in 0_usize..7, value in prop_oneof![
            Just(Value::Null), any::<bool>().prop_map(Value::from), any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from), any::<f64>().prop_map(|number| json!(number)),
            ".{0,20}".prop_map(Value::from), Just(json!([])), Just(json!({})), Just(json!([[]])), Just(json!([{}])),
        ],
    ) {
        let mut changed: Value = serde_json::from_str(&object.to_json()).unwrap();
        match ["descriptors", "nixl_metadata", "notification_key", "operation_kind"].get(field) {
            Some(name) => changed[*name] = value,
            None => changed["descriptors"][0][["device", "ptr", "size"][field - 4]] = value,
        }
        check(&changed.to_string());
    }
}
