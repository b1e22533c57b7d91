//! The wire object, read by both: golden ones byte for byte, and every kind of fault with what each side makes of it.

use std::fmt::Write;

use nixl_connect::{
    AgentMetadata, Connection, Encoding, MemoryKind, MemorySection, RdmaMetadata, Region,
    encode_agent_metadata,
};
use serde_json::{Value, json};

use super::python;
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

const HOST: u64 = 4096;
const DEVICE_3: u64 = 1 << 20;
const DEVICE_0: u64 = 2 << 20;

/// An agent with 4096 bytes of host memory and as many on each of two devices.
fn agent(backend: &str) -> AgentMetadata {
    let region = |(address, device)| Region { address, length: 4096, device, key: vec![1] };
    let section = |kind, places: &[(u64, u64)]| MemorySection {
        backend: backend.to_owned(),
        kind,
        regions: places.iter().copied().map(region).collect(),
    };
    AgentMetadata {
        agent: "table-1".to_owned(),
        connections: vec![Connection { backend: backend.to_owned(), address: vec![7; 100] }],
        sections: vec![
            section(MemoryKind::Dram, &[(HOST, 0)]),
            section(MemoryKind::Vram, &[(DEVICE_3, 3), (DEVICE_0, 0)]),
        ],
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
    // Python looks at none of this before an operation begins, see damage.rs.
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

// cases 10, 11, 12, 13
#[test]
fn we_refuse_whatever_python_refuses_and_more() -> Outcome {
    let object = json!({
        "descriptors": [{"device": "cpu", "ptr": HOST, "size": 4096}],
        "nixl_metadata": encode_agent_metadata(&agent("UCX").to_bytes(), Encoding::Base64)?,
        "notification_key": "key",
        "operation_kind": 1,
    });
    let rows = kinds().into_iter().chain(fields()).chain(damages()?).chain(devices());
    let rows = rows.map(|row| (&object, row));
    let on_device = [DEVICE_3, DEVICE_0].map(|place| changed(&object, "descriptors.ptr", &json!(place)));
    let device = |text: &str| ("descriptors.device", json!(text), "", Takes);
    let rows = rows.chain(["CUDA:3", " cuda:3"].map(|text| (&on_device[0], device(text))));
    let rows = rows.chain(["cuda", "xpu:00"].map(|text| (&on_device[1], device(text))));
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
