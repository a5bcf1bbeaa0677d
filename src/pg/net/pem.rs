//! Certificates and keys in PEM format, from a setting or a file.

use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::error::{Error, Result};

/// A certificate or key in PEM format.
#[derive(Clone)]
pub(crate) enum Pem {
    /// A file.
    Path(PathBuf),
    /// The text itself.
    Text(String),
}

/// Whether a path may be shown: it looks like one. What was meant for the text of a key, without its first line, has no directory
/// in front, nor the ending of a file, and is long.
fn is_shown(path: &Path) -> bool {
    const LONGEST: usize = 40;
    let Some(text) = path.to_str() else { return false };
    let begins = ["/", "./", "../", "~/"].iter().any(|start| text.starts_with(start));
    let ends = text.rsplit_once('.').is_some_and(|(name, ending)| {
        !name.is_empty() && (1..=5).contains(&ending.len()) && ending.bytes().all(|b| b.is_ascii_alphanumeric())
    });
    let plain = text.chars().all(|c| c.is_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | '~' | ' '));
    (begins || ends) && plain && text.len() <= 5 * LONGEST && text.split('/').all(|part| part.len() <= LONGEST)
}

impl Pem {
    /// Reads the text; `key` is the name of the setting, for the error.
    pub(super) fn read(&self, key: &str) -> Result<Vec<u8>> {
        match self {
            Pem::Text(text) => Ok(text.clone().into_bytes()),
            Pem::Path(path) => std::fs::read(path).map_err(|error| {
                if is_shown(path) {
                    return Error::usage(format!("cannot read {key} `{}`", path.display())).source(error);
                }
                Error::usage(format!("{key} is neither the path of a file that can be read nor a text in PEM format"))
                    .hint("a text begins with its line -----BEGIN …-----")
            }),
        }
    }

    /// Reads the certificates, of which there must be at least one.
    pub(super) fn certificates(&self, key: &str) -> Result<Vec<CertificateDer<'static>>> {
        let pem = self.read(key)?;
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<_, _>>()
            .map_err(|error| Error::usage(format!("{key} is not valid PEM")).source(error))?;
        if certificates.is_empty() {
            return Err(Error::usage(format!("{key} holds no certificate in PEM format")));
        }
        Ok(certificates)
    }

    /// Returns whether it is `system`, libpq's name for the root certificates of the operating system.
    pub(super) fn is_system(&self) -> bool {
        match self {
            Pem::Path(path) => path.as_os_str() == "system",
            Pem::Text(text) => text == "system",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_looks_like_a_path_is_shown() {
        for path in ["/etc/ssl/tap.key", "key.pem", "./id_ed25519", "~/.ssh/id_rsa", "../certs/my key.pem"] {
            assert!(is_shown(Path::new(path)), "{path}");
        }
        for text in [
            "MIIEexampleexampleexampleexampleexample",
            "MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF",
            "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAE",
            "/9mWG9qfSnFMC4CAQAwBQYDK2VwBCIEIJDYvh6SEqVTm50DFtMDoQikTmiCqirVv",
            "hunter2",
            "",
        ] {
            assert!(!is_shown(Path::new(text)), "{text}");
        }
    }
}
