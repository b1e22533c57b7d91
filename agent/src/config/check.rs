//! What a configuration must fulfil beyond its form, and the words for what it does not. Pure.

use std::{collections::BTreeSet, path::Path};

use serde_yaml::Value;

use super::Config;

/// Key, problem with the value, remedy.
pub(super) type Problem = (String, String, String);

/// Staging memory beyond this is surely a slip: it would be locked.
const MAX_STAGING: u64 = 64 << 30;
const MAX_SLOTS: u32 = 64;
const MAX_WARM_WORKERS: u32 = 16;
const MAX_VOLUMES: usize = 256;
const MAX_VOLUME_NAME: usize = 63;
/// Longest name of a node and so of its Lease.
const MAX_NODE_NAME: usize = 253;
/// Longest name of an interface.
const MAX_DEVICE_NAME: usize = 15;

pub(super) fn parse(text: &str, node_name: Option<&str>) -> Result<Config, Problem> {
    let value: Value = serde_yaml::from_str(text)
        .map_err(|error| problem(".", format!("is no YAML: {error}"), "correct the line"))?;
    if !value.is_mapping() {
        return Err(problem(
            ".",
            "is no mapping of keys to values",
            "see the agent's documentation for an example",
        ));
    }
    let mut config: Config = typed(value)?;
    if config.node_name.is_empty() {
        config.node_name = node_name.unwrap_or_default().into();
    }
    check(&config)?;
    Ok(config)
}

fn typed(value: Value) -> Result<Config, Problem> {
    serde_yaml::from_value(value.clone()).map_err(|error| {
        let error = error.to_string();
        let named = error.split('`').nth(1).unwrap_or_default();
        // These two are about a key of a mapping, which the text names; the others are about a value.
        let about_key = error.contains("unknown field") || error.contains("missing field");
        let (mut key, found) = guilty(value, &error, about_key);
        if about_key {
            key = joined(&key, named);
        }
        let remedy = match (error.contains("unknown field"), error.contains("missing field")) {
            (true, _) => "remove it, or correct its name",
            (_, true) => "add it",
            _ => "give a value of the right type",
        };
        let shown = match found {
            Value::String(text) if !error.contains(&text) => format!("{text:?}: {error}"),
            _ => error,
        };
        problem(if key.is_empty() { "." } else { &key }, shown, remedy)
    })
}

/// Where an error is: serde does not say, but without the guilty part the error is another one.
fn guilty(root: Value, error: &str, mappings_only: bool) -> (String, Value) {
    let (mut steps, mut path, mut at) = (Vec::new(), String::new(), root.clone());
    'deeper: loop {
        for step in children(&at) {
            let Some(inner) = child(&mut at, &step).cloned() else { continue };
            if mappings_only && !(inner.is_mapping() || inner.is_sequence()) {
                continue;
            }
            steps.push(step.clone());
            let mut changed = root.clone();
            remove(&mut changed, &steps);
            let other = serde_yaml::from_value::<Config>(changed).err().map(|error| error.to_string());
            if other.as_deref() != Some(error) {
                path = match &step {
                    Value::String(key) => joined(&path, key),
                    index => format!("{path}[{}]", index.as_u64().unwrap_or_default()),
                };
                at = inner;
                continue 'deeper;
            }
            steps.pop();
        }
        return (path, at);
    }
}

fn children(value: &Value) -> Vec<Value> {
    match value {
        Value::Mapping(mapping) => mapping.keys().cloned().collect(),
        Value::Sequence(sequence) => (0..sequence.len()).map(|index| Value::from(index as u64)).collect(),
        _ => Vec::new(),
    }
}

fn child<'a>(value: &'a mut Value, step: &Value) -> Option<&'a mut Value> {
    match value {
        Value::Mapping(mapping) => mapping.get_mut(step),
        Value::Sequence(sequence) => sequence.get_mut(usize::try_from(step.as_u64()?).ok()?),
        _ => None,
    }
}

fn remove(value: &mut Value, steps: &[Value]) {
    let Some((last, above)) = steps.split_last() else { return };
    let mut at = value;
    for step in above {
        let Some(inner) = child(at, step) else { return };
        at = inner;
    }
    match (at, last.as_u64()) {
        (Value::Mapping(mapping), _) => {
            mapping.remove(last);
        }
        (Value::Sequence(sequence), Some(index)) => {
            sequence.remove(index as usize);
        }
        _ => {}
    }
}

fn joined(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn check(config: &Config) -> Result<(), Problem> {
    if !is_name(&config.node_name, MAX_NODE_NAME, true) {
        return Err(problem(
            "nodeName",
            format!("{:?} is no node's name", config.node_name),
            "give the name that `kubectl get nodes` shows, here, with --node-name or in NODE_NAME",
        ));
    }
    if !is_name(&config.lease_namespace, MAX_VOLUME_NAME, false) {
        let found = format!("{:?} is no namespace's name", config.lease_namespace);
        return Err(problem("leaseNamespace", found, "give the namespace that holds the agents' Leases"));
    }
    within("slots", config.slots, 1, MAX_SLOTS)?;
    within("warmWorkers", config.warm_workers, 1, MAX_WARM_WORKERS)?;
    match config.staging.bytes() {
        Ok(bytes) if (1 << 20..=MAX_STAGING).contains(&bytes) => {}
        Ok(bytes) => {
            let found = format!("{} ({bytes} bytes) is out of bounds", config.staging);
            return Err(problem("staging", found, "give 1Mi to 64Gi"));
        }
        Err(error) => return Err(problem("staging", error.to_string(), "give 1Mi to 64Gi")),
    }
    if let Err(error) = config.memory.host.bytes() {
        return Err(problem("memory.host", error.to_string(), "give for example 0 or 8Gi"));
    }
    if let Err(error) = config.memory.gpu.bytes() {
        return Err(problem("memory.gpu", error.to_string(), "give for example 0 or 8Gi"));
    }
    for (key, library) in [("nvidia.cuda", &config.nvidia.cuda), ("nvidia.nvml", &config.nvidia.nvml)] {
        if library.is_empty() {
            return Err(problem(key, "\"\" is no library", "give a name or a path, or leave the key out"));
        }
    }
    if let Some(socket) = &config.memory.socket {
        absolute("memory.socket", socket)?;
    }
    absolute("nixl.library", &config.nixl.library)?;
    absolute("nixl.plugins", &config.nixl.plugins)?;
    absolute("sysfs", &config.sysfs)?;
    if let Some(launcher) = &config.launcher {
        absolute("launcher.socket", &launcher.socket)?;
    }
    for (at, device) in config.network.devices.iter().enumerate() {
        // The names become a UCX variable, where a comma would begin another one.
        let plain = device.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte));
        if device.is_empty() || device.len() > MAX_DEVICE_NAME || !plain {
            return Err(problem(
                &format!("network.devices[{at}]"),
                format!("{device:?} is no interface's name"),
                "give a name that `ip link` shows",
            ));
        }
    }
    volumes(config)
}

fn volumes(config: &Config) -> Result<(), Problem> {
    if config.volumes.len() > MAX_VOLUMES {
        let found = format!("{} volumes are too many", config.volumes.len());
        return Err(problem("volumes", found, &format!("publish {MAX_VOLUMES} at most")));
    }
    let mut seen = BTreeSet::new();
    for (at, volume) in config.volumes.iter().enumerate() {
        let key = |part: &str| format!("volumes[{at}].{part}");
        if !is_name(&volume.name, MAX_VOLUME_NAME, false) {
            return Err(problem(
                &key("name"),
                format!("{:?} is no volume's name", volume.name),
                "use up to 63 lower-case letters, digits and `-`, a letter or digit at both ends",
            ));
        }
        if !seen.insert(&volume.name) {
            let found = format!("{:?} is there twice", volume.name);
            return Err(problem(&key("name"), found, "give each volume a name of its own"));
        }
        absolute(&key("path"), &volume.path)?;
        if volume.allowed_namespaces.is_empty() {
            return Err(problem(
                &key("allowedNamespaces"),
                "[] lets nobody use the volume",
                "list namespaces, or \"*\" for all",
            ));
        }
        for (entry, namespace) in volume.allowed_namespaces.iter().enumerate() {
            if namespace != "*" && !is_name(namespace, MAX_VOLUME_NAME, false) {
                return Err(problem(
                    &key(&format!("allowedNamespaces[{entry}]")),
                    format!("{namespace:?} is no namespace's name"),
                    "give a namespace, or \"*\" for all",
                ));
            }
        }
    }
    Ok(())
}

fn is_name(name: &str, longest: usize, dots: bool) -> bool {
    let inner = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || (dots && byte == b'.')
    };
    let ends = !name.starts_with(['-', '.']) && !name.ends_with(['-', '.']);
    !name.is_empty() && name.len() <= longest && ends && name.bytes().all(inner)
}

fn absolute(key: &str, path: &Path) -> Result<(), Problem> {
    if path.is_absolute() {
        return Ok(());
    }
    Err(problem(key, format!("{path:?} is no absolute path"), "begin it with /"))
}

fn within(key: &str, value: u32, least: u32, most: u32) -> Result<(), Problem> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(problem(key, format!("{value} is out of bounds"), &format!("give {least} to {most}")))
}

fn problem(key: &str, found: impl Into<String>, remedy: &str) -> Problem {
    (key.into(), found.into(), remedy.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
nodeName: node-a
nixl: {library: /n/libnixl_capi.so, plugins: /n/plugins}
volumes: [{name: data, path: /data, allowedNamespaces: ["*"]}]
"#;

    #[test]
    fn defaults_are_filled_in() {
        let config = parse(GOOD, None).unwrap();
        assert_eq!((config.slots, config.warm_workers, config.staging_bytes()), (4, 2, 256 << 20));
        assert_eq!(config.lease_namespace, "nixl-transfer-system");
        assert_eq!(config.sysfs, Path::new("/sys"));
        assert!(
            !config.volumes[0].read_only
                && config.launcher.is_none()
                && config.faults.corrupt_chunk.is_none()
        );
        let other = parse(&GOOD.replace("nodeName: node-a", ""), Some("node-b")).unwrap();
        assert_eq!(other.node_name, "node-b");
    }

    /// What is changed, the key that the error names, and a part of the value that it shows.
    const BAD: &[(&str, &str, &str, &str)] = &[
        ("nodeName: node-a", "", "nodeName", "\"\""),
        ("nodeName: node-a", "nodeName: Node_A", "nodeName", "Node_A"),
        ("nodeName: node-a", "nodeName: node-a\nslots: 0", "slots", "0"),
        ("nodeName: node-a", "nodeName: node-a\nslots: many", "slots", "many"),
        ("nodeName: node-a", "nodeName: node-a\nwarmWorkers: 17", "warmWorkers", "17"),
        ("nodeName: node-a", "nodeName: node-a\nstaging: 5 apples", "staging", "5 apples"),
        ("nodeName: node-a", "nodeName: node-a\nstaging: 1Ki", "staging", "1024"),
        ("nodeName: node-a", "nodeName: node-a\nlisten: here", "listen", "here"),
        ("nodeName: node-a", "nodeName: node-a\nslotz: 4", "slotz", "slotz"),
        (
            "nodeName: node-a",
            "nodeName: node-a\nnetwork: {devices: ['lo,eth0']}",
            "network.devices[0]",
            "lo,eth0",
        ),
        ("nodeName: node-a", "nodeName: node-a\nlauncher: {socket: run/l}", "launcher.socket", "run/l"),
        ("nodeName: node-a", "nodeName: node-a\nsysfs: sys", "sysfs", "\"sys\""),
        ("/n/libnixl_capi.so", "libnixl_capi.so", "nixl.library", "libnixl_capi.so"),
        ("name: data", "name: Data", "volumes[0].name", "Data"),
        ("path: /data", "path: data", "volumes[0].path", "data"),
        (", allowedNamespaces: [\"*\"]", "", "volumes[0].allowedNamespaces", "missing"),
        ("[\"*\"]", "all", "volumes[0].allowedNamespaces", "all"),
        ("path: /data", "path: /data, readOnly: maybe", "volumes[0].readOnly", "maybe"),
        ("path: /data", "path: /data, readonly: true", "volumes[0].readonly", "readonly"),
        ("plugins: /n/plugins", "plugins: 7", "nixl.plugins", "7"),
        ("[\"*\"]", "[]", "volumes[0].allowedNamespaces", "[]"),
        ("[\"*\"]", "[\"team_a\"]", "volumes[0].allowedNamespaces[0]", "team_a"),
        (
            "volumes: [",
            "volumes: [{name: data, path: /a, allowedNamespaces: [b]}, ",
            "volumes[1].name",
            "data",
        ),
        ("nodeName: node-a", "nodeName: [", ".", "YAML"),
    ];

    #[test]
    fn every_error_names_key_value_and_remedy() {
        for (from, to, key, shown) in BAD {
            let text = GOOD.replacen(from, to, 1);
            let error = Config::parse("agent.yaml", &text, None).expect_err(to);
            assert_eq!(error.key, *key, "{to}: {error}");
            assert!(error.problem.contains(shown), "{to}: {error}");
            assert!(!error.remedy.is_empty() && error.to_string().starts_with("agent.yaml: "), "{error}");
        }
    }
}
