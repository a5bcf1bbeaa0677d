//! `hstore`: `"a"=>"1", "b"=>NULL` becomes an object of strings and nulls.

use super::array::quoted;
use crate::singer::JsonBuf;

/// Appends the object; keys are distinct already. False if the text is not what `hstore_out` prints.
pub(super) fn object(text: &[u8], out: &mut JsonBuf) -> bool {
    let mut scratch = out.take_scratch();
    let written = pairs(text, &mut scratch, out).is_some();
    out.return_scratch(scratch);
    written
}

fn pairs(mut text: &[u8], scratch: &mut Vec<u8>, out: &mut JsonBuf) -> Option<()> {
    out.byte(b'{');
    if !text.is_empty() {
        loop {
            let (key, rest) = quoted(text, scratch)?;
            out.string(key);
            out.byte(b':');
            text = rest.strip_prefix(b"=>")?;
            if let Some(rest) = text.strip_prefix(b"NULL") {
                out.raw(b"null");
                text = rest;
            } else {
                let (value, rest) = quoted(text, scratch)?;
                out.string(value);
                text = rest;
            }
            if text.is_empty() {
                break;
            }
            text = text.strip_prefix(b", ")?;
            out.byte(b',');
        }
    }
    out.byte(b'}');
    Some(())
}

#[cfg(test)]
mod tests {
    use crate::types::Codec;
    use crate::types::codec::tests::assert_encodes;

    #[test]
    fn objects() {
        assert_encodes(
            &Codec::Hstore,
            &[
                ("", "{}"),
                (r#""a"=>"1", "b"=>NULL, "q\"uote"=>"x y""#, r#"{"a":"1","b":null,"q\"uote":"x y"}"#),
                (r#""k 1"=>"v,1", "k=>2"=>"{}""#, r#"{"k 1":"v,1","k=>2":"{}"}"#),
                (r#""back\\slash"=>"NULL", ""=>"""#, r#"{"back\\slash":"NULL","":""}"#),
                ("\"line\nend\"=>\"日本\"", "{\"line\\nend\":\"日本\"}"),
            ],
        );
    }

    #[test]
    fn malformed_text_is_a_string() {
        assert_encodes(
            &Codec::Hstore,
            &[
                ("a=>1", r#""a=>1""#),
                (r#""a""#, r#""\"a\"""#),
                (r#""a"=>"#, r#""\"a\"=>""#),
                (r#""a"=>"b", "#, r#""\"a\"=>\"b\", ""#),
                (r#""a"=>"b" "c"=>NULL"#, r#""\"a\"=>\"b\" \"c\"=>NULL""#),
                (r#""a"=>"b\"#, r#""\"a\"=>\"b\\""#),
            ],
        );
    }
}
