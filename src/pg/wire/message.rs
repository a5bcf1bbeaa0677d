//! Parsers for the bodies of the server's messages.

use std::io;

use memchr::memchr;

/// The authentication that the server asks for (AuthenticationRequest).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Authentication {
    Ok,
    CleartextPassword,
    Md5Password([u8; 4]),
    Sasl(Vec<String>),
    SaslContinue(Vec<u8>),
    SaslFinal(Vec<u8>),
    /// A method that is not supported, by its name in pg_hba.conf.
    Unsupported(&'static str),
}

impl Authentication {
    pub(super) fn parse(body: &[u8]) -> io::Result<Authentication> {
        let (kind, rest) = body.split_first_chunk().ok_or_else(|| invalid("AuthenticationRequest"))?;
        Ok(match u32::from_be_bytes(*kind) {
            0 => Authentication::Ok,
            3 => Authentication::CleartextPassword,
            5 => Authentication::Md5Password(rest.try_into().map_err(|_| invalid("AuthenticationMD5Password"))?),
            10 => Authentication::Sasl(mechanisms(rest)?),
            11 => Authentication::SaslContinue(rest.to_vec()),
            12 => Authentication::SaslFinal(rest.to_vec()),
            2 => Authentication::Unsupported("krb5"),
            6 => Authentication::Unsupported("scm"),
            7 | 8 => Authentication::Unsupported("gss"),
            9 => Authentication::Unsupported("sspi"),
            _ => Authentication::Unsupported("of a newer kind"),
        })
    }
}

/// Parses zero-terminated names up to an empty one.
fn mechanisms(mut body: &[u8]) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    loop {
        let (name, rest) = cstr(body).ok_or_else(|| invalid("AuthenticationSASL"))?;
        if name.is_empty() {
            return Ok(names);
        }
        names.push(name);
        body = rest;
    }
}

/// Parses the process ID and secret key of the backend (BackendKeyData).
pub(super) fn backend_key_data(body: &[u8]) -> io::Result<(i32, i32)> {
    match body {
        &[a, b, c, d, e, f, g, h] => Ok((i32::from_be_bytes([a, b, c, d]), i32::from_be_bytes([e, f, g, h]))),
        _ => Err(invalid("BackendKeyData")),
    }
}

/// Parses the name and value of a setting (ParameterStatus).
pub(super) fn parameter_status(body: &[u8]) -> io::Result<(String, String)> {
    let both = || {
        let (name, rest) = cstr(body)?;
        Some((name, cstr(rest)?.0))
    };
    both().ok_or_else(|| invalid("ParameterStatus"))
}

/// Parses the values of a row in text format (DataRow). Bytes that are not UTF-8 (the server's encoding may be
/// SQL_ASCII) are replaced.
pub(super) fn data_row(body: &[u8]) -> io::Result<Vec<Option<String>>> {
    let values = || {
        let (count, mut rest) = body.split_first_chunk()?;
        let mut values = Vec::new();
        for _ in 0..u16::from_be_bytes(*count) {
            let (length, after) = rest.split_first_chunk()?;
            let length = i32::from_be_bytes(*length);
            rest = after;
            values.push(if length == -1 {
                None
            } else {
                let (value, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                rest = after;
                Some(String::from_utf8_lossy(value).into_owned())
            });
        }
        rest.is_empty().then_some(values)
    };
    values().ok_or_else(|| invalid("DataRow"))
}

/// Splits off a zero-terminated string; returns it and what follows.
fn cstr(bytes: &[u8]) -> Option<(String, &[u8])> {
    let end = memchr(0, bytes)?;
    Some((String::from_utf8_lossy(&bytes[..end]).into_owned(), &bytes[end + 1..]))
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed {message} message"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_truncation_of_a_row_is_refused() {
        let row = b"\0\x03\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\0";
        assert_eq!(data_row(row).unwrap(), [Some("ab".to_owned()), None, Some(String::new())]);
        for end in 0..row.len() {
            assert!(data_row(&row[..end]).is_err(), "{end}");
        }
        for length in [b"\xff\xff\xff\xfe", b"\x7f\xff\xff\xff", b"\x80\0\0\0"] {
            assert!(data_row(&[b"\0\x01", &length[..], b"abc"].concat()).is_err());
        }
    }

    #[test]
    fn authentication_requests_are_told_apart() {
        let sasl = b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
        let names = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"].map(str::to_owned).to_vec();
        assert_eq!(Authentication::parse(sasl).unwrap(), Authentication::Sasl(names));
        for end in (0..sasl.len()).filter(|end| *end != 4) {
            assert!(Authentication::parse(&sasl[..end]).is_err(), "{end}");
        }
        let md5 = b"\0\0\0\x05salt";
        assert_eq!(Authentication::parse(md5).unwrap(), Authentication::Md5Password(*b"salt"));
        assert!(Authentication::parse(&md5[..7]).is_err());
        assert_eq!(Authentication::parse(b"\0\0\0\x07").unwrap(), Authentication::Unsupported("gss"));
    }

    #[test]
    fn short_messages_are_refused() {
        assert_eq!(parameter_status(b"a\0b\0").unwrap(), ("a".to_owned(), "b".to_owned()));
        for end in 0..4 {
            assert!(parameter_status(&b"a\0b\0"[..end]).is_err());
        }
        assert_eq!(backend_key_data(&[0, 0, 0, 1, 0, 0, 0, 2]).unwrap(), (1, 2));
        assert!(backend_key_data(&[0; 7]).is_err());
    }
}
