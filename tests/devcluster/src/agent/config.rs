//! The agent's configuration file. Pure. JSON is YAML, so no YAML writer is needed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::AgentOptions;
use crate::SYSTEM_NAMESPACE;

pub(super) fn render(
    options: &AgentOptions,
    kubeconfig: &Path,
    serves: SocketAddr,
    directories: &BTreeMap<String, PathBuf>,
) -> String {
    let volumes: Vec<Value> = options
        .volumes
        .iter()
        .map(|volume| {
            json!({
                "name": volume.name,
                "path": directories.get(&volume.name),
                "readOnly": volume.read_only,
                "allowedNamespaces": volume.allowed_namespaces,
            })
        })
        .collect();
    let mut config = json!({
        "nodeName": options.node,
        "kubeconfig": kubeconfig,
        "leaseNamespace": SYSTEM_NAMESPACE,
        "listen": serves.to_string(),
        "nixl": {"library": options.nixl.library, "plugins": options.nixl.plugins},
        "network": {"devices": ["lo"]},
        "slots": 4,
        "staging": "256Mi",
        "warmWorkers": 2,
        "volumes": volumes,
    });
    merge(&mut config, &options.extra_config);
    format!("{config:#}\n")
}

/// RFC 7386: objects are merged by key, null removes, anything else replaces. A top-level null changes nothing.
fn merge(base: &mut Value, change: &Value) {
    let Value::Object(changes) = change else { return };
    for (key, change) in changes {
        match (change, base.get_mut(key)) {
            (Value::Null, _) => {
                base.as_object_mut().map(|object| object.remove(key));
            }
            (Value::Object(_), Some(inner @ Value::Object(_))) => merge(inner, change),
            _ => base[key] = change.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_keys_are_merged() {
        let mut base = json!({"slots": 4, "nixl": {"library": "l", "plugins": "p"}, "volumes": [1]});
        merge(
            &mut base,
            &json!({"slots": 1, "nixl": {"plugins": "q"}, "volumes": [2, 3], "faults": {"kill": true}}),
        );
        merge(&mut base, &json!({"slots": null}));
        merge(&mut base, &Value::Null);
        let expected =
            json!({"nixl": {"library": "l", "plugins": "q"}, "volumes": [2, 3], "faults": {"kill": true}});
        assert_eq!(base, expected);
    }
}
