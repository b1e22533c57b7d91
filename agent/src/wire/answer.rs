//! What a target says of the files that the manifest announces: records in the stream's answers, in the manifest's order.
//! The reading end trusts nothing. Pure.
//!
//! Little-endian. 1 settled: below u32, every file before that place was spoken of, and is to be sent whole if no record
//! named it · 2 a prefix is here: index u32, length u64, digest · 3 a whole file is here: index u32, digest · 4 a sign of
//! work, nothing more. A digest is its length u8 and its bytes.

use std::collections::BTreeMap;

use super::MAX_DIGEST;
use super::decode::{Cursor, bounds};
use crate::wire::WireError;

const SETTLED: u8 = 1;
const PREFIX: u8 = 2;
const WHOLE: u8 = 3;
const SIGN: u8 = 4;
/// The text that says nothing but that this end is at work.
pub const SIGN_OF_WORK: &[u8] = &[SIGN];
/// The longest record: kind, index, length, digest with its length.
const LONGEST: usize = 1 + 4 + 8 + 1 + MAX_DIGEST;
const SETTLED_LENGTH: usize = 5;

/// What a target has of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Has {
    /// Nothing that is of use.
    #[default]
    Nothing,
    /// Its first bytes.
    Prefix {
        /// How many, at least one.
        length: u64,
        /// Their digest.
        digest: Vec<u8>,
    },
    /// A file of the same size.
    Whole {
        /// The digest of its content.
        digest: Vec<u8>,
    },
}

/// Puts records into texts of bounded length.
#[derive(Debug)]
pub struct AnswerWriter {
    text: Vec<u8>,
    longest: usize,
}

impl AnswerWriter {
    /// Texts of at most `longest` bytes.
    pub fn new(longest: usize) -> Self {
        Self { text: Vec::new(), longest }
    }

    /// Adds what is said of a file. Gives a full text that must go out first.
    pub fn add(&mut self, index: u32, has: &Has) -> Option<Vec<u8>> {
        let (kind, length, digest) = match has {
            Has::Nothing => return None,
            Has::Prefix { length, digest } => (PREFIX, Some(*length), digest),
            Has::Whole { digest } => (WHOLE, None, digest),
        };
        let full = self.text.len() + LONGEST + SETTLED_LENGTH > self.longest;
        let before = full.then(|| std::mem::take(&mut self.text));
        self.text.push(kind);
        self.text.extend_from_slice(&index.to_le_bytes());
        if let Some(length) = length {
            self.text.extend_from_slice(&length.to_le_bytes());
        }
        // Digests have at most `MAX_DIGEST` bytes.
        self.text.push(digest.len() as u8);
        self.text.extend_from_slice(digest);
        before
    }

    /// Every file below this place was spoken of: gives the text with all that is not out yet.
    pub fn settle(&mut self, below: u32) -> Vec<u8> {
        self.text.push(SETTLED);
        self.text.extend_from_slice(&below.to_le_bytes());
        std::mem::take(&mut self.text)
    }
}

/// What the other end has said so far.
#[derive(Debug, Default)]
pub struct AnswerBook {
    below: u32,
    said: BTreeMap<u32, Has>,
}

impl AnswerBook {
    /// Takes a text.
    ///
    /// # Errors
    /// For what [`AnswerWriter`] does not write: another form, a file that was spoken of before, a digest of another
    /// length than `digest_length`.
    pub fn take(&mut self, text: &[u8], digest_length: usize) -> Result<(), WireError> {
        let mut cursor = Cursor::new(text);
        while !cursor.is_at_end() {
            let at = cursor.at();
            let [kind] = cursor.array()?;
            if kind == SIGN {
                continue;
            }
            let number = u32::from_le_bytes(cursor.array()?);
            if kind == SETTLED {
                if number < self.below || self.said.last_key_value().is_some_and(|(last, _)| *last >= number)
                {
                    return Err(bounds("the place below which all is settled", at));
                }
                self.below = number;
                continue;
            }
            let has = match kind {
                PREFIX => {
                    let length = u64::from_le_bytes(cursor.array()?);
                    if length == 0 || i64::try_from(length).is_err() {
                        return Err(bounds("the length of a prefix", at));
                    }
                    Has::Prefix { length, digest: cursor.digest(at)?.to_vec() }
                }
                WHOLE => Has::Whole { digest: cursor.digest(at)?.to_vec() },
                kind => return Err(WireError::Kind { kind, at }),
            };
            let (Has::Prefix { digest, .. } | Has::Whole { digest }) = &has else { continue };
            let is_next =
                number >= self.below && self.said.last_key_value().is_none_or(|(last, _)| *last < number);
            if !is_next || digest.len() != digest_length {
                return Err(bounds("the place of a file, or the length of its digest", at));
            }
            self.said.insert(number, has);
        }
        Ok(())
    }

    /// What is said of a file, which is then forgotten; `None` when it was not spoken of yet.
    pub fn of(&mut self, index: u32) -> Option<Has> {
        if index >= self.below {
            return None;
        }
        // What stands before it is of files that nobody asked for.
        self.said = self.said.split_off(&index);
        Some(self.said.remove(&index).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: usize = 8;

    fn any_has() -> impl Strategy<Value = Has> {
        let digest = || prop::collection::vec(any::<u8>(), DIGEST);
        prop_oneof![
            3 => Just(Has::Nothing),
            1 => (1..1_u64 << 62, digest()).prop_map(|(length, digest)| Has::Prefix { length, digest }),
            1 => digest().prop_map(|digest| Has::Whole { digest }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_said_is_heard(all in prop::collection::vec(any_has(), 1..200), batch in 1_usize..50) {
            let (mut writer, mut book) = (AnswerWriter::new(100), AnswerBook::default());
            for (number, chunk) in all.chunks(batch).enumerate() {
                let first = (number * batch) as u32;
                let mut texts = Vec::new();
                for (index, has) in (first..).zip(chunk) {
                    texts.extend(writer.add(index, has));
                }
                prop_assert_eq!(book.of(first), None);
                texts.push(writer.settle(first + chunk.len() as u32));
                for text in texts {
                    prop_assert!((1..=100).contains(&text.len()));
                    book.take(&text, DIGEST).unwrap();
                }
            }
            for (index, has) in (0..).zip(all) {
                prop_assert_eq!(book.of(index), Some(has));
            }
        }

        #[test]
        fn any_bytes_are_refused_or_bounded(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0_u8..6) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            let mut book = AnswerBook::default();
            let _ = book.take(&bytes, DIGEST);
            prop_assert!(book.said.len() <= bytes.len());
        }
    }

    #[test]
    fn nothing_is_said_twice_or_out_of_order() {
        let whole = Has::Whole { digest: vec![1; DIGEST] };
        let text = |records: &[(u32, &Has)], below: u32| {
            let mut writer = AnswerWriter::new(4096);
            records.iter().for_each(|(index, has)| assert_eq!(writer.add(*index, has), None));
            writer.settle(below)
        };
        let refused = |texts: &[Vec<u8>]| {
            let mut book = AnswerBook::default();
            texts.iter().any(|text| book.take(text, DIGEST).is_err())
        };
        let sign = SIGN_OF_WORK.to_vec();
        assert!(!refused(&[
            text(&[(3, &whole), (5, &whole)], 6),
            sign,
            text(&[(6, &whole)], 7),
            text(&[], 7)
        ]));
        assert!(refused(&[text(&[(3, &whole)], 4), text(&[(3, &whole)], 5)]), "a file twice");
        assert!(refused(&[text(&[(5, &whole), (3, &whole)], 6)]), "out of order");
        assert!(refused(&[text(&[(5, &whole)], 5)]), "settled below what was said");
        assert!(refused(&[text(&[], 5), text(&[], 4)]), "backwards");
        let short = Has::Whole { digest: vec![1; DIGEST - 1] };
        assert!(refused(&[text(&[(3, &short)], 4)]), "another digest");
        let none = Has::Prefix { length: 0, digest: vec![1; DIGEST] };
        assert!(refused(&[text(&[(3, &none)], 4)]), "a prefix of nothing");
    }
}
