//! The smallest merge patch (RFC 7386) from one value to another: what was removed becomes null. Pure.

use serde_json::{Map, Value};

/// The merge patch that makes `before` into `after`; absent when they are equal.
pub fn between(before: &Value, after: &Value) -> Option<Value> {
    if before == after {
        return None;
    }
    let (Value::Object(old), Value::Object(new)) = (before, after) else { return Some(after.clone()) };
    let mut patch = Map::new();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in new {
        let change = match old.get(key) {
            Some(known) => between(known, value),
            None => Some(value.clone()),
        };
        if let Some(change) = change {
            patch.insert(key.clone(), change);
        }
    }
    Some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_changed_is_sent_and_what_vanished_is_null() {
        let before = json!({"a": 1, "b": {"c": 1, "d": 2}, "e": [1, 2]});
        assert_eq!(between(&before, &before), None);
        let after = json!({"a": 1, "b": {"d": 3}, "e": [2], "f": {"g": 1}});
        let patch = json!({"b": {"c": null, "d": 3}, "e": [2], "f": {"g": 1}});
        assert_eq!(between(&before, &after), Some(patch));
        assert_eq!(between(&json!(null), &json!({"a": 1})), Some(json!({"a": 1})));
    }
}
