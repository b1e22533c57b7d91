//! Bytes in both directions and both roles: the example `peer` at one end, Dynamo's Python at the other.

use nixl_connect::RdmaMetadata;
use serde_json::Value;

use super::contents::patterned;
use super::ours;
use super::process::Process;
use super::python::{self, Nixl};
use crate::Outcome;

/// Sizes, and whether Python gives a list although there is only one: one descriptor, three of them, and 64 MiB.
const SHAPES: [(&str, &str); 3] = [("64", ""), ("64,32,1", ""), ("67108864", "--list")];

/// The passive end offers, the active end moves, and both hold the source's bytes.
fn moves(mut passive: Process, mut active: Process, sizes: &str) -> Outcome<String> {
    let offer = passive.line()?;
    active.say(&offer)?;
    let total = sizes.split(',').map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    let expected = patterned(total);
    active.is_done(&expected)?;
    passive.is_done(&expected)?;
    active.ends_with(0)?;
    passive.ends_with(0)?;
    // case 1, with objects that were made just now
    assert_eq!(RdmaMetadata::parse(&offer)?.to_json(), offer);
    Ok(offer)
}

fn from_python(nixl: Nixl, active: &str, passive: &str) -> Outcome {
    for (sizes, list) in SHAPES {
        let ours = ours::peer(&format!("{passive} --size {sizes}"))?;
        moves(ours, python::peer(nixl, &format!("{active} {list}"))?, sizes)?;
    }
    Ok(())
}

fn to_python(nixl: Nixl, active: &str, passive: &str) -> Outcome {
    for (sizes, list) in SHAPES {
        let python = python::peer(nixl, &format!("{passive} --size {sizes} {list}"))?;
        moves(python, ours::peer(active)?, sizes)?;
    }
    Ok(())
}

// cases 2, 6, 8, 21
#[test]
fn python_reads_what_we_offer() -> Outcome {
    from_python(Nixl::V1_5_1, "read", "readable")
}

// cases 3, 6, 8, 21
#[test]
fn python_writes_into_what_we_offer() -> Outcome {
    from_python(Nixl::V1_5_1, "write", "writable")
}

// cases 4, 6, 8, 21
#[test]
fn we_read_what_python_offers() -> Outcome {
    to_python(Nixl::V1_5_1, "read", "readable")
}

// cases 5, 6, 8, 21
#[test]
fn we_write_into_what_python_offers() -> Outcome {
    to_python(Nixl::V1_5_1, "write", "writable")
}

// case 19 with 2, 6, 8, 21
#[test]
fn python_on_nixl_1_4_1_reads_what_we_offer() -> Outcome {
    from_python(Nixl::V1_4_1, "read", "readable")
}

// case 19 with 3, 6, 8, 21
#[test]
fn python_on_nixl_1_4_1_writes_into_what_we_offer() -> Outcome {
    from_python(Nixl::V1_4_1, "write", "writable")
}

// case 19 with 4, 6, 8, 21
#[test]
fn we_read_what_python_on_nixl_1_4_1_offers() -> Outcome {
    to_python(Nixl::V1_4_1, "read", "readable")
}

// case 19 with 5, 6, 8, 21
#[test]
fn we_write_into_what_python_on_nixl_1_4_1_offers() -> Outcome {
    to_python(Nixl::V1_4_1, "write", "writable")
}

// case 7
#[test]
fn metadata_in_hexadecimal_is_understood_both_ways() -> Outcome {
    let offered = python::peer(Nixl::V1_5_1, "readable --size 64,32 --hex")?;
    let python = moves(offered, ours::peer("read")?, "64,32")?;
    let offered = ours::peer("writable --size 64,32 --hex")?;
    let ours = moves(offered, python::peer(Nixl::V1_5_1, "write")?, "64,32")?;
    for offer in [python, ours] {
        let metadata: Value = serde_json::from_str(&offer)?;
        let encoded = metadata["nixl_metadata"].as_str().ok_or("no nixl_metadata")?;
        let is_lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        assert!(encoded.bytes().all(is_lower_hex), "{encoded}");
    }
    Ok(())
}
