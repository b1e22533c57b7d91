//! `SRC` and `DST` as people write them on a command line, and what they are in a TransferJob. Pure.

mod selector;

use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use nixl_transfer_crds::{
    NodeRef, VolumeRef,
    endpoint::{Destination, MemoryRef, Place, Source, SourceVolume},
};

/// What `--help` says about them.
pub const SYNTAX: &str = "\
SRC and DST are written as with scp:
  gpu-a:models/llama             node gpu-a, its published volume `models`, the path `llama` in it
  node/gpu-a:models/llama        the same
  gpu-a:models                   the whole volume
  role=decode:models/llama       every node with the label; as a SRC one of them, the least busy
  memory/kv-buffer               the MemoryRegion kv-buffer in the job's namespace
`-l role=decode:models/llama` is a DST too. A selector is KEY=VALUE, KEY!=VALUE, KEY or !KEY, joined with commas.
What a node publishes: `kubectl transfer doctor`.";

/// Longest name of a node, of a path, and of what has a DNS label for a name.
const MAX_NODE: usize = 253;
const MAX_PATH: usize = 1024;
const MAX_LABEL: usize = 63;

/// One end of a move.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// A path beneath a published volume.
    Volume {
        /// Where.
        on: Nodes,
        /// Name of the volume.
        volume: String,
        /// Path in it; empty for the whole.
        path: String,
    },
    /// A MemoryRegion, by name.
    Memory(String),
}

/// One node, or those that have the labels.
#[derive(Clone, Debug, PartialEq)]
pub enum Nodes {
    /// By its name.
    Named(String),
    /// By labels: the selector, and how it was written.
    Selected(LabelSelector, String),
}

/// An end that only `-l` takes: there is always a selector.
#[derive(Clone, Debug, PartialEq)]
pub struct SelectedEnd(pub End);

impl FromStr for End {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text, false)
    }
}

impl FromStr for SelectedEnd {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text, true).map(SelectedEnd)
    }
}

fn parse(text: &str, selects: bool) -> Result<End, String> {
    if let Some(name) = text.strip_prefix("memory/").filter(|_| !selects) {
        if name.contains(':') {
            return Err(format!(
                "{text:?}: memory has no path; write memory/REGION, for example memory/kv-buffer"
            ));
        }
        return Ok(End::Memory(label("the MemoryRegion", name)?));
    }
    let Some((on, place)) = text.split_once(':') else {
        let on = if text.is_empty() { if selects { "role=decode" } else { "gpu-a" } } else { text };
        return Err(format!(
            "{text:?} names no volume; write {on}:VOLUME/PATH, for example {on}:models/llama, or memory/REGION"
        ));
    };
    let on = match on.strip_prefix("node/") {
        Some(name) if !selects => Nodes::Named(node(name)?),
        _ if selects || on.contains('=') => Nodes::Selected(selector::parse(on)?, on.to_owned()),
        _ => Nodes::Named(node(on)?),
    };
    if place.starts_with('/') {
        return Err(format!(
            "{place:?} is a path of the node's own; write VOLUME/PATH with a volume that the node publishes, for \
             example models{place} (`kubectl transfer doctor` lists volumes)"
        ));
    }
    let (volume, path) = place.split_once('/').unwrap_or((place, ""));
    Ok(End::Volume { on, volume: label("the volume", volume)?, path: checked_path(path)? })
}

fn node(name: &str) -> Result<String, String> {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    if name.is_empty() || name.len() > MAX_NODE || !name.bytes().all(good) {
        return Err(format!(
            "{name:?} is no name of a node; write one of `kubectl get nodes`, or a selector such as role=decode"
        ));
    }
    Ok(name.into())
}

fn label(what: &str, name: &str) -> Result<String, String> {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let edges = !name.starts_with('-') && !name.ends_with('-');
    if name.is_empty() || name.len() > MAX_LABEL || !edges || !name.bytes().all(good) {
        return Err(format!(
            "{what} {name:?}: a name has 1 to {MAX_LABEL} lower-case letters, digits and dashes; write for example models"
        ));
    }
    Ok(name.into())
}

/// The rules of the API server, said before it is asked.
fn checked_path(path: &str) -> Result<String, String> {
    let path = path.trim_end_matches('/');
    if path.starts_with('/') {
        return Err(format!(
            "the path {path:?} begins with a slash; it is relative to the volume: remove the slash"
        ));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(format!("the path {path:?} has `..` in it and would leave its volume; write it without"));
    }
    if path.chars().any(char::is_control) {
        return Err(format!("the path {path:?} has control characters in it; rename the file"));
    }
    if path.chars().count() > MAX_PATH {
        return Err(format!("the path has {} characters; {MAX_PATH} is the most", path.chars().count()));
    }
    Ok(path.into())
}

impl Nodes {
    fn reference(&self) -> NodeRef {
        match self {
            Nodes::Named(name) => NodeRef { name: Some(name.clone()), selector: None },
            Nodes::Selected(selector, _) => NodeRef { name: None, selector: Some(selector.clone()) },
        }
    }
}

impl End {
    /// As the source of a job.
    pub fn source(&self, include: &[String], exclude: &[String]) -> Source {
        match self {
            End::Volume { on, volume, path } => Source {
                node: Some(on.reference()),
                place: Place::Volume(SourceVolume {
                    at: VolumeRef { name: volume.clone(), path: path.clone() },
                    include: include.to_vec(),
                    exclude: exclude.to_vec(),
                }),
            },
            End::Memory(name) => {
                Source { node: None, place: Place::Memory(MemoryRef { name: name.clone() }) }
            }
        }
    }

    /// As a destination of a job, under a name.
    pub fn destination(&self, name: String) -> Destination {
        match self {
            End::Volume { on, volume, path } => Destination {
                name,
                node: Some(on.reference()),
                place: Place::Volume(VolumeRef { name: volume.clone(), path: path.clone() }),
            },
            End::Memory(region) => {
                Destination { name, node: None, place: Place::Memory(MemoryRef { name: region.clone() }) }
            }
        }
    }

    /// What the data are called: the last part of the path, else the volume or the region.
    pub fn content(&self) -> &str {
        match self {
            End::Volume { volume, path, .. } => {
                path.rsplit('/').next().filter(|last| !last.is_empty()).unwrap_or(volume)
            }
            End::Memory(name) => name,
        }
    }

    /// Where it is, in a word: the node, the label's value, or the region.
    pub fn place(&self) -> &str {
        match self {
            End::Volume { on: Nodes::Named(name), .. } | End::Memory(name) => name,
            End::Volume { on: Nodes::Selected(_, written), .. } => {
                let first = written.split(',').next().unwrap_or(written);
                first.rsplit('=').next().filter(|value| !value.is_empty()).unwrap_or(first)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn source(text: &str) -> Value {
        json!(text.parse::<End>().unwrap_or_else(|error| panic!("{text}: {error}")).source(&[], &[]))
    }

    #[test]
    fn reads_what_a_person_guesses() {
        let volume = |node: Value, name: &str, path: Option<&str>| {
            let mut volume = json!({"name": name});
            if let Some(path) = path {
                volume["path"] = json!(path);
            }
            json!({"node": node, "volume": volume})
        };
        let a = || json!({"name": "gpu-a"});
        let labels = |map: Value| json!({"selector": {"matchLabels": map}});
        let cases = [
            ("gpu-a:models/llama", volume(a(), "models", Some("llama"))),
            ("node/gpu-a:models/llama", volume(a(), "models", Some("llama"))),
            ("gpu-a:models", volume(a(), "models", None)),
            ("gpu-a:models/", volume(a(), "models", None)),
            ("gpu-a:models/a/b/", volume(a(), "models", Some("a/b"))),
            ("gpu-a:models/12:30 log=x", volume(a(), "models", Some("12:30 log=x"))),
            ("10-0-0-1.ec2.internal:m/x", volume(json!({"name": "10-0-0-1.ec2.internal"}), "m", Some("x"))),
            ("role=decode:models/x", volume(labels(json!({"role": "decode"})), "models", Some("x"))),
            ("a.io/b=c,d==e:m", volume(labels(json!({"a.io/b": "c", "d": "e"})), "m", None)),
            ("memory/kv-buffer", json!({"memory": {"name": "kv-buffer"}})),
        ];
        for (text, expected) in cases {
            assert_eq!(source(text), expected, "{text}");
        }
        let SelectedEnd(end) = "gpu:models/x".parse().unwrap();
        let exists = json!({"selector": {"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}});
        assert_eq!(json!(end.source(&[], &[])), volume(exists, "models", Some("x")), "-l always selects");
    }

    #[test]
    fn an_error_shows_the_value_and_what_to_write() {
        let cases = [
            ("", "names no volume", "gpu-a:models/llama"),
            ("gpu-a", "\"gpu-a\" names no volume", "gpu-a:VOLUME/PATH"),
            ("gpu-a:", "the volume \"\"", "models"),
            ("gpu-a:/var/lib/models", "a path of the node's own", "models/var/lib/models"),
            ("gpu-a:models//x", "begins with a slash", "remove the slash"),
            ("gpu-a:models/a/../b", "`..`", "write it without"),
            ("gpu-a:models/a\nb", "control characters", "rename"),
            ("gpu-a:Models/x", "the volume \"Models\"", "lower-case"),
            ("gpu_a:models/x", "\"gpu_a\" is no name of a node", "kubectl get nodes"),
            ("pod/x:models/x", "\"pod/x\" is no name of a node", "kubectl get nodes"),
            ("=decode:models", "\"=decode\"", "role=decode"),
            ("memory/", "the MemoryRegion \"\"", "1 to 63"),
            ("memory/kv:x", "memory has no path", "memory/kv-buffer"),
        ];
        for (text, wrong, remedy) in cases {
            let error = text.parse::<End>().unwrap_err();
            assert!(error.contains(wrong) && error.contains(remedy), "{text:?}: {error}");
        }
        let long = format!("a:m/{}", "x".repeat(1025));
        assert!(long.parse::<End>().unwrap_err().contains("1025 characters; 1024 is the most"));
        let error = "memory/kv-buffer".parse::<SelectedEnd>().unwrap_err();
        assert!(error.contains("names no volume"), "{error}");
    }

    #[test]
    fn content_and_place_in_a_word() {
        let words = |text: &str| {
            let end: End = text.parse().unwrap();
            (end.content().to_owned(), end.place().to_owned())
        };
        assert_eq!(words("gpu-a:models/a/llama"), ("llama".into(), "gpu-a".into()));
        assert_eq!(words("role=decode,x!=y:models"), ("models".into(), "decode".into()));
        assert_eq!(words("memory/kv"), ("kv".into(), "kv".into()));
    }
}
