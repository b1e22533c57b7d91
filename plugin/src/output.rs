//! Objects as data on standard output: what the API server said, whole, but for `managedFields`, which kubectl leaves out too.

use std::io::Write;

use serde::Serialize;
use serde_json::{Value, json};

use crate::{cli::Output, failure::Failure};

/// How data are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Yaml,
}

/// One value.
pub(crate) fn data(value: &impl Serialize, format: Format, out: &mut dyn Write) -> Result<(), Failure> {
    let text = match format {
        Format::Json => {
            serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(|error| error.to_string())
        }
        Format::Yaml => serde_yaml::to_string(value).map_err(|error| error.to_string()),
    };
    let text = text.map_err(|error| Failure::other(format!("the object cannot be written: {error}")))?;
    Ok(out.write_all(text.as_bytes())?)
}

/// One object, in the way that was asked for.
pub(crate) fn object(object: &Value, output: Output, out: &mut dyn Write) -> Result<(), Failure> {
    match output {
        Output::Json => data(object, Format::Json, out),
        Output::Yaml => data(object, Format::Yaml, out),
        Output::Name => Ok(writeln!(out, "{}", name(object))?),
    }
}

/// Several as one object, as kubectl has them.
pub(crate) fn list(items: Vec<Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

/// `transferjob.nixl-transfer.io/llama`.
pub(crate) fn name(object: &Value) -> String {
    format!("transferjob.nixl-transfer.io/{}", object["metadata"]["name"].as_str().unwrap_or_default())
}
