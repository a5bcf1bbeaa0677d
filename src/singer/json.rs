//! The output line: JSON appended to one growing buffer.

/// A buffer that JSON text is appended to, whole messages of it at a time.
#[derive(Debug, Default)]
pub struct JsonBuf {
    bytes: Vec<u8>,
    scratch: Vec<u8>,
    replaced: bool,
}

impl JsonBuf {
    /// An empty buffer.
    pub fn new() -> Self {
        JsonBuf::default()
    }

    /// What was written so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many bytes were written so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written since the last [`clear`](Self::clear).
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Forgets what was written; keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Forgets what was written after the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len);
    }

    /// Takes the written bytes, leaving `fresh` (cleared) in their place.
    pub fn replace(&mut self, mut fresh: Vec<u8>) -> Vec<u8> {
        fresh.clear();
        std::mem::replace(&mut self.bytes, fresh)
    }

    /// Appends text that is JSON already.
    pub fn raw(&mut self, json: &[u8]) {
        self.bytes.extend_from_slice(json);
    }

    /// Appends one byte of JSON.
    pub fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    /// Whether a byte that is not UTF-8 was replaced by U+FFFD since this was last asked.
    pub fn take_replaced(&mut self) -> bool {
        std::mem::take(&mut self.replaced)
    }
}
