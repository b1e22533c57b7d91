//! Metadata of peers: real objects byte for byte, and every damage found without panic and within bounded memory.

#[path = "metadata/mutations.rs"]
mod mutations;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::error::Error;
use std::io::Write;

use base64::Engine;
use nixl_connect::{
    AgentMetadata, CheckedMetadata, Connection, Device, Encoding, MAX_AGENT_METADATA, MAX_DESCRIPTORS,
    MemoryKind, MemorySection, MetadataError, OperationKind, RdmaMetadata, Region, SerializedDescriptor,
    decode_agent_metadata, encode_agent_metadata,
};
use proptest::prelude::*;
use serde_json::{Value, json};

type Outcome = Result<(), Box<dyn Error>>;

/// Counts what the running thread allocates, so that "bounded" can be shown.
struct Counting;

thread_local! {
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator unchanged; the counter is a plain cell of this thread.
#[allow(unsafe_code)] // an allocator has no safe form
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATED.try_with(|allocated| allocated.set(allocated.get() + layout.size()));
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// All that parsing may allocate over its whole run: lists that double while they grow, and copies of names and keys.
fn bound(input: usize) -> usize {
    16 * input + 4096
}

fn allocated_by<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = ALLOCATED.get();
    let result = work();
    (result, ALLOCATED.get() - before)
}

/// The JSON text, the agent's name, the inflated metadata.
type Golden = (String, String, Vec<u8>);

fn golden() -> Result<Vec<Golden>, Box<dyn Error>> {
    let objects: Vec<Value> = serde_json::from_str(include_str!("vectors/golden_rdma_metadata.json"))?;
    let field =
        |object: &Value, name: &str| object[name].as_str().map(str::to_owned).ok_or("a vector lacks a field");
    let mut vectors = Vec::new();
    for object in &objects {
        let hex = field(object, "raw_md_hex")?;
        let bytes = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16));
        vectors.push((
            field(object, "json")?,
            field(object, "agent_name")?,
            bytes.collect::<Result<_, _>>()?,
        ));
    }
    assert_eq!(vectors.len(), 4);
    Ok(vectors)
}

/// One blob of every shape: several backends, kinds and regions.
fn rich() -> AgentMetadata {
    let region = |address: u64| Region { address, length: 4096, device: 3, key: vec![1, 0, 0xff] };
    let section = |backend: &str, kind, count: u64| MemorySection {
        backend: backend.to_owned(),
        kind,
        regions: (1..=count).map(|index| region(index << 20)).collect(),
    };
    let connection =
        |backend: &str, length| Connection { backend: backend.to_owned(), address: vec![7; length] };
    AgentMetadata {
        agent: "worker-ä-1".to_owned(),
        connections: vec![connection("UCX", 200), connection("LIBFABRIC", 0)],
        sections: vec![
            section("UCX", MemoryKind::Dram, 5),
            section("UCX", MemoryKind::Vram, 2),
            section("LIBFABRIC", MemoryKind::File, 0),
        ],
    }
}

#[test]
fn golden_objects_are_read_and_written_byte_for_byte() -> Outcome {
    for (json, agent, raw) in golden()? {
        let parsed = RdmaMetadata::parse(&json)?;
        assert_eq!(parsed.to_json(), json);
        assert_eq!(parsed.agent().agent(), agent);
        assert_eq!(parsed.agent().parsed().to_bytes(), raw);
        let text: Value = serde_json::from_str(&json)?;
        let encoded = text["nixl_metadata"].as_str().ok_or("no nixl_metadata")?;
        assert_eq!(decode_agent_metadata(encoded)?, raw);
        let encoding = if encoded.starts_with("b64:") { Encoding::Base64 } else { Encoding::Hex };
        assert_eq!(encode_agent_metadata(&raw, encoding)?, encoded, "zlib itself makes Python's bytes");
        for descriptor in parsed.descriptors() {
            assert_eq!(descriptor.device, Device::Cpu);
            assert!(parsed.agent().parsed().holds("UCX", descriptor));
        }
    }
    Ok(())
}

#[test]
fn memory_of_another_device_is_not_taken_for_registered() -> Outcome {
    let region = Region { address: 1 << 20, length: 64, device: 3, key: vec![1] };
    let section = MemorySection { backend: "UCX".to_owned(), kind: MemoryKind::Vram, regions: vec![region] };
    let (_, _, raw) = golden()?.remove(0);
    let agent = AgentMetadata { sections: vec![section], ..AgentMetadata::parse(&raw)? };
    let encoded = encode_agent_metadata(&agent.to_bytes(), Encoding::Base64)?;
    let offer = |device, ptr| {
        let descriptors = vec![SerializedDescriptor { device, ptr, size: 64 }];
        RdmaMetadata::new(descriptors, encoded.clone(), "key".to_owned(), OperationKind::Read).map(drop)
    };
    assert_eq!(offer(Device::Cuda(3), 1 << 20), Ok(()));
    for (device, ptr) in
        [(Device::Cuda(0), 1 << 20), (Device::Cpu, 1 << 20), (Device::Cuda(3), (1 << 20) + 1)]
    {
        assert_eq!(offer(device, ptr), Err(MetadataError::Unregistered(0)), "{device} {ptr}");
    }
    Ok(())
}

#[test]
fn the_name_must_be_the_expected_one() -> Outcome {
    let (_, agent, raw) = golden()?.remove(0);
    assert!(CheckedMetadata::from_bytes(&raw, Some(&agent)).is_ok());
    let other = CheckedMetadata::from_bytes(&raw, Some("another"));
    assert_eq!(other.err(), Some(MetadataError::Agent { expected: "another".to_owned(), found: agent }));
    let unreachable = AgentMetadata { connections: Vec::new(), ..rich() };
    let refused = CheckedMetadata::from_bytes(&unreachable.to_bytes(), None);
    assert_eq!(refused.err(), Some(MetadataError::NoConnection(unreachable.agent)));
    Ok(())
}

/// Each row: what is changed in a golden object, and how the refusal begins.
#[test]
fn objects_that_nixl_connect_would_not_write_are_refused() -> Outcome {
    let (json, ..) = golden()?.remove(0);
    let object: Value = serde_json::from_str(&json)?;
    let first = object["descriptors"][0].clone();
    let with = |field: &str, value: Value| {
        let mut descriptor = first.clone();
        descriptor[field] = value;
        json!([descriptor])
    };
    let rows: Vec<(&str, Value, &str)> = vec![
        ("descriptors", json!([]), "0 descriptors"),
        (
            "descriptors",
            json!(vec![first.clone(); MAX_DESCRIPTORS + 1]),
            "not an RdmaMetadata object: invalid length",
        ),
        ("descriptors", with("ptr", json!(0)), "descriptors[0]: ptr is 0"),
        ("descriptors", with("ptr", json!(-1)), "not an RdmaMetadata object"),
        ("descriptors", with("ptr", json!(u64::MAX)), "descriptors[0]: ptr + size overflows"),
        ("descriptors", with("ptr", json!(4096)), "descriptors[0] lies in no memory"),
        ("descriptors", with("size", json!(0)), "descriptors[0]: size is 0"),
        ("descriptors", with("size", json!(65)), "descriptors[0] lies in no memory"),
        ("descriptors", with("device", json!("gpu:0")), "not an RdmaMetadata object: device"),
        ("descriptors", with("device", json!("cuda:0")), "descriptors[0] lies in no memory"),
        ("descriptors", with("extra", json!(1)), "not an RdmaMetadata object: unknown field"),
        ("extra", json!(1), "not an RdmaMetadata object: unknown field"),
        ("nixl_metadata", json!(""), "nixl_metadata is empty"),
        ("nixl_metadata", json!("b64:!"), "nixl_metadata is not base64"),
        ("nixl_metadata", json!("789c"), "nixl_metadata is not one whole zlib stream"),
        ("notification_key", json!(""), "notification_key has 0 bytes"),
        ("notification_key", json!("k".repeat(257)), "notification_key has 257 bytes"),
        ("operation_kind", json!(0), "operation_kind 0"),
        ("operation_kind", json!(3), "operation_kind 3"),
        ("operation_kind", Value::Null, "not an RdmaMetadata object"),
    ];
    for (field, value, refusal) in rows {
        let mut changed = object.clone();
        changed[field] = value;
        let error = RdmaMetadata::parse(&changed.to_string()).err().map(|error| error.to_string());
        assert!(
            error.as_deref().is_some_and(|error| error.starts_with(refusal)),
            "{field}: {error:?}, not {refusal}"
        );
    }
    for field in ["descriptors", "nixl_metadata", "notification_key", "operation_kind"] {
        let mut changed = object.clone();
        changed.as_object_mut().ok_or("no object")?.remove(field);
        assert!(
            matches!(RdmaMetadata::parse(&changed.to_string()), Err(MetadataError::Json(_))),
            "without {field}"
        );
    }
    Ok(())
}

#[test]
fn devices_are_read_leniently_and_written_strictly() -> Outcome {
    let raw = rich();
    let encoded = encode_agent_metadata(&raw.to_bytes(), Encoding::Base64)?;
    let text = format!(
        r#" {{"operation_kind":2,"notification_key":"k","nixl_metadata":"{encoded}","descriptors":[{{"size":1,"ptr":1048576,"device":" CUDA:3 "}}]}} "#
    );
    let parsed = RdmaMetadata::parse(&text)?;
    assert_eq!(parsed.operation_kind(), OperationKind::Write);
    let written = format!(
        r#"{{"descriptors":[{{"device":"cuda:3","ptr":1048576,"size":1}}],"nixl_metadata":"{encoded}","notification_key":"k","operation_kind":2}}"#
    );
    assert_eq!(parsed.to_json(), written);
    Ok(())
}

#[test]
fn capabilities_do_not_show_in_debug_output() -> Outcome {
    let (json, ..) = golden()?.remove(0);
    let parsed = RdmaMetadata::parse(&json)?;
    let shown = format!("{parsed:?} {:?}", parsed.agent());
    assert!(!shown.contains(parsed.notification_key()) && !shown.contains("b64:"), "{shown}");
    assert!(!shown.contains(&parsed.descriptors()[0].ptr.to_string()), "{shown}");
    Ok(())
}

#[test]
fn every_truncation_and_every_addition_is_found() -> Outcome {
    let mut blobs: Vec<Vec<u8>> = golden()?.into_iter().map(|(_, _, raw)| raw).collect();
    blobs.push(rich().to_bytes());
    for mut blob in blobs {
        assert!(AgentMetadata::parse(&blob).is_ok());
        for length in 0..blob.len() {
            assert!(AgentMetadata::parse(&blob[..length]).is_err(), "cut at {length}");
        }
        blob.push(b'|');
        assert!(AgentMetadata::parse(&blob).is_err());
    }
    Ok(())
}

#[test]
fn every_single_bit_flip_is_an_error_or_another_whole_blob() -> Outcome {
    for blob in [golden()?.remove(2).2, rich().to_bytes()] {
        for bit in 0..blob.len() * 8 {
            let mut damaged = blob.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            check(&damaged);
        }
    }
    Ok(())
}

#[test]
fn an_error_names_the_place() {
    let mut blob = rich().to_bytes();
    let at = blob.windows(10).position(|window| window == b"MemSection").unwrap_or_default();
    blob[at] ^= 1;
    let error = AgentMetadata::parse(&blob).err().map(|error| error.to_string()).unwrap_or_default();
    assert_eq!(
        error,
        format!("damaged agent metadata: byte {}, section header: another word stands here", at - 8)
    );
}

#[test]
fn a_bomb_is_not_inflated_beyond_the_bound() -> Outcome {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&vec![0; 128 * MAX_AGENT_METADATA])?;
    let text = format!("b64:{}", base64::engine::general_purpose::STANDARD.encode(encoder.finish()?));
    assert!(text.len() < MAX_AGENT_METADATA);
    let (result, allocated) = allocated_by(|| decode_agent_metadata(&text));
    assert_eq!(result, Err(MetadataError::Inflated));
    // A buffer that doubles while it grows, each size counted.
    assert!(allocated <= 8 * MAX_AGENT_METADATA, "{allocated} bytes");
    Ok(())
}

/// No panic, memory within the bound, and what is taken is exactly what the bytes say.
fn check(bytes: &[u8]) {
    let (parsed, allocated) = allocated_by(|| AgentMetadata::parse(bytes));
    assert!(allocated <= bound(bytes.len()), "{allocated} bytes for {}", bytes.len());
    if let Ok(parsed) = parsed {
        assert_eq!(parsed.to_bytes(), bytes);
    }
}

proptest! {
    #[test]
    fn random_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        check(&bytes);
        check(&[b"nixlSerDes|".as_slice(), &bytes].concat());
    }

    #[test]
    fn splices_of_real_blobs_do_no_harm(
        cuts in prop::collection::vec((0_usize..600, 0_usize..64), 1..6),
        numbers in prop::collection::vec(prop_oneof![Just(u64::MAX), Just(1 << 32), any::<u64>()], 6),
    ) {
        let mut blob = rich().to_bytes();
        for ((at, length), number) in cuts.into_iter().zip(numbers) {
            let at = at.min(blob.len());
            let end = (at + length).min(blob.len());
            blob.splice(at..end, number.to_le_bytes());
            check(&blob);
        }
    }

    #[test]
    fn random_text_is_refused_within_bounds(text in "(b64:)?[0-9a-fA-F+/=]{0,400}") {
        let (result, allocated) = allocated_by(|| CheckedMetadata::decode(&text, None));
        prop_assert!(result.is_err());
        // zlib's own window and tables are allocated by C and not seen here; the buffers of reading are.
        prop_assert!(allocated <= bound(text.len()) + 256 * 1024, "{} bytes", allocated);
    }
}
