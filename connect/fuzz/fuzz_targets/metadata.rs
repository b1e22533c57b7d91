//! Whatever a peer says is refused or understood exactly: no panic, no memory beyond the bounds. One input is tried as a
//! blob, as text of agent metadata, and as a whole RdmaMetadata object.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nixl_connect::{AgentMetadata, CheckedMetadata, Encoding, RdmaMetadata, encode_agent_metadata};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(parsed) = AgentMetadata::parse(bytes) {
        assert_eq!(parsed.to_bytes(), bytes);
        let text = encode_agent_metadata(bytes, Encoding::Base64).expect("what was parsed is within the bounds");
        let expected = parsed.agent.clone();
        if let Ok(checked) = CheckedMetadata::decode(&text, Some(&expected)) {
            assert_eq!(checked.parsed(), &parsed);
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = CheckedMetadata::decode(text, None);
        if let Ok(object) = RdmaMetadata::parse(text) {
            let written = object.to_json();
            assert_eq!(RdmaMetadata::parse(&written).map(|again| again.to_json()), Ok(written));
        }
    }
});
