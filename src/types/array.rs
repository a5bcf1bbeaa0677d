//! Arrays: `{1,NULL,3}`, `{{a,"b c"},{d,e}}`, `[2:3]={1,2}` (manual, section 8.15.6). The text form is the same for
//! every element type except for the delimiter, so there is one reader.

use super::ArrayCodec;
use crate::singer::JsonBuf;

/// The server's own limit on dimensions (`MAXDIM`). No server prints deeper text, and it must not nest the output.
const MAX_DEPTH: usize = 6;

/// Appends the array as nested JSON arrays; bounds are dropped. Returns whether every element's text is one that its
/// type prints; `None` if the text is not what `array_out` prints.
pub(super) fn array(codec: &ArrayCodec, text: &[u8], out: &mut JsonBuf) -> Option<bool> {
    let mut scratch = out.take_scratch();
    let mut of_type = true;
    let well_formed = read(text, codec.delimiter, &mut scratch, |token| match token {
        Token::Open => out.byte(b'['),
        Token::Close => out.byte(b']'),
        Token::Delimiter => out.byte(b','),
        Token::Null => out.raw(b"null"),
        Token::Element(element) => of_type &= codec.element.encode(element, out),
    });
    out.return_scratch(scratch);
    well_formed.map(|()| of_type)
}

/// Whether a substitute is written for one of the elements.
pub(super) fn has_fallback(codec: &ArrayCodec, text: &[u8]) -> bool {
    let mut found = false;
    let well_formed = read(text, codec.delimiter, &mut Vec::new(), |token| {
        if let Token::Element(element) = token {
            found |= codec.element.is_fallback(element);
        }
    });
    // Malformed text is written whole, as it is.
    well_formed.is_some() && found
}

enum Token<'a> {
    Open,
    Close,
    Delimiter,
    Null,
    /// An element's text, unescaped.
    Element(&'a [u8]),
}

/// Passes each token of an array's text to `token`; `None` as soon as the text is malformed.
fn read(text: &[u8], delimiter: u8, scratch: &mut Vec<u8>, mut token: impl FnMut(Token<'_>)) -> Option<()> {
    let mut text = without_bounds(text).strip_prefix(b"{")?;
    token(Token::Open);
    let mut depth = 1;
    // After a delimiter comes an item, after an opening brace an item or a closing brace, else a delimiter or a closing
    // brace.
    let (mut item_due, mut may_close) = (true, true);
    while depth > 0 {
        let (&byte, rest) = text.split_first()?;
        match byte {
            b'}' if may_close => {
                token(Token::Close);
                depth -= 1;
                (item_due, may_close) = (false, true);
                text = rest;
            }
            _ if !item_due => {
                if byte != delimiter {
                    return None;
                }
                token(Token::Delimiter);
                (item_due, may_close) = (true, false);
                text = rest;
            }
            b'{' => {
                if depth == MAX_DEPTH {
                    return None;
                }
                token(Token::Open);
                depth += 1;
                may_close = true;
                text = rest;
            }
            b'"' => {
                let (element, rest) = quoted(text, scratch)?;
                token(Token::Element(element));
                (item_due, may_close) = (false, true);
                text = rest;
            }
            _ => {
                let end = text.iter().position(|&byte| byte == delimiter || byte == b'}')?;
                let (element, rest) = text.split_at(end);
                // array_out quotes the empty string and every text that holds one of these.
                if element.is_empty() || element.iter().any(|byte| matches!(byte, b'{' | b'"' | b'\\')) {
                    return None;
                }
                let null = element.eq_ignore_ascii_case(b"NULL");
                token(if null { Token::Null } else { Token::Element(element) });
                (item_due, may_close) = (false, true);
                text = rest;
            }
        }
    }
    text.is_empty().then_some(())
}

/// Returns the text after the bounds of an array whose subscripts don't start at 1: `[2:3][-1:0]=`.
fn without_bounds(text: &[u8]) -> &[u8] {
    if text.first() != Some(&b'[') {
        return text;
    }
    let bounds = text.iter().take_while(|byte| matches!(byte, b'[' | b']' | b':' | b'-' | b'0'..=b'9')).count();
    text[bounds..].strip_prefix(b"=").unwrap_or(text)
}

/// Reads the quoted string that the text starts with. Returns it unescaped (in `scratch` if need be), and what follows
/// the closing quote. `array_out` and `hstore_out` quote alike.
pub(super) fn quoted<'s, 'a: 's>(text: &'a [u8], scratch: &'s mut Vec<u8>) -> Option<(&'s [u8], &'a [u8])> {
    let text = text.strip_prefix(b"\"")?;
    let mut end = memchr::memchr2(b'"', b'\\', text)?;
    if text[end] == b'"' {
        return Some((&text[..end], &text[end + 1..]));
    }
    scratch.clear();
    let mut copied = 0;
    while text[end] == b'\\' {
        scratch.extend_from_slice(&text[copied..end]);
        // The escaped character begins the next run, even if it is a quote or a backslash.
        copied = end + 1;
        end = copied + 1 + memchr::memchr2(b'"', b'\\', text.get(copied + 1..)?)?;
    }
    scratch.extend_from_slice(&text[copied..end]);
    Some((scratch, &text[end + 1..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::Codec;
    use crate::types::codec::tests::{array_of, assert_encodes, encoded};

    #[test]
    fn any_depth_and_bounds() {
        assert_encodes(
            &array_of(Codec::Integer),
            &[
                ("{}", "[]"),
                ("{1,2,3}", "[1,2,3]"),
                ("{1,NULL,3}", "[1,null,3]"),
                ("{{1,2},{3,4}}", "[[1,2],[3,4]]"),
                ("{{{{{{1}}}}}}", "[[[[[[1]]]]]]"),
                ("[2:3]={1,2}", "[1,2]"),
                ("[0:0][-1:0]={{1,2}}", "[[1,2]]"),
                ("{9223372036854775807}", "[9223372036854775807]"),
            ],
        );
    }

    #[test]
    fn elements_are_written_by_their_codec() {
        let text = r#"{a,"b c","q\"uote","back\\slash","com,ma","{brace}",NULL,"NULL",""}"#;
        let json = r#"["a","b c","q\"uote","back\\slash","com,ma","{brace}",null,"NULL",""]"#;
        assert_encodes(&array_of(Codec::Text), &[(text, json)]);
        assert_encodes(&array_of(Codec::Number), &[("{1.500,NaN,-Infinity,1e-30}", "[1.500,null,null,1e-30]")]);
        assert_encodes(&array_of(Codec::Boolean), &[("{t,f,NULL}", "[true,false,null]"), ("{1,0}", "[true,false]")]);
        assert_encodes(&array_of(Codec::Json), &[(r#"{"{\"a\":1}","\"x\\\"y\"",1}"#, r#"[{"a":1},"x\"y",1]"#)]);
        assert_encodes(&array_of(Codec::Hstore), &[(r#"{"\"a\"=>\"1\""}"#, r#"[{"a":"1"}]"#)]);
        assert_encodes(&array_of(Codec::Bytea), &[(r#"{"\\x00ff","\\x"}"#, r#"["\\x00ff","\\x"]"#)]);
        assert_encodes(
            &array_of(Codec::Timestamptz),
            &[(
                r#"{"2020-02-29 10:20:30+00",infinity}"#,
                r#"["2020-02-29T10:20:30+00:00","9999-12-31T23:59:59.999000+00:00"]"#,
            )],
        );
        assert_encodes(&array_of(Codec::Date), &[("{2020-02-29}", r#"["2020-02-29T00:00:00+00:00"]"#)]);
    }

    #[test]
    fn box_has_its_own_delimiter() {
        let boxes = Codec::Array(Box::new(ArrayCodec { element: Codec::Text, delimiter: b';' }));
        assert_encodes(&boxes, &[("{(1,1),(0,0);(2,2),(1,1)}", r#"["(1,1),(0,0)","(2,2),(1,1)"]"#)]);
    }

    #[test]
    fn a_domain_over_an_array_nests() {
        let codec = array_of(array_of(Codec::Text));
        assert_encodes(&codec, &[(r#"{"{a,\"b \\\"c\"}","{}"}"#, r#"[["a","b \"c"],[]]"#)]);
    }

    #[test]
    fn malformed_text_is_a_string() {
        for text in [
            "",
            "1 2 3",
            "{",
            "}",
            "{}}",
            "{}x",
            "{1",
            "{1,",
            "{1,}",
            "{,1}",
            "{1,,2}",
            "{1}{2}",
            "{\"a}",
            "{\"a\"b}",
            "{a\"b}",
            "{{1},2",
            "{\"\\",
            "[1:2]={",
            "[1:2]{1,2}",
            "{{{{{{{1}}}}}}}",
            "{a\\b}",
            "{{1}2}",
            "{{1};{2}}",
            "{\"a\";\"b\"}",
        ] {
            let json = encoded(&array_of(Codec::Text), text.as_bytes());
            assert_eq!(serde_json::from_str::<String>(&json).expect(text), text);
        }
    }

    #[test]
    fn fallbacks_inside() {
        assert!(array_of(Codec::Number).is_fallback(b"{1,NaN}"));
        assert!(array_of(Codec::Number).is_fallback(b"{{1},{NaN}}"));
        assert!(!array_of(Codec::Number).is_fallback(b"{1,2}"));
        assert!(!array_of(Codec::Text).is_fallback(b"{NaN}"));
    }

    /// Prints an element as `array_out` does: quoted if need be, with quotes and backslashes escaped.
    fn printed(element: &Option<String>) -> String {
        match element {
            None => "NULL".to_owned(),
            Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
        }
    }

    proptest! {
        #[test]
        fn elements_come_back(rows in prop::collection::vec(prop::collection::vec(any::<Option<String>>(), 1..4), 1..4)) {
            let row = |row: &Vec<_>| format!("{{{}}}", row.iter().map(printed).collect::<Vec<_>>().join(","));
            let text = format!("{{{}}}", rows.iter().map(row).collect::<Vec<_>>().join(","));
            let json = encoded(&array_of(Codec::Text), text.as_bytes());
            prop_assert_eq!(serde_json::from_str::<Vec<Vec<Option<String>>>>(&json).unwrap(), rows);
        }
    }
}
