//! The output line: JSON appended to one growing buffer.

use std::io::Write;

/// A buffer that JSON text is appended to, whole messages of it at a time.
#[derive(Debug, Default)]
pub struct JsonBuf {
    bytes: Vec<u8>,
    scratch: Vec<u8>,
    replaced: bool,
}

impl JsonBuf {
    /// Returns an empty buffer.
    pub fn new() -> Self {
        JsonBuf::default()
    }

    /// Returns what was written so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns how many bytes were written so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written since the last [`clear`](Self::clear).
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Discards what was written; keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Discards what was written after the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len);
    }

    /// Discards the first `len` bytes; memory of more than `keep` is not kept.
    pub(crate) fn remove_front(&mut self, len: usize, keep: usize) {
        self.bytes.drain(..len);
        self.bytes.shrink_to(keep);
    }

    /// Takes the written bytes, leaving `fresh` (cleared) in their place.
    pub fn replace(&mut self, mut fresh: Vec<u8>) -> Vec<u8> {
        fresh.clear();
        std::mem::replace(&mut self.bytes, fresh)
    }

    /// Appends text that is JSON already, by taking over its memory if that serves. `json` is left with memory to be
    /// reused.
    pub fn append(&mut self, json: &mut Vec<u8>) {
        if self.bytes.is_empty() {
            std::mem::swap(&mut self.bytes, json);
        } else {
            self.bytes.append(json);
        }
        json.clear();
    }

    /// Appends text that is JSON already.
    pub fn raw(&mut self, json: &[u8]) {
        self.bytes.extend_from_slice(json);
    }

    /// Appends formatted text that is JSON.
    pub fn display(&mut self, json: std::fmt::Arguments<'_>) {
        // Writing to a Vec does not fail.
        let _ = self.bytes.write_fmt(json);
    }

    /// Appends one byte of JSON.
    pub fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    /// Appends text as a JSON string: UTF-8 as it is, escapes only where JSON demands them, and U+FFFD for bytes that are
    /// not UTF-8 (servers with SQL_ASCII databases don't check what they store).
    pub fn string(&mut self, text: &[u8]) {
        self.bytes.reserve(text.len() + 2);
        self.bytes.push(b'"');
        let plain = plain_prefix(text, HIGH_BITS);
        self.bytes.extend_from_slice(&text[..plain]);
        self.string_rest(&text[plain..]);
        self.bytes.push(b'"');
    }

    /// Appends what follows a string's leading printable ASCII; most values have nothing else.
    fn string_rest(&mut self, text: &[u8]) {
        if text.is_empty() {
            return;
        }
        if std::str::from_utf8(text).is_ok() {
            escape(&mut self.bytes, text);
            return;
        }
        self.replaced = true;
        for chunk in text.utf8_chunks() {
            escape(&mut self.bytes, chunk.valid().as_bytes());
            if !chunk.invalid().is_empty() {
                self.bytes.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
    }

    /// Lends the buffer's spare memory; empty, and to be given back with [`return_scratch`](Self::return_scratch).
    pub(crate) fn take_scratch(&mut self) -> Vec<u8> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        scratch
    }

    /// Takes back what [`take_scratch`](Self::take_scratch) lent.
    pub(crate) fn return_scratch(&mut self, scratch: Vec<u8>) {
        self.scratch = scratch;
    }

    /// Notes that something other than Unicode text was replaced by U+FFFD.
    pub(crate) fn note_replaced(&mut self) {
        self.replaced = true;
    }

    /// Whether a byte that is not UTF-8 was replaced by U+FFFD since this was last asked.
    pub fn take_replaced(&mut self) -> bool {
        std::mem::take(&mut self.replaced)
    }
}

/// The top bit of each byte of a word: set in every byte of a character outside ASCII.
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;
const LOW_BITS: u64 = 0x0101_0101_0101_0101;

/// Returns how many bytes at the start need no escape; with `stop_at` = [`HIGH_BITS`] only ASCII counts, with 0 any
/// byte.
///
/// Eight bytes at a time: each comparison leaves the top bit set in the bytes that match. A borrow can set it in a byte
/// after a match, never before, so the lowest bit set is exact.
pub(crate) fn plain_prefix(text: &[u8], stop_at: u64) -> usize {
    let (words, rest) = text.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let quote = word ^ (LOW_BITS * b'"' as u64);
        let backslash = word ^ (LOW_BITS * b'\\' as u64);
        let found = (word.wrapping_sub(LOW_BITS * 0x20) & !word
            | quote.wrapping_sub(LOW_BITS) & !quote
            | backslash.wrapping_sub(LOW_BITS) & !backslash)
            & HIGH_BITS
            | word & stop_at;
        if found != 0 {
            return i * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let plain = |byte: &u8| *byte >= 0x20 && *byte != b'"' && *byte != b'\\' && (*byte as u64) & stop_at == 0;
    text.len() - rest.len() + rest.iter().take_while(|byte| plain(byte)).count()
}

/// Appends UTF-8 text, escaped for a JSON string.
fn escape(out: &mut Vec<u8>, mut text: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    loop {
        let plain = plain_prefix(text, 0);
        out.extend_from_slice(&text[..plain]);
        let Some(&byte) = text.get(plain) else { return };
        match byte {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[(byte >> 4) as usize], HEX[(byte & 15) as usize]]);
            }
        }
        text = &text[plain + 1..];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(text: &[u8]) -> (String, bool) {
        let mut out = JsonBuf::new();
        out.string(text);
        let replaced = out.take_replaced();
        (String::from_utf8(out.replace(Vec::new())).unwrap(), replaced)
    }

    #[test]
    fn escapes_only_what_json_must() {
        for (text, json) in [
            ("", r#""""#),
            ("plain text, / and \u{7f} stay", "\"plain text, / and \u{7f} stay\""),
            ("a\"b\\c", r#""a\"b\\c""#),
            ("\n\t\r\u{8}\u{c}", r#""\n\t\r\b\f""#),
            ("\u{0}\u{1}\u{b}\u{1f}", r#""\u0000\u0001\u000b\u001f""#),
            ("日本 😀 \u{2028}", "\"日本 😀 \u{2028}\""),
            ("twelve bytes\"then a quote", r#""twelve bytes\"then a quote""#),
        ] {
            assert_eq!(written(text.as_bytes()), (json.to_owned(), false), "{text:?}");
        }
    }

    #[test]
    fn replaces_what_is_not_utf8() {
        assert_eq!(written(b"caf\xe9\n"), ("\"caf\u{fffd}\\n\"".to_owned(), true));
        assert_eq!(written(b"\xff\xfe"), ("\"\u{fffd}\u{fffd}\"".to_owned(), true));
        assert_eq!(written("é".as_bytes().split_last().unwrap().1), ("\"\u{fffd}\"".to_owned(), true));
    }

    #[test]
    fn every_byte_at_every_place_of_a_word() {
        for byte in 0..=0x7f_u8 {
            for place in 0..17 {
                let mut text = [b'x'; 17];
                text[place] = byte;
                let json = written(&text).0;
                assert_eq!(serde_json::from_str::<String>(&json).unwrap().as_bytes(), text);
                assert_eq!(json.len(), serde_json::to_string(str::from_utf8(&text).unwrap()).unwrap().len());
            }
        }
    }

    proptest! {
        #[test]
        fn reads_back_as_the_same_text(text: String) {
            prop_assert_eq!(serde_json::from_str::<String>(&written(text.as_bytes()).0).unwrap(), text);
        }

        #[test]
        fn any_bytes_make_a_string(text: Vec<u8>) {
            let (json, replaced) = written(&text);
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), String::from_utf8_lossy(&text));
            prop_assert_eq!(replaced, std::str::from_utf8(&text).is_err());
        }
    }
}
