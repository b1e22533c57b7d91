//! Reads NIXL's record format (`tag, u64 little-endian length, bytes, '|'`) with bounds on everything. Every error
//! carries the byte offset and the field. Allocates nothing. No I/O.

/// Damage in serialized agent metadata.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset}, {field}: {reason}")]
pub struct BlobError {
    /// Where in the metadata, in bytes from its start.
    pub offset: usize,
    /// Which field was being read.
    pub field: &'static str,
    /// What is wrong.
    pub reason: &'static str,
}

/// A cursor over the bytes.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    pub(super) fn error(&self, field: &'static str, reason: &'static str) -> BlobError {
        BlobError { offset: self.offset, field, reason }
    }

    fn take(&mut self, count: usize, field: &'static str) -> Result<&'a [u8], BlobError> {
        let rest = self.bytes.get(self.offset..).unwrap_or_default();
        let Some(taken) = rest.get(..count) else {
            return Err(self.error(field, "ends too early"));
        };
        self.offset += count;
        Ok(taken)
    }

    /// The given bytes and nothing else.
    pub(super) fn literal(&mut self, expected: &[u8], field: &'static str) -> Result<(), BlobError> {
        let offset = self.offset;
        if self.take(expected.len(), field)? == expected {
            return Ok(());
        }
        Err(BlobError { offset, field, reason: "another tag or separator stands here" })
    }

    fn number(&mut self, field: &'static str) -> Result<u64, BlobError> {
        let (number, _) =
            self.take(8, field)?.split_first_chunk().ok_or_else(|| self.error(field, "ends too early"))?;
        Ok(u64::from_le_bytes(*number))
    }

    /// One record with this tag; its value has at most `limit` bytes.
    pub(super) fn record(
        &mut self,
        tag: &[u8],
        field: &'static str,
        limit: usize,
    ) -> Result<&'a [u8], BlobError> {
        self.literal(tag, field)?;
        let offset = self.offset;
        let length = match usize::try_from(self.number(field)?) {
            Ok(length) if length <= limit => length,
            _ => return Err(BlobError { offset, field, reason: "its length is out of bounds" }),
        };
        let value = self.take(length, field)?;
        self.literal(b"|", field)?;
        Ok(value)
    }

    /// A record whose value is exactly `expected`.
    pub(super) fn constant(
        &mut self,
        tag: &[u8],
        expected: &[u8],
        field: &'static str,
    ) -> Result<(), BlobError> {
        let offset = self.offset;
        if self.record(tag, field, expected.len())? == expected {
            return Ok(());
        }
        Err(BlobError { offset, field, reason: "another word stands here" })
    }

    /// A record that holds a u64 of at most `limit`.
    pub(super) fn count(
        &mut self,
        tag: &[u8],
        field: &'static str,
        limit: usize,
    ) -> Result<usize, BlobError> {
        let offset = self.offset;
        let value = self.record(tag, field, 8)?;
        let count =
            <[u8; 8]>::try_from(value).ok().and_then(|bytes| usize::try_from(u64::from_le_bytes(bytes)).ok());
        match count {
            Some(count) if count <= limit => Ok(count),
            _ => Err(BlobError { offset, field, reason: "its count is out of bounds" }),
        }
    }

    /// A record that holds a name: 1 to `limit` bytes of printable text.
    pub(super) fn name(
        &mut self,
        tag: &[u8],
        field: &'static str,
        limit: usize,
    ) -> Result<&'a str, BlobError> {
        let offset = self.offset;
        let value = self.record(tag, field, limit)?;
        match std::str::from_utf8(value) {
            Ok(name) if !name.is_empty() && !name.contains(char::is_control) => Ok(name),
            _ => Err(BlobError { offset, field, reason: "is empty or not printable text" }),
        }
    }

    /// Nothing may follow.
    pub(super) fn end(&self) -> Result<(), BlobError> {
        if self.offset == self.bytes.len() {
            return Ok(());
        }
        Err(self.error("end", "bytes follow after the last section"))
    }
}
