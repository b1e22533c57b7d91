//! Whatever a peer says is refused or understood exactly: no panic, no memory beyond the bounds. One input is tried as a
//! blob, as text of agent metadata, as a whole RdmaMetadata object, and as the blob within a sound object.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nixl_connect::{
    AgentMetadata, CheckedMetadata, Device, Encoding, MemoryKind, OperationKind, RdmaMetadata, SerializedDescriptor,
    encode_agent_metadata,
};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(parsed) = AgentMetadata::parse(bytes) {
        assert_eq!(parsed.to_bytes(), bytes);
        let text = encode_agent_metadata(bytes, Encoding::Base64).expect("what was parsed is within the bounds");
        if let Ok(checked) = CheckedMetadata::decode(&text, Some(&parsed.agent)) {
            assert_eq!(checked.parsed(), &parsed);
            object(&parsed, text);
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = CheckedMetadata::decode(text, None);
        if let Ok(object) = RdmaMetadata::parse(text) {
            round_trips(&object);
        }
    }
});

/// What this crate makes of an agent's first regions it also reads.
fn object(agent: &AgentMetadata, text: String) {
    let descriptors = agent.sections.iter().filter_map(|section| {
        let region = section.regions.first()?;
        let device = match section.kind {
            MemoryKind::Dram => Device::Cpu,
            MemoryKind::Vram => Device::Cuda(u32::try_from(region.device).ok()?),
            _ => return None,
        };
        Some(SerializedDescriptor { device, ptr: region.address, size: region.length })
    });
    let key = "fuzz".to_owned();
    if let Ok(object) = RdmaMetadata::new(descriptors.collect(), text, key, OperationKind::Read) {
        round_trips(&object);
    }
}

fn round_trips(object: &RdmaMetadata) {
    for encoding in [None, Some(Encoding::Base64), Some(Encoding::Hex)] {
        let object = match encoding {
            Some(encoding) => object.with_encoding(encoding).expect("what was read can be written"),
            None => object.clone(),
        };
        let again = RdmaMetadata::parse(&object.to_json()).expect("what was written can be read");
        assert_eq!(again, object);
    }
}
