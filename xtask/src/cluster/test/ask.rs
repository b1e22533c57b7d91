//! Questions through kubectl, each with a deadline.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use devcluster::Kubectl;
use serde_json::{Value, json};

use crate::{exec, interrupt};

/// For what a cluster does in seconds, on a machine that is busy.
pub const SOON: Duration = Duration::from_secs(60);

/// Objects as JSON.
pub fn get(kubectl: &Kubectl, arguments: &[&str]) -> Result<Value> {
    let text = kubectl.run(&[&["get", "--output=json"], arguments].concat())?;
    serde_json::from_str(&text).context("kubectl get wrote no JSON")
}

/// Applies objects, as a user does.
pub fn apply(kubectl: &Kubectl, objects: &[Value]) -> Result<()> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    kubectl.run_with_input(&["apply", "--filename=-"], Some(&list.to_string())).map(drop)
}

/// What kubectl itself would wait for without an end.
pub fn long(kubectl: &Kubectl, arguments: &[&str]) -> Result<String> {
    let mut said = String::new();
    exec::watched_within(kubectl.command().args(arguments), SOON, |line| {
        said.extend(line.map(|line| format!("{line}\n")));
    })?;
    Ok(said)
}

pub fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().map(Vec::as_slice).unwrap_or_default().iter()
}

pub fn is_true(object: &Value, condition: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().any(|is| is["type"] == condition && is["status"] == "True")
}

/// Asks until there is an answer, and no error.
pub fn until<T>(within: Duration, ask: impl Fn() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        let error = match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        interrupt::check()?;
        if Instant::now() >= deadline {
            return Err(error).context(format!("not within {} s", within.as_secs()));
        }
        // Polled: what is asked for stands in several objects.
        thread::sleep(Duration::from_millis(500));
    }
}
