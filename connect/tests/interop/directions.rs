//! Bytes in both directions and both roles, with Dynamo's Python on both versions of NIXL at the other end. One descriptor
//! goes through the example `peer`, more through a connector that has several operations.

use nixl_connect::RdmaMetadata;
use serde_json::Value;

use super::contents::patterned;
use super::ours::{self, Ours};
use super::process::Process;
use super::python::{self, Nixl};
use crate::Outcome;

const LARGE: u64 = 64 << 20;

/// The passive end offers, the active end moves, and both hold the source's bytes. Gives the metadata.
fn moves(passive: &mut Process, active: &mut Process, total: u64) -> Outcome<String> {
    let offer = passive.line()?;
    active.say(&offer)?;
    active.is_done(&patterned(total))?;
    passive.is_done(&patterned(total))?;
    Ok(offer)
}

fn from_python(nixl: Nixl, active: &str, passive: &str) -> Outcome {
    let mut python = python::peer(nixl, &format!("{active} --repeat 2"))?;
    let mut example = ours::peer(&format!("{passive} --size 64"))?;
    moves(&mut example, &mut python, 64)?;
    example.ends_with(0)?;
    let mut ours = Ours::start()?;
    ours.tell("connector c")?;
    // To this one the one descriptor is a list.
    let mut listing = python::peer(nixl, &format!("{active} --list"))?;
    for (python, sizes, total) in
        [(&mut python, "64,32,1", 97), (&mut listing, LARGE.to_string().as_str(), LARGE)]
    {
        python.say(&ours.offer(&format!("{passive} p c {sizes}"))?)?;
        python.is_done(&patterned(total))?;
        ours.is_done("p", &patterned(total))?;
    }
    python.ends_with(0)?;
    listing.ends_with(0)
}

fn to_python(nixl: Nixl, active: &str, passive: &str) -> Outcome {
    let mut python = python::peer(nixl, &format!("{passive} --size 64"))?;
    let mut example = ours::peer(active)?;
    moves(&mut python, &mut example, 64)?;
    example.ends_with(0)?;
    python.ends_with(0)?;
    let mut ours = Ours::start()?;
    ours.tell("connector c")?;
    for (arguments, total) in [("--size 64,32,1", 97), (&format!("--size {LARGE} --list"), LARGE)] {
        let mut python = python::peer(nixl, &format!("{passive} {arguments}"))?;
        ours.tell(&format!("{active} a c - {}", python.line()?))?;
        ours.is_done("a", &patterned(total))?;
        python.is_done(&patterned(total))?;
        python.ends_with(0)?;
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

// case 7, and case 1 with objects that were made just now
#[test]
fn metadata_in_hexadecimal_is_understood_both_ways() -> Outcome {
    let mut offering = [
        python::peer(Nixl::V1_5_1, "readable --size 64,32 --hex")?,
        ours::peer("writable --size 64,32 --hex")?,
    ];
    let mut moving = [ours::peer("read")?, python::peer(Nixl::V1_5_1, "write")?];
    for (passive, active) in offering.iter_mut().zip(&mut moving) {
        let offer = moves(passive, active, 96)?;
        let metadata: Value = serde_json::from_str(&offer)?;
        let encoded = metadata["nixl_metadata"].as_str().ok_or("no nixl_metadata")?;
        let is_lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        assert!(encoded.bytes().all(is_lower_hex), "{encoded}");
        assert_eq!(RdmaMetadata::parse(&offer)?.to_json(), offer);
    }
    offering.into_iter().chain(moving).try_for_each(|process| process.ends_with(0))
}
