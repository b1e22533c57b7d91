//! A label selector as it is written after `-l`. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// Longest value of a label, and the key with its prefix.
const MAX_VALUE: usize = 63;
const MAX_KEY: usize = 317;

/// `KEY=VALUE`, `KEY==VALUE`, `KEY!=VALUE`, `KEY` and `!KEY`, joined with commas. Equalities become `matchLabels`, as a person
/// would write them.
pub(super) fn parse(text: &str) -> Result<LabelSelector, String> {
    let wrong = |part: &str| {
        format!(
            "{part:?} is no part of a selector; write KEY=VALUE, KEY!=VALUE, KEY or !KEY, for example role=decode"
        )
    };
    let (mut labels, mut expressions) = (BTreeMap::new(), Vec::new());
    for part in text.split(',') {
        let part = part.trim();
        let (key, operator, value) = if let Some((key, value)) = part.split_once("!=") {
            (key, "NotIn", Some(value))
        } else if let Some((key, value)) = part.split_once('=') {
            (key, "In", Some(value.strip_prefix('=').unwrap_or(value)))
        } else if let Some(key) = part.strip_prefix('!') {
            (key, "DoesNotExist", None)
        } else {
            (part, "Exists", None)
        };
        let is_key =
            !key.is_empty() && key.len() <= MAX_KEY && key.bytes().all(|byte| is_word(byte) || byte == b'/');
        let is_value = |value: &str| value.len() <= MAX_VALUE && value.bytes().all(is_word);
        if !is_key || !value.is_none_or(is_value) {
            return Err(wrong(part));
        }
        match (operator, value) {
            ("In", Some(value)) => {
                let before: Option<String> = labels.insert(key.to_owned(), value.to_owned());
                if before.is_some_and(|before| before != value) {
                    return Err(format!(
                        "{text:?} asks for two values of the label {key}, which no node has; give one"
                    ));
                }
            }
            _ => expressions.push(LabelSelectorRequirement {
                key: key.into(),
                operator: operator.into(),
                values: value.map(|value| vec![value.to_owned()]),
            }),
        }
    }
    Ok(LabelSelector {
        match_labels: Some(labels).filter(|labels| !labels.is_empty()),
        match_expressions: Some(expressions).filter(|expressions| !expressions.is_empty()),
    })
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::parse;

    #[test]
    fn reads_the_forms_of_kubectl() {
        let requirement = |key: &str, operator: &str, values: Option<&str>| {
            let mut it = json!({"key": key, "operator": operator});
            if let Some(value) = values {
                it["values"] = json!([value]);
            }
            it
        };
        let cases: [(&str, Value); 4] = [
            ("role=decode", json!({"matchLabels": {"role": "decode"}})),
            ("role==decode, zone=", json!({"matchLabels": {"role": "decode", "zone": ""}})),
            ("a!=b", json!({"matchExpressions": [requirement("a", "NotIn", Some("b"))]})),
            (
                "gpu,!old",
                json!({"matchExpressions": [requirement("gpu", "Exists", None), requirement("old", "DoesNotExist", None)]}),
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(json!(parse(text).unwrap()), expected, "{text}");
        }
        for text in ["", "=x", "a=b,", "a b", "a in (b)", "role=a=b", "!"] {
            let error = parse(text).unwrap_err();
            assert!(error.contains("role=decode"), "{text}: {error}");
        }
        assert!(parse("a=b,a=c").unwrap_err().contains("two values"));
    }
}
