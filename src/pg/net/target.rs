//! The target of a connection.

use std::fmt;

/// The target of a connection, as error messages name it.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) dbname: String,
    pub(crate) user: String,
}

impl Target {
    /// Returns the path of the Unix socket, if the host is its directory.
    pub(crate) fn socket(&self) -> Option<String> {
        self.host.starts_with('/').then(|| format!("{}/.s.PGSQL.{}", self.host.trim_end_matches('/'), self.port))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Target { host, port, dbname, .. } = self;
        if let Some(path) = self.socket() {
            write!(f, "{path}, database {dbname}")
        } else if host.contains(':') {
            write!(f, "[{host}]:{port}/{dbname}")
        } else {
            write!(f, "{host}:{port}/{dbname}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_reads_like_an_address() {
        let target = |host: &str| {
            let [host, dbname, user] = [host, "shop", "tap"].map(str::to_owned);
            Target { host, port: 5432, dbname, user }.to_string()
        };
        assert_eq!(target("db"), "db:5432/shop");
        assert_eq!(target("::1"), "[::1]:5432/shop");
        assert_eq!(target("/run/postgresql"), "/run/postgresql/.s.PGSQL.5432, database shop");
    }
}
