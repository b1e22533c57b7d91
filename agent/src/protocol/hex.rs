//! Digests and handles as text of a message: one string, where a list has a number for each byte, for there is one for each file.

use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// Bytes of the longest digest there is, and more; of a CUDA IPC handle.
const MOST: usize = 64;
const DIGITS: &[u8; 16] = b"0123456789abcdef";

pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.extend([byte >> 4, byte & 15].map(|digit| char::from(DIGITS[usize::from(digit)])));
    }
    serializer.serialize_str(&text)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
    decode(&text).ok_or_else(|| D::Error::custom("no digest in hexadecimal digits"))
}

/// The bytes that a text of digits stands for, at most 64; `None` for another text.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() || pairs.len() > MOST {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    pairs.iter().map(|[high, low]| u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()).collect()
}

/// The same where there may be none.
pub(super) mod optional {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    struct Text(#[serde(with = "super")] Vec<u8>);

    pub(in crate::protocol) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => super::serialize(bytes, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(in crate::protocol) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        Ok(Option::<Text>::deserialize(deserializer)?.map(|Text(bytes)| bytes))
    }
}

#[cfg(test)]
mod tests {
    use crate::protocol::{FileToRead, StoredFile};

    #[test]
    fn digests_are_strings_and_nothing_else_is_taken() {
        let stored = StoredFile { index: 7, digest: vec![0, 0x9a, 0xff], identical: false };
        let text = serde_json::to_string(&stored).unwrap();
        assert!(text.contains(r#""009aff""#), "{text}");
        assert_eq!(serde_json::from_str::<StoredFile>(&text).unwrap(), stored);
        for known in [None, Some(vec![]), Some(vec![1, 2])] {
            let file = FileToRead { index: 1, known, memory: false };
            let text = serde_json::to_string(&file).unwrap();
            assert_eq!(serde_json::from_str::<FileToRead>(&text).unwrap(), file, "{text}");
        }
        for wrong in [r#""0""#, r#""0g""#, r#""+1""#, "[1]", &format!("\"{}\"", "00".repeat(65))] {
            let text = format!(r#"{{"index":1,"known":{wrong}}}"#);
            assert!(serde_json::from_str::<FileToRead>(&text).is_err(), "{wrong}");
        }
    }
}
