//! A Kubernetes quantity of bytes, as users write it (`1Mi`, `512Ki`, `1048576`), kept as written and read as bytes.
//! Pure.

use serde::{Deserialize, Deserializer, Serialize};

/// A whole number of bytes written as a Kubernetes quantity: digits with an optional fraction and one of the suffixes
/// `Ki Mi Gi Ti Pi` (powers of 1024), `k M G T P` (powers of 1000) or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Quantity(String);

/// Why a text is no quantity of bytes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{value:?} is no quantity of whole bytes; write for example 1Mi, 512Ki or 1048576")]
pub struct QuantityError {
    value: String,
}

const SUFFIXES: [(&str, u128); 10] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
];

impl Quantity {
    /// The quantity of so many bytes, written with the largest binary suffix that divides it.
    pub fn from_bytes(bytes: u64) -> Self {
        let suffix =
            SUFFIXES[..5].iter().rev().find(|(_, unit)| bytes > 0 && u128::from(bytes).is_multiple_of(*unit));
        match suffix {
            Some((name, unit)) => Self(format!("{}{name}", u128::from(bytes) / unit)),
            None => Self(bytes.to_string()),
        }
    }

    /// The number of bytes; an error when the text is no quantity, is negative, or is no whole number of bytes.
    pub fn bytes(&self) -> Result<u64, QuantityError> {
        parse(&self.0).ok_or_else(|| QuantityError { value: self.0.chars().take(32).collect() })
    }
}

fn parse(text: &str) -> Option<u64> {
    let (number, unit) = SUFFIXES
        .iter()
        .find_map(|(suffix, unit)| text.strip_suffix(suffix).map(|number| (number, *unit)))
        .unwrap_or((text, 1));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || whole.len() > 20 || fraction.len() > 12 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let scale = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let scaled: u128 = format!("{whole}{fraction}").parse().ok()?;
    let bytes = scaled.checked_mul(unit)?;
    if !bytes.is_multiple_of(scale) {
        return None;
    }
    u64::try_from(bytes / scale).ok()
}

impl std::fmt::Display for Quantity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Kubernetes accepts a plain number for a quantity, so both forms are read.
impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(i64),
            Text(String),
        }
        Ok(Self(match Written::deserialize(deserializer)? {
            Written::Number(number) => number.to_string(),
            Written::Text(text) => text,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_kubernetes_reads_as_whole_bytes() {
        let cases = [
            ("0", Some(0)),
            ("1048576", Some(1 << 20)),
            ("1Mi", Some(1 << 20)),
            ("1.5Ki", Some(1536)),
            ("64k", Some(64_000)),
            ("0.1", None),
            ("-1", None),
            ("5 apples", None),
            ("", None),
            ("Mi", None),
            ("99999999999999999999Pi", None),
        ];
        for (text, bytes) in cases {
            assert_eq!(Quantity(text.into()).bytes().ok(), bytes, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_we_write_reads_back(bytes: u64) {
            proptest::prop_assert_eq!(Quantity::from_bytes(bytes).bytes(), Ok(bytes));
        }
    }
}
