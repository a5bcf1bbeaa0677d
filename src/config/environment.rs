//! The environment that a tap is in whatever its config is: libpq's, and what Meltano says.
//!
//! Libpq's: what it says counts where neither the config nor its dsn does, as it did for a tap that connects through
//! libpq. A change of taps must not make a connection weaker.

use std::env;
use std::path::PathBuf;

use crate::error::{Error, Result};

/// Variables that are settings here.
const SETTINGS: [(&str, &str); 10] = [
    ("PGHOST", "host"),
    ("PGPORT", "port"),
    ("PGUSER", "user"),
    ("PGDATABASE", "dbname"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
];

/// Variables that make a connection safer, or that change what it is, in a way that this tap has not.
const REFUSED: [&str; 7] = [
    "PGGSSENCMODE",
    "PGREQUIREAUTH",
    "PGREQUIREPEER",
    "PGSERVICE",
    "PGSSLCRL",
    "PGSSLCRLDIR",
    "PGSSLMINPROTOCOLVERSION",
];

/// Variables that a connection is as safe without.
const WITHOUT_EFFECT: [&str; 4] = ["PGHOSTADDR", "PGLOADBALANCEHOSTS", "PGOPTIONS", "PGSSLCERTMODE"];

/// Which plugin Meltano runs the tap as, and whose settings are meant then.
const VARIANT: (&str, &str) = ("MELTANO_EXTRACTOR_VARIANT", "meltanolabs");

/// What the environment says.
#[derive(Default)]
pub(super) struct Environment {
    variables: Vec<(String, String)>,
    home: Option<PathBuf>,
}

impl Environment {
    /// Reads the variables.
    pub(super) fn read() -> Environment {
        let known = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
            ((name.starts_with("PG") || name == VARIANT.0) && !value.is_empty()).then_some((name, value))
        };
        Environment { variables: env::vars_os().filter_map(known).collect(), home: env::home_dir() }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns the settings: variable, key, value.
    pub(super) fn settings(&self) -> Vec<(String, &'static str, String)> {
        let mut settings: Vec<_> = SETTINGS
            .iter()
            .filter_map(|(variable, key)| Some(((*variable).to_owned(), *key, self.get(variable)?.to_owned())))
            .collect();
        // What PGSSLMODE was before PostgreSQL 8.
        if self.get("PGREQUIRESSL") == Some("1") && self.get("PGSSLMODE").is_none() {
            settings.push(("PGREQUIRESSL".to_owned(), "sslmode", "require".to_owned()));
        }
        // Where libpq looks without a setting, and then verifies the server.
        let file = self.home.as_ref().map(|home| home.join(".postgresql/root.crt")).filter(|file| file.is_file());
        if let Some(file) = file.as_deref().and_then(|file| file.to_str()) {
            settings.push((file.to_owned(), "sslrootcert", file.to_owned()));
        }
        settings
    }

    /// Returns the dialect that Meltano's variant stands for, if any does, and the variable that says so.
    pub(super) fn dialect(&self) -> Option<(&'static str, &'static str)> {
        (self.get(VARIANT.0) == Some(VARIANT.1)).then_some(VARIANT)
    }

    /// Fails for what can't be honoured and makes a difference to safety; warns of the rest.
    pub(super) fn check(&self) -> Result<()> {
        for (name, value) in &self.variables {
            let weak = match (name.as_str(), value.as_str()) {
                ("PGGSSENCMODE", value) => value == "require",
                ("PGSSLMINPROTOCOLVERSION", value) => value == "TLSv1.3",
                (name, _) => REFUSED.contains(&name),
            };
            if weak {
                return Err(Error::usage(format!("the environment sets {name}, which this tap can't honour")).hint(
                    format!("unset {name}, and set what it stands for in the config as far as there is a setting"),
                ));
            }
            if WITHOUT_EFFECT.contains(&name.as_str()) {
                tracing::warn!("the environment sets {name}, which has no effect here");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Environment { variables: variables.iter().map(owned).collect(), home: None }
    }

    #[test]
    fn variables_are_settings() {
        let keys = |variables: &[(&str, &str)]| {
            let settings = environment(variables).settings().into_iter();
            settings.map(|(_, key, value)| (key, value)).collect::<Vec<_>>()
        };
        assert_eq!(
            keys(&[("PGHOST", "db"), ("PGSSLMODE", "verify-full"), ("PGPASSWORD", "x")]),
            [("host", "db".to_owned()), ("sslmode", "verify-full".to_owned())]
        );
        assert_eq!(keys(&[("PGREQUIRESSL", "1")]), [("sslmode", "require".to_owned())]);
        assert!(keys(&[("PGREQUIRESSL", "0")]).is_empty());
    }

    #[test]
    fn the_variant_that_meltano_runs() {
        let dialect = |variant| environment(&[("MELTANO_EXTRACTOR_VARIANT", variant)]).dialect();
        assert_eq!(dialect("meltanolabs"), Some(("MELTANO_EXTRACTOR_VARIANT", "meltanolabs")));
        assert_eq!(dialect("transferwise"), None);
    }

    #[test]
    fn what_would_be_weaker_without_it_is_refused() {
        for variable in [
            ("PGSERVICE", "shop"),
            ("PGREQUIREAUTH", "scram-sha-256"),
            ("PGSSLCRL", "/crl"),
            ("PGGSSENCMODE", "require"),
            ("PGSSLMINPROTOCOLVERSION", "TLSv1.3"),
        ] {
            let error = environment(&[variable]).check().unwrap_err().to_string();
            assert!(error.contains(variable.0), "{error}");
        }
        for harmless in [("PGGSSENCMODE", "prefer"), ("PGSSLMINPROTOCOLVERSION", "TLSv1.2"), ("PGOPTIONS", "-c x=1")] {
            assert!(environment(&[harmless]).check().is_ok());
        }
    }
}
