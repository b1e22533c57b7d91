//! Which reasons of the closed list an object names, as it is stored. Pure.

use std::collections::BTreeSet;

use nixl_transfer_crds::reason::{Class, Reason, TABLE};
use serde_json::Value;

const OURS: &str = "/registry/nixl-transfer.io/";
const EVENTS: &str = "/registry/events/";
const FIELDS: [&str; 2] = ["reason", "fallbackReason"];

/// In fields that hold a reason and nothing else; a message that mentions one is no sight of it. Of events, which Kubernetes does
/// not store as JSON, those are looked for that stand nowhere else.
pub fn in_object(key: &str, value: &[u8]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    if key.starts_with(OURS) {
        if let Ok(object) = serde_json::from_slice::<Value>(value) {
            collect(&object["status"], &mut found);
        }
    } else if key.starts_with(EVENTS) {
        let text = String::from_utf8_lossy(value);
        let named = TABLE.iter().filter(|entry| entry.class == Class::EventOnly && text.contains(entry.name));
        found.extend(named.map(|entry| entry.name.to_owned()));
    }
    found
}

fn collect(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str().filter(|_| FIELDS.contains(&name.as_str())) {
                    Some(text) => found.extend(Reason::parse(text).map(|reason| reason.as_str().to_owned())),
                    None => collect(value, found),
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_reason_is_seen_in_its_field_and_not_in_a_message() {
        let job = json!({
            "metadata": {"reason": "IoError"},
            "status": {
                "conditions": [{"reason": "Retrying", "message": "IoError: disk"}, {"reason": "MadeUp"}],
                "transport": {"fallbackReason": "NoRdmaDevice"},
            },
        });
        let key = format!("{OURS}transferjobs/default/j");
        let found = in_object(&key, job.to_string().as_bytes());
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["NoRdmaDevice", "Retrying"]);
        assert!(in_object("/registry/pods/default/p", job.to_string().as_bytes()).is_empty());
        let event = in_object("/registry/events/default/e", b"k8s\0\x0aTTLIgnored\x12 Retrying");
        assert_eq!(event.into_iter().collect::<Vec<_>>(), ["TTLIgnored"]);
    }
}
