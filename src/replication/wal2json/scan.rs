//! A JSON scanner for one message. It builds no values: strings and numbers stay where they lie, as [`Span`]s; only a
//! string with escapes is copied, into scratch space that lives as long as the decoder.

use crate::replication::{Cell, Span};

/// How deep values that nobody asked for may nest. wal2json itself never goes beyond an object in an array.
const MAX_DEPTH: u32 = 16;

/// Strings of up to so many bytes are searched in place.
const SHORT: usize = 16;

/// What is wrong with a message, and where.
#[derive(Debug, PartialEq)]
pub(super) struct Malformed {
    pub(super) at: usize,
    pub(super) what: &'static str,
}

/// A place to scan from again.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    at: usize,
    scratch: usize,
}

pub(super) struct Scanner<'p, 's> {
    payload: &'p [u8],
    at: usize,
    scratch: &'s mut Vec<u8>,
}

impl<'p, 's> Scanner<'p, 's> {
    /// Clears `scratch`; the spans of this message are good until the next one is scanned.
    pub(super) fn new(payload: &'p [u8], scratch: &'s mut Vec<u8>) -> Result<Self, Malformed> {
        // Spans count in u32. Unescaping only ever shortens, so what fits here fits the scratch space too.
        if u32::try_from(payload.len()).is_err() {
            return Err(Malformed { at: 0, what: "longer than 4 GiB" });
        }
        scratch.clear();
        Ok(Scanner { payload, at: 0, scratch })
    }

    pub(super) fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { at: self.at, what }
    }

    pub(super) fn text(&self, span: Span) -> &[u8] {
        let from = if span.scratch { self.scratch.as_slice() } else { self.payload };
        &from[span.start as usize..span.end as usize]
    }

    /// Returns how far it is.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Marks how far it is.
    pub(super) fn mark(&self) -> Mark {
        Mark { at: self.at, scratch: self.scratch.len() }
    }

    /// Scans from there again. The spans of what came after it are void.
    pub(super) fn go_back(&mut self, mark: Mark) {
        self.at = mark.at;
        self.scratch.truncate(mark.scratch);
    }

    /// Returns the text between two positions.
    pub(super) fn since(&self, start: usize, end: usize) -> &'p [u8] {
        &self.payload[start..end]
    }

    /// Goes past this text, if it is what comes next.
    pub(super) fn follows(&mut self, text: &[u8]) -> bool {
        let there = self.payload[self.at..].starts_with(text);
        self.at += if there { text.len() } else { 0 };
        there
    }

    /// Scans an object. `member` gets each key and has to consume the value.
    pub(super) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, Span) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.expect(b'{', "an object was expected")?;
        if self.eat(b'}') {
            return Ok(());
        }
        loop {
            let key = self.string()?;
            self.expect(b':', "a colon was expected")?;
            member(self, key)?;
            if !self.eat(b',') {
                return self.expect(b'}', "a comma or the end of the object was expected");
            }
        }
    }

    /// Scans an array. `item` has to consume each item.
    pub(super) fn array(&mut self, mut item: impl FnMut(&mut Self) -> Result<(), Malformed>) -> Result<(), Malformed> {
        let mut more = self.begin_array()?;
        while more {
            item(self)?;
            more = self.next_item()?;
        }
        Ok(())
    }

    /// Goes into an array; says whether it has an item.
    pub(super) fn begin_array(&mut self) -> Result<bool, Malformed> {
        self.expect(b'[', "an array was expected")?;
        Ok(!self.eat(b']'))
    }

    /// Goes on after an item; says whether another one follows.
    pub(super) fn next_item(&mut self) -> Result<bool, Malformed> {
        if self.eat(b',') {
            return Ok(true);
        }
        self.expect(b']', "a comma or the end of the array was expected").map(|()| false)
    }

    /// Scans a string, number, boolean or null, as PostgreSQL's text of it: booleans are `t` and `f`.
    pub(super) fn scalar(&mut self) -> Result<Cell, Malformed> {
        match self.peek() {
            Some(b'"') => self.string().map(Cell::Text),
            Some(b'-' | b'0'..=b'9') => self.number().map(Cell::Text),
            Some(b'n') => self.literal(b"null").map(|_| Cell::Null),
            Some(b't') => self.literal(b"true").map(Cell::Text),
            Some(b'f') => self.literal(b"false").map(Cell::Text),
            _ => Err(self.malformed("a string, a number, a boolean or null was expected")),
        }
    }

    /// Scans a string, and returns it without its quotes, in the payload or unescaped in the scratch space. Any byte may stand in it: the
    /// payload of a SQL_ASCII database need not be UTF-8.
    pub(super) fn string(&mut self) -> Result<Span, Malformed> {
        self.expect(b'"', "a string was expected")?;
        let start = self.at;
        if self.string_end()? == b'"' {
            return Ok(span(false, start, self.at - 1));
        }
        let scratch_start = self.scratch.len();
        let mut piece = start;
        loop {
            self.scratch.extend_from_slice(&self.payload[piece..self.at - 1]);
            self.escape()?;
            piece = self.at;
            if self.string_end()? == b'"' {
                self.scratch.extend_from_slice(&self.payload[piece..self.at - 1]);
                return Ok(span(true, scratch_start, self.scratch.len()));
            }
        }
    }

    /// Scans any value, unread.
    pub(super) fn skip(&mut self) -> Result<(), Malformed> {
        self.skip_nested(MAX_DEPTH)
    }

    /// Scans the end of the message.
    pub(super) fn end(&mut self) -> Result<(), Malformed> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.malformed("text after its end")),
        }
    }

    fn skip_nested(&mut self, depth: u32) -> Result<(), Malformed> {
        let deeper = |scanner: &mut Self| match depth {
            0 => Err(scanner.malformed("nested too deep")),
            depth => scanner.skip_nested(depth - 1),
        };
        match self.peek() {
            Some(b'{') => self.object(|scanner, _| deeper(scanner)),
            Some(b'[') => self.array(deeper),
            _ => self.scalar().map(drop),
        }
    }

    /// Scans white space, and returns the byte behind it.
    fn peek(&mut self) -> Option<u8> {
        while let Some(&byte) = self.payload.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), Malformed> {
        if self.eat(byte) { Ok(()) } else { Err(self.malformed(what)) }
    }

    /// Scans a word; its span is the first letter, which is what PostgreSQL prints for booleans.
    fn literal(&mut self, word: &[u8]) -> Result<Span, Malformed> {
        if !self.payload[self.at..].starts_with(word) {
            return Err(self.malformed("unknown word"));
        }
        let start = self.at;
        self.at += word.len();
        Ok(span(false, start, start + 1))
    }

    fn number(&mut self) -> Result<Span, Malformed> {
        let start = self.at;
        self.at += usize::from(self.payload[start] == b'-');
        self.digits()?;
        if self.payload.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.payload.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.payload.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(span(false, start, self.at))
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        let rest = &self.payload[self.at..];
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 {
            return Err(self.malformed("a digit was expected"));
        }
        self.at += count;
        Ok(())
    }

    /// Goes past the next quote or backslash and says which it was.
    #[inline]
    fn string_end(&mut self) -> Result<u8, Malformed> {
        let rest = &self.payload[self.at..];
        let near = (0..SHORT).step_by(8).find_map(|from| Some(from + end_in(*rest.get(from..)?.first_chunk()?)?));
        // Most are too short for a search that has to be called.
        let len = near
            .or_else(|| memchr::memchr2(b'"', b'\\', rest))
            .ok_or_else(|| self.malformed("a string without an end"))?;
        self.at += len + 1;
        Ok(self.payload[self.at - 1])
    }

    /// Unescapes what follows a backslash into the scratch space.
    fn escape(&mut self) -> Result<(), Malformed> {
        let byte = match self.payload.get(self.at) {
            Some(&byte @ (b'"' | b'\\' | b'/')) => byte,
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => return self.unicode_escape(),
            _ => return Err(self.malformed("unknown escape in a string")),
        };
        self.at += 1;
        self.scratch.push(byte);
        Ok(())
    }

    /// Unescapes `uXXXX`, or two of them that make a surrogate pair. A surrogate on its own becomes U+FFFD.
    fn unicode_escape(&mut self) -> Result<(), Malformed> {
        let mut code = self.code_unit(self.at + 1)?;
        self.at += 5;
        if (0xd800..0xdc00).contains(&code) && self.payload[self.at..].starts_with(b"\\u") {
            let low = self.code_unit(self.at + 2)?;
            if (0xdc00..0xe000).contains(&low) {
                code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                self.at += 6;
            }
        }
        let char = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        self.scratch.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    fn code_unit(&self, at: usize) -> Result<u32, Malformed> {
        let hex = self.payload.get(at..at + 4).unwrap_or_default();
        hex.iter()
            .try_fold(0, |code, &byte| Some(code << 4 | char::from(byte).to_digit(16)?))
            .filter(|_| !hex.is_empty())
            .ok_or_else(|| self.malformed("four hexadecimal digits were expected"))
    }
}

/// Returns the place of the first quote or backslash among eight bytes.
#[inline]
fn end_in(bytes: [u8; 8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    let word = u64::from_le_bytes(bytes);
    // The high bit of each byte that is zero, and perhaps of some behind the first of these.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & (ONES << 7);
    let found = zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * u64::from(b'\\')));
    (found != 0).then(|| found.trailing_zeros() as usize / 8)
}

/// Makes a span; both ends are within a payload that was checked, or within its unescaped copy.
pub(super) fn span(scratch: bool, start: usize, end: usize) -> Span {
    Span { scratch, start: start as u32, end: end as u32 }
}
