//! The TransferJob that `create` makes: what was said on the command line and nothing else, so that it reads like one that a
//! person wrote and goes into Git as it is. Pure.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use nixl_transfer_crds::{
    Algorithm, FanOut, Integrity, Quantity, Require, TransferJob, TransferJobSpec, Transport, WritePolicy,
    names::MAX_JOB_NAME,
};
use serde_json::{Value, json};

use crate::ends::End;

/// Longest name of a destination, and how many a job may have.
const MAX_DESTINATION: usize = 40;
const MAX_DESTINATIONS: usize = 64;

/// What shall be moved, and how.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Its name; without one it is made of the ends.
    pub name: Option<String>,
    /// Where it comes from.
    pub source: End,
    /// Where it goes.
    pub destinations: Vec<End>,
    /// Globs of files to move, and to leave out.
    pub include: Vec<String>,
    /// The latter.
    pub exclude: Vec<String>,
    /// What happens to files that exist.
    pub write_policy: WritePolicy,
    /// The digest.
    pub algorithm: Algorithm,
    /// Read every file back from the destination's disk.
    pub read_back: bool,
    /// Which networks are acceptable.
    pub require: Require,
    /// How many receivers get their copies.
    pub fan_out: FanOut,
    /// Most bytes per second of each hop.
    pub bandwidth_limit: Option<Quantity>,
    /// Begin suspended.
    pub suspend: bool,
}

/// The document for the API server, for `kubectl apply`, for Git. An error says what of the wish cannot be.
pub fn document(wish: &Wish, namespace: Option<&str>) -> Result<Value, String> {
    if wish.destinations.len() > MAX_DESTINATIONS {
        return Err(format!(
            "{} destinations are given and {MAX_DESTINATIONS} is the most; a selector (`-l role=decode:models/llama`) \
             reaches any number of nodes by one",
            wish.destinations.len()
        ));
    }
    let filters = !wish.include.is_empty() || !wish.exclude.is_empty();
    if filters && matches!(wish.source, End::Memory(_)) {
        return Err("--include and --exclude choose files, and the source is memory: leave them out".into());
    }
    let spec = TransferJobSpec {
        source: wish.source.source(&wish.include, &wish.exclude),
        destinations: named(&wish.destinations)
            .into_iter()
            .map(|(name, end)| end.destination(name))
            .collect(),
        transport: Transport {
            require: wish.require,
            fan_out: wish.fan_out,
            bandwidth_limit: wish.bandwidth_limit.clone(),
            ..Transport::default()
        },
        integrity: Integrity { algorithm: wish.algorithm, read_back: wish.read_back },
        write_policy: wish.write_policy,
        suspend: wish.suspend,
        ..defaults()?
    };
    let name = wish.name.clone().unwrap_or_else(|| name_of(wish));
    let metadata =
        ObjectMeta { name: Some(name), namespace: namespace.map(str::to_owned), ..ObjectMeta::default() };
    let mut document = json!(TransferJob { metadata, spec, status: None });
    let mut known = json!(defaults()?);
    if let Value::Object(fields) = &mut known {
        // These have no default, whatever they are like.
        fields.retain(|name, _| name != "source" && name != "destinations");
    }
    without(&mut document["spec"], &known);
    Ok(document)
}

/// A spec in which everything that has a default has it.
fn defaults() -> Result<TransferJobSpec, String> {
    let least = json!({"source": {"memory": {"name": "x"}}, "destinations": []});
    serde_json::from_value(least)
        .map_err(|error| format!("this version's own defaults cannot be read: {error}"))
}

/// Takes away what is as it would be without it.
fn without(value: &mut Value, default: &Value) {
    let (Value::Object(fields), Value::Object(defaults)) = (value, default) else { return };
    fields.retain(|name, field| {
        let Some(default) = defaults.get(name) else { return true };
        without(field, default);
        field != default && !field.as_object().is_some_and(serde_json::Map::is_empty)
    });
}

/// Every destination under a name of its own.
fn named(ends: &[End]) -> Vec<(String, &End)> {
    let mut taken = BTreeSet::new();
    ends.iter()
        .map(|end| {
            let base = slug(end.place(), MAX_DESTINATION);
            let numbered = |number: usize| {
                let suffix = format!("-{number}");
                format!("{}{suffix}", slug(&base, MAX_DESTINATION - suffix.len()))
            };
            let mut name = base.clone();
            let mut number = 2;
            while !taken.insert(name.clone()) {
                name = numbered(number);
                number += 1;
            }
            (name, end)
        })
        .collect()
}

/// `llama-to-decode`: what, and where to.
fn name_of(wish: &Wish) -> String {
    let first = wish.destinations.first().map_or("nowhere", End::place);
    let more = if wish.destinations.len() > 1 { "-and-more" } else { "" };
    let what = slug(wish.source.content(), MAX_JOB_NAME / 2);
    slug(&format!("{what}-to-{}{more}", slug(first, MAX_JOB_NAME)), MAX_JOB_NAME)
}

/// A text as a name: lower-case letters, digits and dashes.
fn slug(text: &str, longest: usize) -> String {
    let dashed: String = text
        .chars()
        .map(|it| if it.is_ascii_alphanumeric() { it.to_ascii_lowercase() } else { '-' })
        .collect();
    let parts: Vec<&str> = dashed.split('-').filter(|part| !part.is_empty()).collect();
    let cut: String = parts.join("-").chars().take(longest).collect();
    let cut = cut.trim_end_matches('-');
    if cut.is_empty() { "data".into() } else { cut.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(source: &str, destinations: &[&str]) -> Wish {
        let end = |text: &&str| text.parse().unwrap();
        Wish {
            name: None,
            source: end(&source),
            destinations: destinations.iter().map(end).collect(),
            include: Vec::new(),
            exclude: Vec::new(),
            write_policy: WritePolicy::default(),
            algorithm: Algorithm::default(),
            read_back: false,
            require: Require::default(),
            fan_out: FanOut::default(),
            bandwidth_limit: None,
            suspend: false,
        }
    }

    #[test]
    fn says_what_was_said_and_nothing_else() {
        let plain = document(&wish("gpu-a:models/llama", &["role=decode:models/llama"]), Some("ml")).unwrap();
        let destinations = json!([{
            "name": "decode",
            "node": {"selector": {"matchLabels": {"role": "decode"}}},
            "volume": {"name": "models", "path": "llama"},
        }]);
        let source = json!({"node": {"name": "gpu-a"}, "volume": {"name": "models", "path": "llama"}});
        let expected = json!({
            "apiVersion": "nixl-transfer.io/v1alpha1",
            "kind": "TransferJob",
            "metadata": {"name": "llama-to-decode", "namespace": "ml"},
            "spec": {"source": source, "destinations": destinations},
        });
        assert_eq!(plain, expected);

        // A source that is like the one of the defaults is said all the same.
        let all = Wish {
            name: Some("all".into()),
            read_back: true,
            require: Require::Rdma,
            bandwidth_limit: Some(Quantity::from_bytes(1 << 30)),
            write_policy: WritePolicy::FailIfExists,
            suspend: true,
            ..wish("memory/x", &["gpu-b:models"])
        };
        let spec = document(&all, Some("ml")).unwrap()["spec"].take();
        let expected = json!({
            "source": {"memory": {"name": "x"}},
            "destinations": [{"name": "gpu-b", "node": {"name": "gpu-b"}, "volume": {"name": "models"}}],
            "transport": {"require": "Rdma", "bandwidthLimit": "1Gi"},
            "integrity": {"readBack": true},
            "writePolicy": "FailIfExists",
            "suspend": true,
        });
        assert_eq!(spec, expected);
    }

    #[test]
    fn names_are_valid_and_distinct() {
        let name = |source: &str, to: &[&str]| {
            document(&wish(source, to), Some("ml")).unwrap()["metadata"]["name"].as_str().unwrap().to_owned()
        };
        assert_eq!(name("a:models/Llama_3.8B", &["node-b.internal:m"]), "llama-3-8b-to-node-b-internal");
        assert_eq!(name("a:models", &["b:m", "c:m"]), "models-to-b-and-more");
        assert_eq!(name("a:m/…", &["memory/kv"]), "data-to-kv");
        let long = name(&format!("a:m/{}", "x".repeat(90)), &[&format!("{}:m", "y".repeat(90))]);
        assert!(long.len() <= MAX_JOB_NAME && long.contains("-to-yyy"), "{long}");

        let ends: Vec<End> =
            ["b:m/1", "b:m/2", "role=b:m", "b-2:m"].iter().map(|text| text.parse().unwrap()).collect();
        let names: Vec<String> = named(&ends).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["b", "b-2", "b-3", "b-2-2"]);
    }

    #[test]
    fn what_cannot_be_is_said() {
        let many = vec!["b:m"; 65];
        let error = document(&wish("a:m", &many), Some("ml")).unwrap_err();
        assert!(error.contains("65 destinations") && error.contains("-l role=decode"), "{error}");
        let filtered = Wish { include: vec!["*.bin".into()], ..wish("memory/x", &["b:m"]) };
        assert!(document(&filtered, Some("ml")).unwrap_err().contains("leave them out"));
    }
}
