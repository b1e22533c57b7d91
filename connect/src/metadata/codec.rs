//! The text form of agent metadata: `b64:` and padded base64, or plain hexadecimal, of one zlib stream. Inflating is
//! bounded, so that a small text cannot become much memory. No I/O beyond buffers.

use std::io::{Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::bufread::ZlibDecoder;
use flate2::write::ZlibEncoder;

use super::{MAX_AGENT_METADATA, MetadataError};

const PREFIX: &str = "b64:";
/// Python writes level 6, and only zlib itself at the same level makes the same bytes.
const LEVEL: u32 = 6;
/// zlib stores what it cannot shrink, with 5 bytes per 16 KiB and a few at the ends.
const MAX_DEFLATED: usize = MAX_AGENT_METADATA + MAX_AGENT_METADATA / 1000 + 64;
/// Hexadecimal is the longer of the two forms.
const MAX_TEXT: usize = MAX_DEFLATED * 2 + PREFIX.len();

/// How the zlib bytes become text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// `b64:` and base64, since October 2025.
    #[default]
    Base64,
    /// Lower-case hexadecimal, all that older peers know.
    Hex,
}

/// Makes the text form.
///
/// # Errors
/// When the bytes are more than any peer would take.
pub fn encode_agent_metadata(bytes: &[u8], encoding: Encoding) -> Result<String, MetadataError> {
    if bytes.len() > MAX_AGENT_METADATA {
        return Err(MetadataError::TooLong { length: bytes.len(), limit: MAX_AGENT_METADATA });
    }
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(LEVEL));
    let deflated = encoder.write_all(bytes).and_then(|()| encoder.finish());
    let deflated = deflated.map_err(|error| MetadataError::Zlib(error.to_string()))?;
    Ok(match encoding {
        Encoding::Base64 => format!("{PREFIX}{}", STANDARD.encode(deflated)),
        Encoding::Hex => hex(&deflated),
    })
}

/// Reads either text form and inflates it.
///
/// # Errors
/// When the text is too long, damaged, followed by more, or inflates beyond [`MAX_AGENT_METADATA`].
pub fn decode_agent_metadata(text: &str) -> Result<Vec<u8>, MetadataError> {
    if text.is_empty() {
        return Err(MetadataError::Empty);
    }
    if text.len() > MAX_TEXT {
        return Err(MetadataError::TooLong { length: text.len(), limit: MAX_TEXT });
    }
    let deflated = match text.strip_prefix(PREFIX) {
        Some(encoded) => STANDARD.decode(encoded).map_err(|_| MetadataError::Base64)?,
        None => unhex(text).ok_or(MetadataError::Hex)?,
    };
    inflate(&deflated)
}

fn inflate(deflated: &[u8]) -> Result<Vec<u8>, MetadataError> {
    let mut decoder = ZlibDecoder::new(deflated);
    let mut inflated = Vec::new();
    let limit = MAX_AGENT_METADATA as u64 + 1;
    decoder
        .by_ref()
        .take(limit)
        .read_to_end(&mut inflated)
        .map_err(|error| MetadataError::Zlib(error.to_string()))?;
    if inflated.len() > MAX_AGENT_METADATA {
        return Err(MetadataError::Inflated);
    }
    if !decoder.into_inner().is_empty() {
        return Err(MetadataError::Zlib("bytes follow after its end".to_owned()));
    }
    Ok(inflated)
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bomb_is_refused_at_the_bound() -> Result<(), MetadataError> {
        let bomb = {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
            let zeros = vec![0; 64 * MAX_AGENT_METADATA];
            encoder.write_all(&zeros).and_then(|()| encoder.finish()).unwrap_or_default()
        };
        assert!(bomb.len() < MAX_AGENT_METADATA);
        assert_eq!(inflate(&bomb), Err(MetadataError::Inflated));
        let largest = encode_agent_metadata(&vec![7; MAX_AGENT_METADATA], Encoding::Base64)?;
        assert_eq!(decode_agent_metadata(&largest)?.len(), MAX_AGENT_METADATA);
        Ok(())
    }

    #[test]
    fn damage_is_named() -> Result<(), MetadataError> {
        let good = encode_agent_metadata(b"agent", Encoding::Hex)?;
        assert_eq!(decode_agent_metadata(&good)?, b"agent");
        assert_eq!(decode_agent_metadata(&good.to_uppercase())?, b"agent");
        assert_eq!(decode_agent_metadata(""), Err(MetadataError::Empty));
        assert_eq!(decode_agent_metadata("b64:@@@@"), Err(MetadataError::Base64));
        assert_eq!(decode_agent_metadata("b64:eA"), Err(MetadataError::Base64));
        assert_eq!(decode_agent_metadata("abc"), Err(MetadataError::Hex));
        assert_eq!(decode_agent_metadata("zz"), Err(MetadataError::Hex));
        for damaged in ["00".to_owned(), format!("{good}00"), good[..good.len() - 2].to_owned()] {
            assert!(matches!(decode_agent_metadata(&damaged), Err(MetadataError::Zlib(_))), "{damaged}");
        }
        Ok(())
    }
}
