//! Lookup of a password that is not in the config, in PGPASSWORD or the password file, by libpq's rules.

use std::path::{Path, PathBuf};

use crate::pg::net::target::Target;

/// The default directories of a server's socket: PostgreSQL's own, Debian's, and the one that Debian's is a link to.
const DEFAULT_SOCKET_DIRS: [&str; 3] = ["/tmp", "/var/run/postgresql", "/run/postgresql"];

/// Returns the password for this target from the environment or the password file.
pub(crate) fn find(target: &Target) -> Option<String> {
    match std::env::var("PGPASSWORD") {
        Ok(password) if !password.is_empty() => Some(password),
        _ => lookup(&read(&file()?)?, target),
    }
}

/// Returns the path of the password file.
fn file() -> Option<PathBuf> {
    match std::env::var_os("PGPASSFILE") {
        Some(path) if !path.is_empty() => Some(path.into()),
        _ => Some(std::env::home_dir()?.join(".pgpass")),
    }
}

/// Reads the password file, unless others may read it as well.
fn read(path: &Path) -> Option<String> {
    let metadata = std::fs::metadata(path).ok()?;
    if !metadata.is_file() {
        tracing::warn!("password file {} is not a plain file: ignored", path.display());
        return None;
    }
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 != 0 {
        tracing::warn!("password file {} may be read by others: ignored (chmod 0600)", path.display());
        return None;
    }
    match std::fs::read(path) {
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) => {
            tracing::warn!("password file {} cannot be read: {error}", path.display());
            None
        }
    }
}

/// Returns the password of the first line `host:port:database:user:password` that matches.
fn lookup(text: &str, target: &Target) -> Option<String> {
    let host = if DEFAULT_SOCKET_DIRS.contains(&target.host.as_str()) { "localhost" } else { &target.host };
    let port = target.port.to_string();
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut rest = line;
        for value in [host, &port, &target.dbname, &target.user] {
            let (field, after) = field(rest)?;
            if field != value && &rest[..rest.len() - after.len()] != "*:" {
                return None;
            }
            rest = after;
        }
        let password = unescape(rest);
        (!password.is_empty()).then_some(password)
    })
}

/// Splits off the first field; returns it, unescaped, and what follows its colon.
fn field(line: &str) -> Option<(String, &str)> {
    let mut escaped = false;
    let end = line.find(|c| {
        let ends = c == ':' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    })?;
    Some((unescape(&line[..end]), &line[end + 1..]))
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        plain.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str, host: &str) -> Option<String> {
        let target = Target { host: host.into(), port: 5432, dbname: "shop".into(), user: "tap".into() };
        lookup(text, &target)
    }

    #[test]
    fn the_first_line_that_fits_counts() {
        let text =
            "# db:5432:shop:tap:no\nother:*:*:*:no\ndb:5433:*:*:no\nshort:line\n\ndb:5432:*:tap:one\r\n*:*:*:*:two\n";
        assert_eq!(password(text, "db").as_deref(), Some("one"));
        assert_eq!(password(text, "elsewhere").as_deref(), Some("two"));
        assert_eq!(password("db:*:*:other:x", "db"), None);
        assert_eq!(password("db:*:*:tap:", "db"), None);
        assert_eq!(password("", "db"), None);
    }

    #[test]
    fn backslashes_escape_colons_and_themselves() {
        assert_eq!(password(r"\:\:1:*:*:*:a\:b\\c:d", "::1").as_deref(), Some(r"a:b\c:d"));
        assert_eq!(password(r"\*:*:*:*:x", "db"), None);
        assert_eq!(password(r"\*:*:*:*:x\", "*").as_deref(), Some(r"x\"));
    }

    #[test]
    fn a_default_socket_directory_is_localhost() {
        assert_eq!(password("localhost:*:*:*:x", "/var/run/postgresql").as_deref(), Some("x"));
        assert_eq!(password("/srv/pg:*:*:*:x", "/srv/pg").as_deref(), Some("x"));
        assert_eq!(password("localhost:*:*:*:x", "/srv/pg"), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_read_is_ignored() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "*:*:*:*:x").unwrap();
        for (mode, found) in [(0o600, true), (0o640, false), (0o604, false)] {
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(file.path()).is_some(), found, "{mode:o}");
        }
        assert_eq!(read(Path::new("/nonexistent/pgpass")), None);
    }
}
