//! The wire object, read by both: golden ones byte for byte, and every kind of fault with what each side makes of it.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nixl_connect::{
    AgentMetadata, Connection, Encoding, MemoryKind, MemorySection, RdmaMetadata, Region,
    decode_agent_metadata, encode_agent_metadata,
};
use serde_json::{Value, json};

use super::contents::patterned;
use super::ours::Ours;
use super::python::{self, Nixl};
use crate::Outcome;

const GOLDEN: &str = include_str!("../vectors/golden_rdma_metadata.json");

/// A real object, as text.
pub fn golden(name: &str) -> Outcome<String> {
    let vectors: Vec<Value> = serde_json::from_str(GOLDEN)?;
    let found = vectors.iter().find(|vector| vector["name"] == name);
    Ok(found.and_then(|vector| vector["json"].as_str()).ok_or("no such golden object")?.to_owned())
}

// case 1
#[test]
fn golden_objects_are_given_back_byte_for_byte_by_us_and_by_python() -> Outcome {
    let vectors: Vec<Value> = serde_json::from_str(GOLDEN)?;
    let mut python = python::validate()?;
    for vector in &vectors {
        let golden = vector["json"].as_str().ok_or("no json")?;
        assert_eq!(RdmaMetadata::parse(golden)?.to_json(), golden);
        python.say(golden)?;
        assert_eq!(python.json()?["json"], golden);
    }
    assert_eq!(vectors.len(), 4);
    python.end_input();
    python.ends_with(0)
}

/// An agent with host memory from 4096 and a GPU's from 1 MiB, 4096 bytes each.
fn agent(backend: &str) -> AgentMetadata {
    let section = |kind, address, device| MemorySection {
        backend: backend.to_owned(),
        kind,
        regions: vec![Region { address, length: 4096, device, key: vec![1] }],
    };
    AgentMetadata {
        agent: "table-1".to_owned(),
        connections: vec![Connection { backend: backend.to_owned(), address: vec![7; 100] }],
        sections: vec![section(MemoryKind::Dram, 4096, 0), section(MemoryKind::Vram, 1 << 20, 3)],
    }
}

/// What Python makes of an object when it is read. What it takes, it may still refuse when an operation begins.
#[derive(Debug, PartialEq)]
enum Python {
    Takes,
    /// Reading goes well, the descriptors cannot be made.
    RefusesLater,
    Refuses,
}
use Python::{Refuses, RefusesLater, Takes};

/// A field, its value (or that it is `absent`), the name of our error ("" if we take it), what Python does.
type Row = (&'static str, Value, &'static str, Python);

fn absent() -> Value {
    json!("absent")
}

// case 10
fn kinds() -> Vec<Row> {
    vec![
        ("operation_kind", json!(1), "", Takes),
        ("operation_kind", json!(2), "", Takes),
        ("operation_kind", json!(0), "OperationKind", Refuses),
        ("operation_kind", json!(3), "OperationKind", Takes),
        ("operation_kind", json!(4), "OperationKind", Refuses),
        ("operation_kind", json!(-1), "OperationKind", Refuses),
        ("operation_kind", absent(), "Json", Takes),
        ("operation_kind", json!("1"), "Json", Takes),
        ("operation_kind", json!(1.0), "Json", Takes),
        ("operation_kind", json!(true), "Json", Takes),
        ("operation_kind", json!(null), "Json", Refuses),
    ]
}

// case 11, and fields that are missing or empty
fn fields() -> Vec<Row> {
    vec![
        ("extra", json!(1), "Json", Refuses),
        ("descriptors.extra", json!(1), "Json", Refuses),
        ("descriptors", absent(), "Json", RefusesLater),
        ("descriptors", json!([]), "DescriptorCount", RefusesLater),
        ("descriptors.device", absent(), "Json", Takes),
        ("descriptors.ptr", absent(), "Json", Takes),
        ("descriptors.size", absent(), "Json", Takes),
        ("descriptors.ptr", json!(0), "Descriptor", Refuses),
        ("descriptors.ptr", json!(-4096), "Json", Takes),
        ("descriptors.ptr", json!(u64::MAX), "Descriptor", Takes),
        ("descriptors.ptr", json!(4095), "Unregistered", Takes),
        ("descriptors.size", json!(0), "Descriptor", Takes),
        ("descriptors.size", json!(-1), "Json", Refuses),
        ("descriptors.size", json!(4097), "Unregistered", Takes),
        ("nixl_metadata", absent(), "Json", Takes),
        ("notification_key", absent(), "Json", Takes),
        ("notification_key", json!(""), "NotificationKey", Takes),
        ("notification_key", json!("k".repeat(257)), "NotificationKey", Takes),
    ]
}

// case 12
fn damages() -> Outcome<Vec<Row>> {
    let bytes = agent("UCX").to_bytes();
    let hex = encode_agent_metadata(&bytes, Encoding::Hex)?;
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut changed = bytes.clone();
        change(&mut changed);
        encode_agent_metadata(&changed, Encoding::Base64)
    };
    let section = bytes.windows(10).position(|window| window == b"MemSection").ok_or("no section")?;
    // Python looks at none of this before an operation begins, see the next test.
    let damaged = [
        (String::new(), "Empty"),
        ("b64:".to_owned(), "Zlib"),
        ("b64:@@@@".to_owned(), "Base64"),
        (hex.replacen("78", "7g", 1), "Hex"),
        (format!("{hex}0"), "Hex"),
        (hex.replacen("78", "87", 1), "Zlib"),
        (hex[..hex.len() - 8].to_owned(), "Zlib"),
        (format!("{hex}00"), "Zlib"),
        (with(&|bytes| bytes.truncate(40))?, "Blob"),
        (with(&|bytes| bytes.push(b'|'))?, "Blob"),
        (with(&|bytes| bytes[0] ^= 1)?, "Blob"),
        (with(&|bytes| bytes[section] ^= 1)?, "Blob"),
        (with(&|bytes| bytes.clear())?, "Blob"),
        (encode_agent_metadata(&agent("LIBFABRIC").to_bytes(), Encoding::Base64)?, "NoConnection"),
    ];
    let mut rows: Vec<Row> =
        damaged.map(|(text, name)| ("nixl_metadata", Value::String(text), name, Takes)).into();
    rows.push(("nixl_metadata", json!(hex), "", Takes));
    rows.push(("nixl_metadata", json!(hex.to_uppercase()), "", Takes));
    Ok(rows)
}

// case 13
fn devices() -> Vec<Row> {
    let device = |text: &str, ours, python| ("descriptors.device", json!(text), ours, python);
    vec![
        device("cpu", "", Takes),
        device(" CPU\n", "", Takes),
        device("gpu:0", "Json", Refuses),
        device("cpu:0", "Json", Refuses),
        device("host", "Json", Refuses),
        device("cuda:", "Json", RefusesLater),
        device("cuda:x", "Json", RefusesLater),
        device("cuda:-1", "Json", Takes),
        device("cudax", "Json", Takes),
        device("cuda:4294967296", "Json", Takes),
        // host memory that is said to lie on a GPU
        device("cuda:0", "Unregistered", Takes),
    ]
}

#[test]
fn we_refuse_whatever_python_refuses_and_more() -> Outcome {
    let object = json!({
        "descriptors": [{"device": "cpu", "ptr": 4096, "size": 4096}],
        "nixl_metadata": encode_agent_metadata(&agent("UCX").to_bytes(), Encoding::Base64)?,
        "notification_key": "key",
        "operation_kind": 1,
    });
    let mut gpu = object.clone();
    gpu["descriptors"][0]["ptr"] = json!(1 << 20);
    let on_gpu = |text: &str| ("descriptors.device", json!(text), "", Takes);
    let rows = kinds().into_iter().chain(fields()).chain(damages()?).chain(devices());
    let rows = rows.map(|row| (&object, row));
    let rows = rows.chain(["CUDA:3", " cuda:3", "cuda", "xpu:0"].map(|text| (&gpu, on_gpu(text))));
    let (mut python, mut wrong) = (python::validate()?, String::new());
    for (object, (field, value, ours_expected, python_expected)) in rows {
        let text = changed(object, field, &value).to_string();
        let ours = RdmaMetadata::parse(&text);
        let name = ours.as_ref().map_or_else(|error| error.name(), |_| "");
        python.say(&text)?;
        let answer = python.json()?;
        let python = match (answer["ok"].as_bool(), answer.get("later")) {
            (Some(true), None) => Takes,
            (Some(true), Some(_)) => RefusesLater,
            _ => Refuses,
        };
        if (name, &python) != (ours_expected, &python_expected) {
            writeln!(wrong, "{field} {value}: ours {name:?}, Python {python:?}: {answer}")?;
        }
        // What both take means the same to both.
        if let Ok(ours) = ours {
            let meant = ours.descriptors().iter().map(|one| json!([one.ptr, one.size, one.device]));
            let meant: Vec<Value> = meant.collect();
            if answer["descriptors"] != json!(meant) {
                writeln!(wrong, "{field} {value}: ours means {meant:?}, Python {answer}")?;
            }
        }
    }
    assert_eq!(wrong, "");
    python.end_input();
    python.ends_with(0)
}

/// The object with one field set, or left out. A field of the descriptor is named with a point.
fn changed(object: &Value, field: &str, value: &Value) -> Value {
    let mut changed = object.clone();
    let (place, name) = match field.split_once('.') {
        Some((_, name)) => (&mut changed["descriptors"][0], name),
        None => (&mut changed, field),
    };
    match place.as_object_mut() {
        Some(fields) if *value == absent() => drop(fields.remove(name)),
        _ => place[name] = value.clone(),
    }
    changed
}

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
        let offer = ours.tell(&format!("readable r{number} c 64"))?;
        let mut offer: Value = serde_json::from_str(offer["metadata"].as_str().ok_or("no metadata")?)?;
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
            assert_eq!(ours.tell(&format!("status r{number}"))?["status"], "INIT");
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
