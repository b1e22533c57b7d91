//! Damaged `nixl_metadata` in operations that begin: what Python overlooks or leaves to NIXL, we refuse before NIXL sees it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nixl_connect::{Encoding, RdmaMetadata, decode_agent_metadata, encode_agent_metadata};
use serde_json::Value;

use super::contents::patterned;
use super::ours::Ours;
use super::python::{self, Nixl};
use crate::Outcome;

/// Each row: how the text of `nixl_metadata` is changed, what ours says, and the error of Python's operation, or "" when it
/// goes well all the same.
type Damage = (fn(&str) -> Outcome<String>, &'static str, &'static str);

// case 12
#[test]
fn damaged_agent_metadata_that_python_gives_to_nixl_or_overlooks_is_refused_by_us() -> Outcome {
    let rows: [Damage; 10] = [
        (|text| Ok(text.replacen("b64:", "b64:@", 1)), "Base64", ""),
        (|text| Ok(text.replacen("b64:", "b64:\n ", 1)), "Base64", ""),
        (|text| with_zlib(text, |zlib| zlib.push(0)), "Zlib", ""),
        (|text| with_blob(text, |blob| blob.push(b'|')), "Blob", ""),
        (|text| Ok(text.trim_end_matches('=').split_at(40).0.to_owned() + "A"), "Base64", "Error"),
        (|text| with_zlib(text, |zlib| zlib.truncate(30)), "Zlib", "error"),
        (|text| with_zlib(text, |zlib| zlib[30] ^= 1), "Zlib", "error"),
        (|_| Ok("789".to_owned()), "Hex", "ValueError"),
        (|text| with_blob(text, |blob| blob[0] ^= 1), "Blob", "nixlMismatchError"),
        (|text| with_blob(text, |blob| blob.truncate(40)), "Blob", "nixlMismatchError"),
    ];
    let mut python = python::peer(Nixl::V1_5_1, &format!("read --repeat {} --keep-going", rows.len()))?;
    let mut ours = Ours::start()?;
    ours.tell("connector c")?;
    for (number, (damage, name, error)) in rows.into_iter().enumerate() {
        let offer = ours.offer(&format!("readable r{number} c 64"))?;
        let mut offer: Value = serde_json::from_str(&offer)?;
        offer["nixl_metadata"] = damage(offer["nixl_metadata"].as_str().ok_or("no nixl_metadata")?)?.into();
        let text = offer.to_string();
        let refused = RdmaMetadata::parse(&text).err().map_or("", |error| error.name());
        assert_eq!(refused, name, "row {number}: {text}");
        python.say(&text)?;
        if error.is_empty() {
            python.is_done(&patterned(64))?;
            ours.is_done(&format!("r{number}"), &patterned(64))?;
        } else {
            python.fails_with(error).map_err(|fault| format!("row {number}: {fault}"))?;
            assert_eq!(ours.status(&format!("r{number}"))?, "INIT");
        }
    }
    // Some rounds failed.
    python.ends_with(1)
}

fn with_zlib(text: &str, change: fn(&mut Vec<u8>)) -> Outcome<String> {
    let mut zlib = STANDARD.decode(text.strip_prefix("b64:").ok_or("not base64")?)?;
    change(&mut zlib);
    Ok(format!("b64:{}", STANDARD.encode(zlib)))
}

fn with_blob(text: &str, change: fn(&mut Vec<u8>)) -> Outcome<String> {
    let mut blob = decode_agent_metadata(text)?;
    change(&mut blob);
    Ok(encode_agent_metadata(&blob, Encoding::Base64)?)
}
