//! However many devices there are, the status is within the schema that the API server holds it against.

use nixl_transfer_crds::{
    TransferNode,
    node::devices::{LinkState, MAX_GPUS, MAX_NICS, MAX_NICS_OF_A_GPU},
};
use serde_json::Value;

use super::*;

/// What is shown, held against the bounds of the definition itself.
pub(super) fn assert_fits(shown: &Shown) {
    let definition = serde_json::to_value(<TransferNode as kube::CustomResourceExt>::crd()).unwrap();
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
    assert!(schema["properties"]["gpus"].is_object() && schema["properties"]["nics"].is_object());
    fits("status", &serde_json::to_value(shown).unwrap(), schema);
}

fn fits(at: &str, value: &Value, schema: &Value) {
    let bound = |key: &str| schema[key].as_f64().unwrap_or_else(|| panic!("{at}: the schema has no {key}"));
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let inner = &schema["properties"][name];
                assert!(inner.is_object(), "{at}.{name} is not in the schema");
                fits(&format!("{at}.{name}"), value, inner);
            }
            for name in schema["required"].as_array().into_iter().flatten() {
                assert!(fields.contains_key(name.as_str().unwrap()), "{at}: {name} is missing");
            }
        }
        Value::Array(items) => {
            assert!(items.len() as f64 <= bound("maxItems"), "{at}: {} items", items.len());
            items.iter().for_each(|item| fits(at, item, &schema["items"]));
        }
        Value::String(text) => match schema["enum"].as_array() {
            Some(words) => assert!(words.contains(value), "{at}: {text}"),
            None => assert!(text.chars().count() as f64 <= bound("maxLength"), "{at}: {text}"),
        },
        Value::Number(number) => {
            assert!(
                number.as_i64().is_some_and(|number| number as f64 >= bound("minimum")),
                "{at}: {number}"
            );
        }
        Value::Bool(_) => assert_eq!(schema["type"], "boolean", "{at}"),
        Value::Null => panic!("{at} is null"),
    }
}

/// A node with more of everything, and longer, than any that exists.
fn many(nics: usize, gpus: usize) -> (Vec<Gpu>, Devices) {
    let long = |at: usize| format!("{at:05}{}", "ü".repeat(300));
    let place = |at: usize| Place {
        address: address(&format!("{:08x}:{:02x}:1f.7", 0xffff_0000_usize + at, at % 256)),
        root: Some("pciffffffff:ff".into()),
        bridges: Vec::new(),
        numa: Some(u32::MAX),
    };
    let nic = |at: usize| Nic {
        name: long(at),
        port: at.is_multiple_of(2).then_some(u32::MAX),
        netdev: Some(long(at)),
        state: if at.is_multiple_of(3) { LinkState::Active } else { LinkState::Down },
        link_layer: long(at),
        rate: Some(u64::MAX),
        place: Some(place(at)),
        rdma_sent: None,
        netdev_sent: None,
    };
    let gpu = |at: usize| Gpu {
        index: u32::MAX,
        uuid: long(at),
        model: long(at),
        memory: Some(u64::MAX),
        address: Some(place(at).address),
    };
    let devices = Devices {
        numa: Vec::new(),
        nics: (0..nics).map(nic).collect(),
        displays: (0..gpus).map(place).collect(),
        data_direct: vec![place(0)],
        peer_memory_module: true,
        storage_module: true,
    };
    ((0..gpus).map(gpu).collect(), devices)
}

#[test]
fn very_many_devices_fit_and_the_useful_ones_stay() {
    let (gpus, devices) = many(1000, 200);
    let shown = shown(&gpus, &devices);
    assert_fits(&shown);
    assert_eq!((shown.gpus.len(), shown.nics.len()), (MAX_GPUS, MAX_NICS));
    assert!(shown.gpus.iter().all(|gpu| gpu.nics.len() == MAX_NICS_OF_A_GPU && !gpu.pcie_root.is_empty()));
    // 167 of them are active and have RDMA.
    assert!(shown.nics.iter().all(|nic| nic.state == LinkState::Active && nic.port.is_some()));
    let size = serde_json::to_string(&shown).unwrap().len();
    assert!(size < 512 << 10, "etcd takes 1.5 MiB, and a status is for reading: {size}");
}

#[test]
fn as_many_as_fit_are_all_shown_in_their_order() {
    let (gpus, devices) = many(MAX_NICS, MAX_GPUS);
    let shown = shown(&gpus, &devices);
    let numbers: Vec<String> = shown.nics.iter().map(|nic| nic.name.chars().take(5).collect()).collect();
    assert_eq!(numbers, (0..MAX_NICS).map(|at| format!("{at:05}")).collect::<Vec<_>>());
    assert_eq!(shown.gpus.len(), MAX_GPUS);
}
