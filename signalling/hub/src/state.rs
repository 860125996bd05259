//! What outlives the process: certificates and the group's secret.
//!
//! | file | what |
//! |---|---|
//! | `ca.crt`, `ca.key` | root that standard clients may be told to trust |
//! | `leaf.crt`, `leaf.key` | what the hub shows; tickets pin it |
//! | `domain` | the domain that all of it is for |
//! | `secret` | 32 bytes in hexadecimal, which tickets carry; written last of those above |
//! | `relay.key` | 32 bytes in hexadecimal that never leave the hub |
//! | `accounts.toml` | named accounts, see [`crate::accounts`] |

use crate::error::HubError;
use crate::files;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const RELAY_KEY: &str = "relay.key";
/// Pinned certificates do not expire by surprise.
const LIFE: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// For clients whose clock is behind.
const CLOCK_SLACK: Duration = Duration::from_secs(30 * 24 * 3600);

/// The contents of a state directory.
pub(crate) struct State {
    /// What accounts are derived from; every ticket has it.
    pub(crate) secret: [u8; 32],
    /// What relay credentials are derived from. Members must not make them, for they would choose
    /// whose quota they use and when they end.
    pub(crate) relay_key: [u8; 32],
    leaf: CertificateDer<'static>,
    ca: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl State {
    /// Reads the state, or makes it on the first start.
    pub(crate) fn open(path: &Path, domain: &str) -> Result<Self, HubError> {
        files::make_directory(path)?;
        if files::read(&path.join("secret"))?.is_none() {
            make(path, domain)?;
        }
        let found = String::from_utf8_lossy(&required(path, "domain")?).trim().to_owned();
        if found != domain {
            let (path, wanted) = (path.to_owned(), domain.to_owned());
            return Err(HubError::OtherDomain { path, found, wanted });
        }
        if files::read(&path.join(RELAY_KEY))?.is_none() {
            files::write(&path.join(RELAY_KEY), random_line()?.as_bytes())?;
        }
        Ok(Self {
            secret: secret(path)?,
            relay_key: hexadecimal(path, RELAY_KEY)?,
            leaf: certificate(path, "leaf.crt")?,
            ca: certificate(path, "ca.crt")?,
            key: key(path)?,
        })
    }

    /// SHA-256 of the leaf certificate in DER.
    pub(crate) fn leaf_sha256(&self) -> [u8; 32] {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest(&SHA256, &self.leaf).as_ref());
        sha256
    }

    /// The server's side of TLS.
    pub(crate) fn tls(&self) -> Result<Arc<ServerConfig>, HubError> {
        let mut config = ServerConfig::builder_with_provider(provider::default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(cryptography)?
            .with_no_client_auth()
            .with_single_cert(vec![self.leaf.clone(), self.ca.clone()], self.key.clone_key())
            .map_err(cryptography)?;
        config.alpn_protocols = vec![b"xmpp-client".to_vec()];
        Ok(Arc::new(config))
    }
}

/// Reads the secret of a state directory that is there already.
pub(crate) fn secret(path: &Path) -> Result<[u8; 32], HubError> {
    hexadecimal(path, "secret")
}

fn hexadecimal(path: &Path, name: &str) -> Result<[u8; 32], HubError> {
    let text = required_secret(path, name)?;
    let text = String::from_utf8_lossy(&text);
    let bytes = from_hex(text.trim());
    bytes.ok_or_else(|| damaged(path, name, "it is not 64 hexadecimal digits"))
}

fn random_line() -> Result<String, HubError> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(cryptography)?;
    Ok(format!("{}\n", to_hex(&bytes)))
}

fn make(path: &Path, domain: &str) -> Result<(), HubError> {
    let ca_key = KeyPair::generate().map_err(cryptography)?;
    let ca = root(domain)?;
    let ca_certificate = ca.self_signed(&ca_key).map_err(cryptography)?;
    let leaf_key = KeyPair::generate().map_err(cryptography)?;
    let issuer = Issuer::new(ca, &ca_key);
    let leaf = leaf(domain)?.signed_by(&leaf_key, &issuer).map_err(cryptography)?;
    let write = |name: &str, text: String| files::write(&path.join(name), text.as_bytes());
    write("ca.crt", ca_certificate.pem())?;
    write("ca.key", ca_key.serialize_pem())?;
    write("leaf.crt", leaf.pem())?;
    write("leaf.key", leaf_key.serialize_pem())?;
    write("domain", format!("{domain}\n"))?;
    write("secret", random_line()?)
}

fn root(domain: &str) -> Result<CertificateParams, HubError> {
    let mut params = dated(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, format!("IPOP hub of {domain}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn leaf(domain: &str) -> Result<CertificateParams, HubError> {
    let mut params = dated(vec![domain.to_owned(), crate::conference_of(domain)])?;
    params.distinguished_name.push(DnType::CommonName, domain);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn dated(names: Vec<String>) -> Result<CertificateParams, HubError> {
    let mut params = CertificateParams::new(names).map_err(cryptography)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_SLACK).into();
    params.not_after = (now + LIFE).into();
    Ok(params)
}

fn certificate(path: &Path, name: &str) -> Result<CertificateDer<'static>, HubError> {
    CertificateDer::from_pem_slice(&required(path, name)?)
        .map_err(|error| damaged(path, name, &error.to_string()))
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, HubError> {
    PrivateKeyDer::from_pem_slice(&required_secret(path, "leaf.key")?)
        .map_err(|error| damaged(path, "leaf.key", &error.to_string()))
}

fn required(path: &Path, name: &str) -> Result<Vec<u8>, HubError> {
    files::read(&path.join(name))?.ok_or_else(|| damaged(path, name, "it is missing"))
}

fn required_secret(path: &Path, name: &str) -> Result<Vec<u8>, HubError> {
    files::read_secret(&path.join(name))?.ok_or_else(|| damaged(path, name, "it is missing"))
}

fn damaged(path: &Path, name: &str, reason: &str) -> HubError {
    HubError::Damaged { path: path.join(name), reason: reason.to_owned() }
}

fn cryptography(error: impl fmt::Display) -> HubError {
    HubError::Cryptography(error.to_string())
}

/// Lower-case hexadecimal.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Exactly `N` bytes from hexadecimal.
pub(crate) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_second_start_finds_what_the_first_made() {
        let scratch = Scratch::new();
        let path = scratch.path().join("state");
        let first = State::open(&path, "hub.test").unwrap();
        let second = State::open(&path, "hub.test").unwrap();
        assert_eq!(first.secret, second.secret);
        assert_eq!(first.relay_key, second.relay_key);
        assert_ne!(first.relay_key, first.secret);
        assert_eq!(first.leaf_sha256(), second.leaf_sha256());
        first.tls().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        for entry in std::fs::read_dir(&path).unwrap() {
            assert_eq!(mode(&entry.unwrap().path()), 0o600);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let scratch = Scratch::new();
        let path = scratch.path();
        State::open(path, "hub.test").unwrap();
        let text = State::open(path, "other.test").err().unwrap().to_string();
        assert!(text.contains("--domain hub.test"), "{text}");
        for secret in ["secret", "relay.key", "leaf.key"] {
            let secret = path.join(secret);
            std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o640)).unwrap();
            let text = State::open(path, "hub.test").err().unwrap().to_string();
            let remedy = format!("chmod 600 {}", secret.display());
            assert!(text.contains("0640") && text.contains(&remedy), "{text}");
            std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
        }
        std::fs::write(path.join("leaf.crt"), "nonsense").unwrap();
        let text = State::open(path, "hub.test").err().unwrap().to_string();
        assert!(text.contains("leaf.crt is damaged"), "{text}");
        std::fs::write(path.join("file"), "").unwrap();
        let text = State::open(&path.join("file/below"), "hub.test").err().unwrap().to_string();
        assert!(text.contains("--state"), "{text}");
    }
}
