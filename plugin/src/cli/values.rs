//! Values of the command line: each is read, or refused with what to write instead. Pure.

use std::time::Duration;

use jiff::SignedDuration;
use nixl_transfer_crds::Quantity;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// `30s`, `2m`, or a number of seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<u32>().ok().map(|seconds| Duration::from_secs(seconds.into()));
    let parsed = seconds.or_else(|| text.parse::<SignedDuration>().ok()?.try_into().ok());
    match parsed {
        Some(time) if !time.is_zero() => Ok(time),
        Some(_) => Err("without a limit it could wait for ever; write for example 30s or 10m".into()),
        None => Err("no duration; write for example 30s or 10m".into()),
    }
}

/// One of an enumeration, in the words of the API.
pub(super) fn word<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(Value::from(text)).map_err(|error| error.to_string())
}

pub(super) fn quantity(text: &str) -> Result<Quantity, String> {
    let quantity: Quantity = word(text)?;
    quantity.bytes().map_err(|error| error.to_string())?;
    Ok(quantity)
}

/// What other commands print is taken as a name too: `transferjob.nixl-transfer.io/llama`.
pub(super) fn job_name(text: &str) -> Result<String, String> {
    let name = match text.split_once('/') {
        Some(("tj" | "transferjob" | "transferjobs" | "transferjob.nixl-transfer.io", name)) => name,
        Some((kind, _)) => {
            return Err(format!("{kind:?} is no kind of job; write the name of a TransferJob alone"));
        }
        None => text,
    };
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    if name.is_empty() || !name.bytes().all(good) {
        return Err("no name of a TransferJob; `kubectl transfer get` lists them".into());
    }
    Ok(name.into())
}

pub(super) fn trigger(text: &str) -> Result<String, String> {
    const MOST: usize = 256;
    let length = text.chars().count();
    if length <= MOST {
        Ok(text.into())
    } else {
        Err(format!("it has {length} characters; {MOST} is the most"))
    }
}

#[cfg(test)]
mod tests {
    use nixl_transfer_crds::WritePolicy;

    use super::*;

    #[test]
    fn values_are_read_and_refused_with_a_remedy() {
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        for text in ["0", "0s", "-5s", "soon", "", "99999999999999"] {
            assert!(duration(text).unwrap_err().contains("30s"), "{text}");
        }
        assert_eq!(job_name("tj/llama"), Ok("llama".into()));
        assert_eq!(job_name("transferjob.nixl-transfer.io/a.b"), Ok("a.b".into()));
        assert!(job_name("pod/x").unwrap_err().contains("no kind of job"));
        assert!(job_name("Llama").unwrap_err().contains("transfer get"));
        assert!(word::<WritePolicy>("Never").unwrap_err().contains("`FailIfExists`"));
        assert!(quantity("5 apples").unwrap_err().contains("1Mi"));
        assert!(trigger(&"x".repeat(257)).unwrap_err().contains("257"));
    }
}
