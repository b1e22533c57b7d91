//! The secrets of a cluster, and whether a text holds one. Pure. What it says names a secret by what it is of, and shows no
//! part of it.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

/// A secret is known again by pieces of this length, so an excerpt of twice that is never missed.
const PIECE: usize = 32;
/// What has the form of a secret is one from this length on; tests forge shorter ones.
const LEAST: usize = 16;

/// How secrets begin that nobody has told us about.
const FORMS: [(&str, &str); 5] = [
    ("sealed metadata", "sealed:"),
    ("metadata of NIXL", "b64:"),
    ("metadata of NIXL", "nixl_metadata"),
    ("a notification key", "notification_key"),
    // Of JSON that begins with `alg`.
    ("a service account's token", "eyJhbGciOi"),
];

/// Where metadata may stand: in the statuses of these kinds, in these fields, and nowhere else.
const KINDS: [&str; 2] =
    ["/registry/nixl-transfer.io/transfertasks/", "/registry/nixl-transfer.io/memoryregions/"];
const FIELDS: [&str; 2] = ["agentMetadata", "rdmaMetadata"];

/// What must not be told.
#[derive(Default)]
pub struct Secrets {
    /// What each piece is of.
    pieces: HashMap<String, String>,
    /// All metadata that ever stood in a status.
    pub metadata: BTreeSet<String>,
}

impl Secrets {
    /// A secret, and whose it is.
    pub fn add(&mut self, of: &str, secret: &str) {
        for word in words(secret).map(|(_, word)| word) {
            let mut rest = word;
            while let Some((piece, behind)) = rest.split_at_checked(PIECE) {
                self.pieces.entry(piece.to_owned()).or_insert_with(|| of.to_owned());
                rest = behind;
            }
        }
    }

    /// The metadata in an object as it is stored.
    pub fn add_of_object(&mut self, key: &str, value: &[u8]) {
        if let Some(mut status) = status(key, value) {
            for metadata in take_metadata(&mut status) {
                self.add(&format!("metadata of {key}"), &metadata);
                self.metadata.insert(metadata);
            }
        }
    }

    /// Secrets in an object as it is stored, but where they may stand.
    pub fn in_object(&self, key: &str, value: &[u8]) -> BTreeSet<String> {
        let text = match (status(key, value), serde_json::from_slice::<Value>(value)) {
            (Some(mut status), Ok(mut object)) => {
                take_metadata(&mut status);
                object["status"] = status;
                object.to_string()
            }
            _ => String::from_utf8_lossy(value).into_owned(),
        };
        self.in_text(&text).into_iter().map(|(_, what)| what).collect()
    }

    /// Secrets in a text, each once, with its line.
    pub fn in_text(&self, text: &str) -> Vec<(usize, String)> {
        let mut found: Vec<(usize, &str)> = Vec::new();
        let mut add = |at, what| {
            if !found.iter().any(|(_, it)| *it == what) {
                found.push((at, what));
            }
        };
        for (start, word) in words(text) {
            for at in 0..(word.len() + 1).saturating_sub(PIECE) {
                if let Some(what) = self.pieces.get(&word[at..at + PIECE]) {
                    add(start + at, what.as_str());
                }
            }
        }
        for (what, form) in FORMS {
            let begun = text.match_indices(form).map(|(at, _)| (at, &text[at + form.len()..]));
            let whole = begun.filter(|(_, rest)| {
                // `name: "value"`, in JSON, in JSON in JSON, or as Rust shows it.
                let rest = rest.trim_start_matches(['\\', '"', ':', '=', ' ']);
                rest.bytes().take_while(is_of_word).count() >= LEAST
            });
            whole.take(1).for_each(|(at, _)| add(at, what));
        }
        let line = |at: usize| 1 + text[..at].matches('\n').count();
        found.into_iter().map(|(at, what)| (line(at), what.to_owned())).collect()
    }
}

/// The status of an object of [`KINDS`].
fn status(key: &str, value: &[u8]) -> Option<Value> {
    let of_kind = KINDS.iter().any(|kind| key.starts_with(kind));
    let mut object: Value = of_kind.then(|| serde_json::from_slice(value).ok())??;
    object.get_mut("status").map(Value::take)
}

/// Takes the metadata out, wherever in the status it stands.
fn take_metadata(status: &mut Value) -> Vec<String> {
    let Value::Object(fields) = status else { return Vec::new() };
    let mut taken = Vec::new();
    for (name, value) in fields {
        match value {
            Value::String(text) if FIELDS.contains(&name.as_str()) => taken.push(std::mem::take(text)),
            inner => taken.extend(take_metadata(inner)),
        }
    }
    taken
}

/// Runs of the characters of base64, base64url and hexadecimal that are long enough for a piece, and where they begin.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    let bytes = text.as_bytes();
    std::iter::from_fn(move || {
        loop {
            let start = at + bytes[at..].iter().position(is_of_word)?;
            at = start + bytes[start..].iter().take_while(|byte| is_of_word(byte)).count();
            if at - start >= PIECE {
                return Some((start, &text[start..at]));
            }
        }
    })
}

fn is_of_word(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/=-_".contains(byte)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TASK: &str = "/registry/nixl-transfer.io/transfertasks/default/t";

    /// No two pieces of it are alike.
    fn secret(of: u32) -> String {
        (0..40).map(|at| format!("{:08x}", (at + of * 1000 + 1) * 0x0012_d687)).collect()
    }

    fn found(secrets: &Secrets, text: &str) -> Vec<String> {
        secrets.in_text(text).into_iter().map(|(line, what)| format!("{line}: {what}")).collect()
    }

    #[test]
    fn any_long_excerpt_of_a_secret_is_found_and_a_look_alike_is_not() {
        let mut secrets = Secrets::default();
        let (ours, other) = (secret(1), secret(2));
        secrets.add("token of x", &ours);
        for start in 0..40 {
            let excerpt = &ours[start..start + 2 * PIECE];
            assert_eq!(found(&secrets, &format!("one\ntwo a={excerpt};")), ["2: token of x"], "{start}");
        }
        assert_eq!(found(&secrets, &format!("Bearer {other} {}", &ours[..20])), [] as [&str; 0]);
    }

    #[test]
    fn what_has_the_form_of_a_secret_is_one_and_words_about_it_are_not() {
        let secrets = Secrets::default();
        let value = "eJzAbCdEfGhIjKlMnOpQrStUvWxYz0123456789+/=";
        for (text, what) in [
            (format!("wrote sealed:{value}"), "1: sealed metadata"),
            (format!(r#"{{"message":"{{\"notification_key\":\"{value}\"}}"}}"#), "1: a notification key"),
            (format!(r#"Metadata {{ notification_key: "{value}" }}"#), "1: a notification key"),
            (format!(r#""nixl_metadata": "{value}""#), "1: metadata of NIXL"),
            (format!("\n\nb64:{value}"), "3: metadata of NIXL"),
            (
                "token eyJhbGciOiJSUzI1NiIsImtpZCI6IkFCQyJ9.e30.c2ln".to_owned(),
                "1: a service account's token",
            ),
        ] {
            assert_eq!(found(&secrets, &text), [what], "{text}");
        }
        for text in [
            "nixl_metadata is not base64",
            "notification_key has 300 bytes; 1 to 200 are possible",
            "the metadata is not sealed: its agent has a key",
            "b64:eJw=",
            "sealed:AAAA",
            "/a/path/that-is/quite-long/in/nixl-transfer-tests/cluster-0123456789ab/nodes/a",
        ] {
            assert_eq!(found(&secrets, text), [] as [&str; 0], "{text}");
        }
    }

    #[test]
    fn metadata_may_stand_in_its_field_and_nowhere_else() {
        let (ours, mut secrets) = (secret(1), Secrets::default());
        let task =
            json!({"kind": "TransferTask", "status": {"target": {"rdmaMetadata": format!("sealed:{ours}")}}});
        secrets.add_of_object(TASK, task.to_string().as_bytes());
        assert_eq!(secrets.metadata.len(), 1);
        assert!(secrets.in_object(TASK, task.to_string().as_bytes()).is_empty());

        let mut tells = task.clone();
        tells["status"]["target"]["message"] = json!(format!("cannot read {ours}"));
        let whose = BTreeSet::from([format!("metadata of {TASK}")]);
        assert_eq!(secrets.in_object(TASK, tells.to_string().as_bytes()), whose);
        let elsewhere = "/registry/nixl-transfer.io/transferjobs/default/j";
        assert!(secrets.in_object(elsewhere, task.to_string().as_bytes()).is_superset(&whose));
        // As Kubernetes stores what is its own.
        let event = [b"k8s\0\x0a\xff", ours.as_bytes(), b"\x12"].concat();
        assert_eq!(secrets.in_object("/registry/events/default/e", &event), whose);
    }
}
