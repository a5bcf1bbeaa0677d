//! TLS with the semantics of libpq's sslmode, on rustls.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256, Sha384, Sha512};
use tokio_rustls::TlsConnector;

use super::pem::Pem;
use crate::error::{Context, Error, Result};

/// Whether to encrypt, and how far to verify the server, as in libpq.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SslMode {
    /// No TLS.
    Disable,
    /// TLS without verification of the server where it supports TLS, otherwise none.
    #[default]
    Prefer,
    /// TLS. The server is verified as with [`SslMode::VerifyCa`] if root certificates are given, otherwise not at all.
    Require,
    /// TLS, with a server certificate that one of the root certificates has signed.
    VerifyCa,
    /// As [`SslMode::VerifyCa`], and the certificate must name the host.
    VerifyFull,
}

/// The settings of TLS.
#[derive(Clone)]
pub(crate) struct TlsParams {
    /// Whether to encrypt, and how far to verify the server.
    pub(crate) sslmode: SslMode,
    /// Root certificates, or `system`; if none, the system's.
    pub(crate) sslrootcert: Option<Pem>,
    /// The client's certificate.
    pub(crate) sslcert: Option<Pem>,
    /// The client's private key.
    pub(crate) sslkey: Option<Pem>,
}

/// Reads the certificates and returns the connector for these settings; `None` if they rule TLS out.
pub(crate) fn connector(params: &TlsParams) -> Result<Option<TlsConnector>> {
    if params.sslmode == SslMode::Disable {
        return Ok(None);
    }
    let provider = Arc::new(ring::default_provider());
    let trust = Trust::new(params)?;
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .context(|| "cannot set up TLS".to_owned())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { trust, provider }));
    let config = match (&params.sslcert, &params.sslkey) {
        (None, None) => builder.with_no_client_auth(),
        (Some(certificate), Some(key)) => {
            let key = PrivateKeyDer::from_pem_slice(&key.read("sslkey")?).map_err(|error| {
                Error::usage("sslkey holds no private key in PEM format").source(error).hint("it must not be encrypted")
            })?;
            builder
                .with_client_auth_cert(certificate.certificates("sslcert")?, key)
                .map_err(|error| Error::usage("sslcert and sslkey cannot be used").source(error))?
        }
        _ => return Err(Error::usage("sslcert and sslkey go together: one of them is missing")),
    };
    Ok(Some(TlsConnector::from(Arc::new(config))))
}

/// Which server certificates are accepted.
#[derive(Debug)]
enum Trust {
    Anyone,
    Signed {
        roots: RootCertStore,
        /// The root certificates as they were given. A server that presents one of them itself, as self-signed ones
        /// do, is accepted: webpki alone would refuse an authority's certificate there.
        given: Vec<CertificateDer<'static>>,
        host_too: bool,
    },
}

impl Trust {
    fn new(params: &TlsParams) -> Result<Trust> {
        let given = match (params.sslmode, &params.sslrootcert) {
            (SslMode::Disable | SslMode::Prefer, _) | (SslMode::Require, None) => return Ok(Trust::Anyone),
            (_, Some(pem)) if !pem.is_system() => pem.certificates("sslrootcert")?,
            _ => return Trust::system(params),
        };
        let mut roots = RootCertStore::empty();
        for certificate in &given {
            // The server may still present one that webpki cannot read.
            if let Err(error) = roots.add(certificate.clone()) {
                tracing::debug!("a certificate in sslrootcert cannot serve as an authority: {error}");
            }
        }
        Ok(Trust::Signed { roots, given, host_too: params.sslmode == SslMode::VerifyFull })
    }

    /// Trusts the root certificates of the operating system. Anybody can have a certificate that a public authority
    /// signed, so that `sslrootcert` = `system` implies, as in libpq, that the host name is verified.
    fn system(params: &TlsParams) -> Result<Trust> {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let error = Error::usage("the system has no root certificates to verify the server with");
            let error = error.hint("set `sslrootcert`");
            return Err(match found.errors.into_iter().next() {
                Some(cause) => error.source(cause),
                None => error,
            });
        }
        let host_too = params.sslmode == SslMode::VerifyFull || params.sslrootcert.is_some();
        Ok(Trust::Signed { roots, given: Vec::new(), host_too })
    }
}

#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    /// Returns whether the handshake's signature is not verified. Even where any server is accepted, SCRAM's channel
    /// binding relies on the server having the private key of its certificate; an exception is an X.509 v1 certificate,
    /// which webpki cannot read.
    fn skips_signature(&self, certificate: &CertificateDer<'_>) -> bool {
        matches!(self.trust, Trust::Anyone) && ParsedCertificate::try_from(certificate).is_err()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Trust::Signed { roots, given, host_too } = &self.trust {
            let parsed = ParsedCertificate::try_from(certificate)?;
            if !given.contains(certificate) {
                let algorithms = self.provider.signature_verification_algorithms.all;
                verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms)?;
            }
            if *host_too {
                verify_server_name(&parsed, host)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if self.skips_signature(certificate) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if self.skips_signature(certificate) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Returns the channel binding `tls-server-end-point` (RFC 5929): the certificate, hashed with the algorithm of its
/// signature, or SHA-256 in place of MD5 and SHA-1. `None` for signatures that have no such hash (Ed25519) or hide it
/// in parameters (RSA-PSS).
pub(crate) fn end_point_hash(certificate: &[u8]) -> Option<Vec<u8>> {
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04];
    let oid = signature_algorithm(certificate)?;
    let sha = match (oid.strip_prefix(RSA), oid.strip_prefix(ECDSA)) {
        (Some([4 | 5 | 11]), _) | (_, Some([1] | [3, 2])) => Sha256::digest(certificate).to_vec(),
        (Some([12]), _) | (_, Some([3, 3])) => Sha384::digest(certificate).to_vec(),
        (Some([13]), _) | (_, Some([3, 4])) => Sha512::digest(certificate).to_vec(),
        _ => return None,
    };
    Some(sha)
}

/// Returns the OID of the signature algorithm:
/// `Certificate ::= SEQUENCE { tbsCertificate SEQUENCE, signatureAlgorithm SEQUENCE { algorithm OID, … }, … }`
fn signature_algorithm(certificate: &[u8]) -> Option<&[u8]> {
    const SEQUENCE: u8 = 0x30;
    const OID: u8 = 0x06;
    let (body, _) = der(certificate, SEQUENCE)?;
    let (_, rest) = der(body, SEQUENCE)?;
    let (algorithm, _) = der(rest, SEQUENCE)?;
    Some(der(algorithm, OID)?.0)
}

/// Splits off the DER element at the start of `bytes`, which must have this tag; returns its content and what follows.
fn der(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, &digit| length << 8 | usize::from(digit)), rest)
        }
        _ => return None,
    };
    if found == tag { rest.split_at_checked(length) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate cut down to what [`end_point_hash`] looks at.
    fn certificate(oid: &[u8]) -> Vec<u8> {
        let mut algorithm = vec![0x30, oid.len() as u8 + 2, 0x06, oid.len() as u8];
        algorithm.extend(oid);
        let mut body = vec![0x30, 0x82, 0x01, 0x00];
        body.extend([0; 256]);
        body.extend(algorithm);
        let mut whole = vec![0x30, 0x82, (body.len() >> 8) as u8, body.len() as u8];
        whole.extend(body);
        whole
    }

    #[test]
    fn the_binding_follows_the_signature_algorithm() {
        let rsa = |last| certificate(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, last]);
        let ecdsa = |last: &[u8]| certificate(&[&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04], last].concat());
        let length = |certificate: Vec<u8>| end_point_hash(&certificate).map(|hash| hash.len());
        assert_eq!(
            [4, 5, 11, 12, 13, 10].map(|last| length(rsa(last))),
            [32, 32, 32, 48, 64, 0].map(|n| (n > 0).then_some(n))
        );
        assert_eq!(length(ecdsa(&[1])), Some(32));
        assert_eq!([2, 3, 4].map(|last| length(ecdsa(&[3, last]))), [Some(32), Some(48), Some(64)]);
        assert_eq!(length(certificate(&[0x2b, 0x65, 0x70])), None);
    }

    #[test]
    fn no_certificate_panics() {
        let whole = certificate(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 3, 2]);
        for end in 0..whole.len() {
            assert_eq!(end_point_hash(&whole[..end]), None);
        }
        assert_eq!(end_point_hash(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0]), None);
        assert_eq!(end_point_hash(&[0x30, 0x80, 0, 0]), None);
    }
}
