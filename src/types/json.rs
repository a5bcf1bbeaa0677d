//! `json` and `jsonb`: the server's text, made to fit one line.

use super::numbers::number_len;
use crate::singer::JsonBuf;
use crate::singer::json::plain_prefix;

/// Appends a JSON document as it is, except that whitespace between tokens is dropped where it is more than one space
/// (`jsonb` prints single spaces, so its text is copied in one go). False if the text is no JSON.
pub(super) fn compact(text: &[u8], out: &mut JsonBuf) -> bool {
    match std::str::from_utf8(text) {
        Ok(_) => Compactor { text, at: 0, copied: 0, out }.document(),
        Err(_) => {
            out.note_replaced();
            let text = String::from_utf8_lossy(text);
            Compactor { text: text.as_bytes(), at: 0, copied: 0, out }.document()
        }
    }
    .is_some()
}

struct Compactor<'a> {
    text: &'a [u8],
    at: usize,
    /// The offset up to which the text is in the output or dropped.
    copied: usize,
    out: &'a mut JsonBuf,
}

/// The tokens that may come next.
enum Expect {
    Value,
    /// A value, or the end of an array that has none.
    ValueOrEnd,
    Key,
    /// A key, or the end of an object that has none.
    KeyOrEnd,
    /// A comma or the end of what is open; the end of the text if nothing is.
    Separator,
}

/// Each method returns `None` where the text stops being JSON. There is no recursion: the server's own limit on nesting is
/// far deeper than a stack should be trusted with.
impl Compactor<'_> {
    fn document(mut self) -> Option<()> {
        let mut open = Nesting::default();
        let mut expect = Expect::Value;
        loop {
            self.whitespace();
            let Some(&byte) = self.text.get(self.at) else { break };
            expect = match (expect, byte) {
                (Expect::Value | Expect::ValueOrEnd, b'{') => {
                    open.push(true);
                    self.at += 1;
                    Expect::KeyOrEnd
                }
                (Expect::Value | Expect::ValueOrEnd, b'[') => {
                    open.push(false);
                    self.at += 1;
                    Expect::ValueOrEnd
                }
                (Expect::ValueOrEnd | Expect::Separator, b']') if open.top() == Some(false) => self.close(&mut open),
                (Expect::KeyOrEnd | Expect::Separator, b'}') if open.top() == Some(true) => self.close(&mut open),
                (Expect::Value | Expect::ValueOrEnd, _) => {
                    self.scalar(byte)?;
                    Expect::Separator
                }
                (Expect::Key | Expect::KeyOrEnd, b'"') => {
                    self.string()?;
                    self.whitespace();
                    self.word(b":")?;
                    Expect::Value
                }
                (Expect::Separator, b',') => {
                    self.at += 1;
                    if open.top()? { Expect::Key } else { Expect::Value }
                }
                _ => return None,
            };
        }
        if !matches!(expect, Expect::Separator) || open.top().is_some() {
            return None;
        }
        self.copy();
        Some(())
    }

    fn close(&mut self, open: &mut Nesting) -> Expect {
        open.pop();
        self.at += 1;
        Expect::Separator
    }

    fn scalar(&mut self, first: u8) -> Option<()> {
        match first {
            b'"' => return self.string(),
            b't' => return self.word(b"true"),
            b'f' => return self.word(b"false"),
            b'n' => return self.word(b"null"),
            _ => self.at += number_len(&self.text[self.at..])?,
        }
        Some(())
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.at += self.text[self.at..].starts_with(word).then_some(word.len())?;
        Some(())
    }

    fn string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            self.at += plain_prefix(&self.text[self.at..], 0);
            match *self.text.get(self.at)? {
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                b'\\' => self.escape()?,
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        match self.text.get(self.at + 1)? {
            b'u' => {}
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {
                self.at += 2;
                return Some(());
            }
            _ => return None,
        }
        match self.code_unit(self.at)? {
            0xd800..=0xdbff if matches!(self.code_unit(self.at + 6), Some(0xdc00..=0xdfff)) => self.at += 12,
            // Half a surrogate pair: `json` stores it, strict parsers refuse the whole line.
            0xd800..=0xdfff => {
                self.copy();
                self.out.raw(br"\ufffd");
                self.out.note_replaced();
                self.at += 6;
                self.copied = self.at;
            }
            _ => self.at += 6,
        }
        Some(())
    }

    /// Returns the UTF-16 code unit that the escape `\uXXXX` at this offset stands for.
    fn code_unit(&self, at: usize) -> Option<u16> {
        let digits = self.text.get(at..at + 6)?.strip_prefix(br"\u")?;
        digits.iter().try_fold(0, |unit, &digit| Some(unit << 4 | (digit as char).to_digit(16)? as u16))
    }

    fn whitespace(&mut self) {
        let space = |byte: &u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
        let rest = &self.text[self.at..];
        let len = match rest {
            [first, ..] if !space(first) => return,
            [b' ', second, ..] if !space(second) => {
                self.at += 1;
                return;
            }
            _ => rest.iter().take_while(|byte| space(byte)).count(),
        };
        self.copy();
        self.at += len;
        self.copied = self.at;
    }

    /// Writes what was read since the last copy.
    fn copy(&mut self) {
        self.out.raw(&self.text[self.copied..self.at]);
        self.copied = self.at;
    }
}

/// The open brackets, innermost last, a bit each, which is set for an object; only deep documents need memory.
#[derive(Default)]
struct Nesting {
    depth: usize,
    bits: u64,
    outer: Vec<u64>,
}

impl Nesting {
    fn push(&mut self, object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.bits);
        }
        self.bits = self.bits << 1 | object as u64;
        self.depth += 1;
    }

    fn pop(&mut self) {
        self.depth -= 1;
        self.bits >>= 1;
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.bits = self.outer.pop().unwrap_or_default();
        }
    }

    /// Whether the innermost open bracket is an object's.
    fn top(&self) -> Option<bool> {
        (self.depth > 0).then_some(self.bits & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::types::Codec;
    use crate::types::codec::tests::{assert_encodes, encoded};

    #[test]
    fn documents_keep_their_text() {
        for text in [
            r#"{"a": 1, "b": [1, 2, {"c": null}]}"#,
            r#"{"big": 12345678901234567890123, "float": 1.10, "esc": "\u00e9\n\"", "dup": 1, "dup": 2}"#,
            r#""text""#,
            "[]",
            "{}",
            "-1.5e+10",
            "null",
            r#"["\ud83d\ude00", "日本", "a / b \/ \\"]"#,
        ] {
            assert_encodes(&Codec::Json, &[(text, text)]);
        }
    }

    #[test]
    fn whitespace_between_tokens_fits_one_line() {
        assert_encodes(
            &Codec::Json,
            &[
                ("{\n  \"a\" : [ 1,\r\n\t2 ],\n  \"b\\n\" : \"x  y\"\n}\n", r#"{"a" : [ 1,2 ],"b\n" : "x  y"}"#),
                ("\n[\n]\n", "[]"),
                (" 1 ", " 1"),
            ],
        );
    }

    #[test]
    fn what_is_no_json_is_a_string() {
        for text in [
            "",
            " ",
            "{",
            "[",
            "]",
            "{]",
            "[}",
            "[1,]",
            "[,1]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{1:2}",
            "1 2",
            "nul",
            "truee",
            "\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"a\nb\"",
            "[1 2]",
            "01",
            "{\"a\":1]",
            "[\"a\":1]",
        ] {
            let json = encoded(&Codec::Json, text.as_bytes());
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }

    #[test]
    fn what_is_no_unicode_is_replaced() {
        assert_encodes(
            &Codec::Json,
            &[
                (r#"["\ud83d", "\ude00\ud83d x"]"#, r#"["\ufffd", "\ufffd\ufffd x"]"#),
                (r#""\ud83d\n""#, r#""\ufffd\n""#),
            ],
        );
        assert_eq!(encoded(&Codec::Json, b"{\"a\": \"\xe9\"}"), "{\"a\": \"\u{fffd}\"}");
    }

    #[test]
    fn any_depth() {
        for depth in [63, 64, 65, 127, 128, 129, 10_000] {
            let text = format!("{}1{}", "[{\"a\":".repeat(depth), "}]".repeat(depth));
            assert_eq!(encoded(&Codec::Json, text.as_bytes()), text);
            let unbalanced = &text[..text.len() - 1];
            assert!(encoded(&Codec::Json, unbalanced.as_bytes()).starts_with('"'));
        }
    }

    fn documents() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(5, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::vec((any::<String>(), inner), 0..6)
                    .prop_map(|pairs| serde_json::Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_document_means_the_same(document in documents()) {
            for text in [serde_json::to_string(&document).unwrap(), serde_json::to_string_pretty(&document).unwrap()] {
                let json = encoded(&Codec::Json, text.as_bytes());
                prop_assert!(!json.contains('\n'));
                prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&json).unwrap(), &document);
            }
        }
    }
}
