//! Login with a user's private key.
//!
//! russh signs with keys of all kinds except RSA: the crate that it would use for that leaks the key through timing
//! (RUSTSEC-2023-0071). ring signs with RSA instead.

use std::sync::Arc;

use num_bigint::BigUint;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::{RSA_PKCS1_SHA512, RsaKeyPair};
use russh::client::{Handle, Handler};
use russh::keys::agent::AgentIdentity;
use russh::keys::ssh_key::Mpint;
use russh::keys::ssh_key::private::{KeypairData, RsaKeypair};
use russh::keys::ssh_key::public::RsaPublicKey;
use russh::keys::{Error as KeyError, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey, decode_secret_key};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

use super::params::TunnelParams;
use crate::error::{Error, Result};

/// The only RSA signature algorithm that is offered: servers of the last ten years support it.
const RSA_SIGNATURE: &str = "rsa-sha2-512";

/// A private key. Cheap to clone.
#[derive(Clone)]
pub(super) enum UserKey {
    Rsa(Arc<RsaKey>),
    Other(Arc<PrivateKey>),
}

impl UserKey {
    /// Reads and decrypts the key of the settings.
    pub(super) fn read(params: &TunnelParams) -> Result<UserKey> {
        let pem = String::from_utf8_lossy(&params.private_key.read("ssh_tunnel.private_key")?).into_owned();
        let unusable = |error| Error::usage("`ssh_tunnel.private_key` can't be used").source(error);
        match decode_secret_key(&pem, params.passphrase.as_deref()) {
            Ok(key) => match key.key_data() {
                KeypairData::Rsa(pair) => {
                    let pair = RsaKey::from_openssh(pair);
                    pair.map(|pair| UserKey::Rsa(Arc::new(pair))).ok_or_else(|| unusable(KeyError::CouldNotReadKey))
                }
                _ => Ok(UserKey::Other(Arc::new(key))),
            },
            Err(error) => match RsaKey::from_pem(&pem) {
                Some(pair) => Ok(UserKey::Rsa(Arc::new(pair))),
                None if matches!(error, KeyError::KeyIsEncrypted) => {
                    Err(unusable(error).hint("set `ssh_tunnel.private_key_passphrase`"))
                }
                None if params.passphrase.is_some() => {
                    Err(unusable(error).hint("is `ssh_tunnel.private_key_passphrase` right?"))
                }
                None => Err(unusable(error)),
            },
        }
    }

    /// Logs in; returns whether the server accepts this user and key.
    pub(super) async fn log_in<H: Handler>(&self, ssh: &mut Handle<H>, user: &str) -> Result<bool> {
        let answer = match self {
            UserKey::Rsa(key) => {
                let (public, mut signer) = (key.public.clone(), RsaSigner(Arc::clone(key)));
                ssh.authenticate_publickey_with(user, public, Some(HashAlg::Sha512), &mut signer).await?
            }
            UserKey::Other(key) => {
                ssh.authenticate_publickey(user, PrivateKeyWithHashAlg::new(Arc::clone(key), None)).await?
            }
        };
        Ok(answer.success())
    }
}

pub(super) struct RsaKey {
    pair: RsaKeyPair,
    public: PublicKey,
}

impl RsaKey {
    /// Reads an unencrypted key from PKCS #1 (`BEGIN RSA PRIVATE KEY`) or PKCS #8 (`BEGIN PRIVATE KEY`).
    fn from_pem(pem: &str) -> Option<RsaKey> {
        let pair = match PrivateKeyDer::from_pem_slice(pem.as_bytes()).ok()? {
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
            _ => return None,
        };
        RsaKey::new(pair.ok()?)
    }

    fn from_openssh(pair: &RsaKeypair) -> Option<RsaKey> {
        let (public, private) = (pair.public(), pair.private());
        let d = private.d().as_positive_bytes()?;
        let (p, q) = (private.p().as_positive_bytes()?, private.q().as_positive_bytes()?);
        // OpenSSH leaves these out.
        let exponent = |prime| (BigUint::from_bytes_be(d) % (BigUint::from_bytes_be(prime) - 1u8)).to_bytes_be();
        let pair = RsaKeyPair::from_components(&KeyPairComponents {
            public_key: PublicKeyComponents { n: public.n().as_positive_bytes()?, e: public.e().as_positive_bytes()? },
            d,
            p,
            q,
            dP: &exponent(p),
            dQ: &exponent(q),
            qInv: private.iqmp().as_positive_bytes()?,
        });
        RsaKey::new(pair.ok()?)
    }

    fn new(pair: RsaKeyPair) -> Option<RsaKey> {
        let PublicKeyComponents::<Vec<u8>> { n, e } = pair.public().into();
        let public = RsaPublicKey::new(Mpint::from_positive_bytes(&e), Mpint::from_positive_bytes(&n)).ok()?.into();
        Some(RsaKey { pair, public })
    }
}

struct RsaSigner(Arc<RsaKey>);

impl russh::Signer for RsaSigner {
    type Error = Error;

    /// Returns the data followed by the signature (RFC 4252, section 7).
    async fn auth_sign(&mut self, _: &AgentIdentity, _: Option<HashAlg>, mut data: Vec<u8>) -> Result<Vec<u8>> {
        let pair = &self.0.pair;
        let mut signature = vec![0; pair.public().modulus_len()];
        pair.sign(&RSA_PKCS1_SHA512, &SystemRandom::new(), &data, &mut signature)
            .map_err(|_| Error::run("the key of `ssh_tunnel.private_key` can't sign"))?;
        let length = |part: usize| u32::try_from(part).unwrap_or(u32::MAX).to_be_bytes();
        let name = RSA_SIGNATURE.as_bytes();
        data.extend(length(4 + name.len() + 4 + signature.len()));
        for part in [name, &signature] {
            data.extend(length(part.len()));
            data.extend(part);
        }
        Ok(data)
    }
}
