//! libpq's connection strings and URIs, as the settings that they stand for.
//!
//! Any part of one may be a secret, if only because a character is missing before it: an error names a parameter at most.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// libpq's parameters that are settings here, by the same name.
const SETTINGS: [&str; 11] = [
    "host",
    "port",
    "user",
    "password",
    "dbname",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "channel_binding",
    "target_session_attrs",
];

/// libpq's parameters for what the tap sets itself in every session.
const WITHOUT_EFFECT: [&str; 10] = [
    "application_name",
    "client_encoding",
    "connect_timeout",
    "fallback_application_name",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "tcp_user_timeout",
    "sslsni",
];

const DEFAULT_PORT: &str = "5432";

/// Reads the settings in a connection string (`host=db user=tap`) or URI (`postgresql://tap@db`), each once. The port
/// is always among them: libpq has a default.
pub(super) fn parse(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut settings = Settings(Vec::new());
    match without_scheme(text.trim()) {
        Some(uri) => settings.read_uri(uri)?,
        None => settings.read_keywords(text)?,
    }
    settings.0.retain(|(_, value)| !value.is_empty());
    if !settings.0.iter().any(|(name, _)| name == "port") {
        settings.set("port", DEFAULT_PORT)?;
    }
    Ok(settings.0)
}

/// Returns what follows the scheme of a URI: libpq's, or SQLAlchemy's with the name of a driver in it.
fn without_scheme(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once("://")?;
    let (name, driver) = scheme.split_once('+').unwrap_or((scheme, ""));
    let is_word = driver.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    (matches!(name, "postgresql" | "postgres") && is_word).then_some(rest)
}

struct Settings(Vec<(String, String)>);

impl Settings {
    /// Sets a parameter; of several values the last counts.
    fn set(&mut self, name: &str, value: impl Into<String>) -> Result<(), String> {
        let value = value.into();
        // GSSAPI encryption is not spoken here, so that it can be neither preferred nor have to be disabled.
        if WITHOUT_EFFECT.contains(&name) || name == "gssencmode" && value != "require" {
            tracing::debug!("parameter {name} of the dsn is without effect here");
            return Ok(());
        }
        if !SETTINGS.contains(&name) {
            let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            return Err(if is_name {
                format!("its parameter {name:?} is not supported")
            } else {
                "something in it is no name of a parameter; are all special characters quoted or encoded?".to_owned()
            });
        }
        match self.0.iter_mut().find(|(earlier, _)| earlier == name) {
            Some((_, earlier)) => *earlier = value,
            None => self.0.push((name.to_owned(), value)),
        }
        Ok(())
    }

    /// Reads `name=value name='a value'`.
    fn read_keywords(&mut self, text: &str) -> Result<(), String> {
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let (name, after) = rest.split_once('=').ok_or("expected host=… port=… or postgresql://…")?;
            let (value, after) = keyword_value(after.trim_start())?;
            self.set(name.trim_end(), value)?;
            rest = after.trim_start();
        }
        Ok(())
    }

    /// Reads `user:password@host:port,host:port/dbname?name=value&name=value`, any part of which may be missing.
    fn read_uri(&mut self, uri: &str) -> Result<(), String> {
        let before_path = uri.split('/').next().unwrap_or(uri);
        let rest = match before_path.split_once('@') {
            None => uri,
            Some((credentials, _)) => {
                let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
                self.set("user", decode("user", user)?)?;
                self.set("password", decode("password", password)?)?;
                &uri[credentials.len() + 1..]
            }
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (hosts, dbname) = rest.split_once('/').unwrap_or((rest, ""));
        // A password with a character that should have been encoded ends early, and its rest must not pass for these.
        if [hosts, dbname].iter().any(|part| part.contains('@')) || dbname.contains('/') {
            return Err("it is no URI: special characters in user, password and dbname must be percent-encoded".into());
        }
        self.read_hosts(hosts)?;
        self.set("dbname", decode("dbname", dbname)?)?;
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').ok_or("a parameter after its `?` has no `=`")?;
            self.set(&decode("name", name)?, decode(name, value)?)?;
        }
        Ok(())
    }

    fn read_hosts(&mut self, hosts: &str) -> Result<(), String> {
        if hosts.is_empty() {
            return Ok(());
        }
        let (mut names, mut ports) = (Vec::new(), Vec::new());
        for host in hosts.split(',') {
            // An IPv6 address is in brackets.
            let end = host.find(']').map_or(0, |bracket| bracket + 1);
            let (name, port) = match host[end..].split_once(':') {
                Some((name, port)) => (&host[..end + name.len()], port),
                None => (host, ""),
            };
            let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
            names.push(decode("host", name)?);
            ports.push(if port.is_empty() { Cow::Borrowed(DEFAULT_PORT) } else { decode("port", port)? });
        }
        self.set("host", names.join(","))?;
        self.set("port", ports.join(","))
    }
}

/// Reads the value at the start of the text. Returns it without its quotes and backslashes, and what follows it.
fn keyword_value(text: &str) -> Result<(String, &str), String> {
    let (quoted, text) = match text.strip_prefix('\'') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            char if !quoted && char.is_whitespace() => return Ok((value, &text[at..])),
            char => value.push(char),
        }
    }
    if quoted { Err("a quote in it is not closed".to_owned()) } else { Ok((value, "")) }
}

fn decode<'a>(what: &str, text: &'a str) -> Result<Cow<'a, str>, String> {
    percent_decode_str(text).decode_utf8().map_err(|_| format!("its {what} is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn reads(text: &str, expected: &[(&str, &str)]) {
        let settings = parse(text).unwrap();
        let settings: Vec<_> = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(settings, expected, "{text}");
    }

    #[test]
    fn uris() {
        reads(
            "postgresql://us%40er:p%2Fw%3A@h1,[::1]:5433/d%62?sslmode=verify-full&target_session_attrs=read-write",
            &[
                ("user", "us@er"),
                ("password", "p/w:"),
                ("host", "h1,::1"),
                ("port", "5432,5433"),
                ("dbname", "db"),
                ("sslmode", "verify-full"),
                ("target_session_attrs", "read-write"),
            ],
        );
        reads("postgres://", &[("port", "5432")]);
        reads("postgresql://h/", &[("host", "h"), ("port", "5432")]);
        reads("postgresql:///d?host=/tmp&port=1", &[("dbname", "d"), ("host", "/tmp"), ("port", "1")]);
        reads("postgresql://%2Fvar%2Frun:1/d", &[("host", "/var/run"), ("port", "1"), ("dbname", "d")]);
        reads("postgresql://u:p:w@h", &[("user", "u"), ("password", "p:w"), ("host", "h"), ("port", "5432")]);
        reads("postgresql+psycopg2://u@h/d", &[("user", "u"), ("host", "h"), ("port", "5432"), ("dbname", "d")]);
        reads("postgresql://h?connect_timeout=5&sslsni=1", &[("host", "h"), ("port", "5432")]);
    }

    #[test]
    fn connection_strings() {
        reads(
            r" host = h1,h2 port=1,2 user='u s' password='it\'s' dbname=a\ b\' ",
            &[("host", "h1,h2"), ("port", "1,2"), ("user", "u s"), ("password", "it's"), ("dbname", "a b'")],
        );
        reads(r"password='a\'\\' host=x host=y", &[("password", r"a'\"), ("host", "y"), ("port", "5432")]);
        reads("application_name=x password=''", &[("port", "5432")]);
        reads("", &[("port", "5432")]);
    }

    #[test]
    fn an_error_holds_no_secret() {
        for (text, expected) in [
            ("postgresql://u@h/d?passfile=hunter2", "its parameter \"passfile\" is not supported"),
            ("user=tap service=hunter2", "its parameter \"service\" is not supported"),
            ("password=correct hunter2 user=tap", "something in it is no name"),
            ("password='hunter2", "a quote in it is not closed"),
            ("hunter2", "expected host=…"),
            ("mysql://u:hunter2@h/d", "expected host=…"),
            ("postgresql://u:hunter@2@h/d", "percent-encoded"),
            ("postgresql://u:1/hunter2@h/d", "percent-encoded"),
            ("postgresql://u:p@h/d?hunter2", "a parameter after its `?` has no `=`"),
            ("postgresql://u:hunter2%ff@h/d", "its password is not UTF-8"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected) && !error.contains("hunter"), "{text}: {error}");
        }
    }

    #[test]
    fn no_text_panics() {
        let texts =
            ["postgresql://u%41:p@[::1]:1,h/d?a=b&host=%zz", r"host='a\'b' port = 1 user=\é", "postgresql://[]@:/?="];
        for text in texts {
            for (end, _) in text.char_indices() {
                let _ = parse(&text[..end]);
                let _ = parse(&text[end..]);
            }
        }
    }
}
