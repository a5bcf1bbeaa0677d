//! Certificates and keys in PEM format, from a setting or a file.

use std::path::PathBuf;

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

impl Pem {
    /// Reads the text; `key` is the name of the setting, for the error.
    pub(super) fn read(&self, key: &str) -> Result<Vec<u8>> {
        match self {
            Pem::Text(text) => Ok(text.clone().into_bytes()),
            Pem::Path(path) => std::fs::read(path)
                .map_err(|error| Error::usage(format!("cannot read {key} `{}`", path.display())).source(error)),
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
