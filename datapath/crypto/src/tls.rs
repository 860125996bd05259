//! TLS 1.3 as rustls does it, behind the few calls that the handshake machine makes.
//!
//! rustls' QUIC interface hands out handshake messages as bytes per level and leaves their
//! transport to us. Both ends present a raw public key (RFC 7250), and each accepts exactly one.
//! Lane keys come from the exporter only: rustls hands a server its application keys *before* the
//! client has authenticated itself, so those are dropped here; the exporter refuses until the
//! handshake is complete.

use std::sync::Arc;

use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::quic::{self, KeyChange, Keys};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    PeerMisbehaved, ServerConfig, SignatureScheme,
};

use crate::chain::ChainSecret;
use crate::identity::{Fingerprint, Identity};
use crate::{HandshakeError, OfferError};

/// Which keys protect a piece of the handshake (RFC 9001 section 4): bytes of different levels
/// never mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// ClientHello and ServerHello.
    Initial = 0,
    /// Everything behind them.
    Handshake = 1,
}

/// Which end of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Speaks first.
    Client,
    /// Answers.
    Server,
}

/// Label of the exporter (RFC 8446 section 7.5); the context is {version u16, lane u8, direction
/// u8: 0 client to server, 1 server to client}.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-ipop-lane";

const ALPN: &[u8] = b"ipop/1";

/// One TLS connection in the making.
pub(crate) struct Tls {
    connection: quic::Connection,
    write_level: Level,
}

/// What [`Tls::write`] found to send.
pub(crate) enum Written {
    Bytes(Level, Vec<u8>),
    HandshakeKeys(Box<Keys>),
}

impl Tls {
    pub(crate) fn new(
        role: Role,
        identity: &Identity,
        peer: Fingerprint,
        offer: Vec<u8>,
    ) -> Result<Self, Error> {
        let connection = match role {
            Role::Client => client(identity, peer, offer)?.into(),
            Role::Server => server(identity, peer, offer)?.into(),
        };
        Ok(Tls { connection, write_level: Level::Initial })
    }

    /// Feeds bytes of one level.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<(), HandshakeError> {
        self.connection.read_hs(bytes).map_err(|error| match error {
            Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure) => {
                HandshakeError::WrongFingerprint
            }
            Error::PeerMisbehaved(PeerMisbehaved::KeyEpochWithPendingFragment) => {
                HandshakeError::LevelsMixed
            }
            other => HandshakeError::Tls(other.to_string()),
        })
    }

    /// Collects everything there is to send, with the change of keys where it belongs.
    pub(crate) fn write(&mut self) -> Vec<Written> {
        let mut all = Vec::new();
        loop {
            let mut bytes = Vec::new();
            let change = self.connection.write_hs(&mut bytes);
            let is_empty = bytes.is_empty();
            if !is_empty {
                all.push(Written::Bytes(self.write_level, bytes));
            }
            match change {
                Some(KeyChange::Handshake { keys }) => {
                    self.write_level = Level::Handshake;
                    all.push(Written::HandshakeKeys(Box::new(keys)));
                }
                // Not used: see the head of this file.
                Some(KeyChange::OneRtt { .. }) => {}
                None if is_empty => return all,
                None => {}
            }
        }
    }

    /// The code of the alert (RFC 8446 section 6) that belongs to the last error of `read`.
    pub(crate) fn alert(&self) -> Option<u8> {
        self.connection.alert().map(u8::from)
    }

    pub(crate) fn is_complete(&self) -> bool {
        !self.connection.is_handshaking()
    }

    /// The peer's offer. Only to be trusted once the handshake is complete.
    pub(crate) fn peer_offer(&self) -> Result<&[u8], OfferError> {
        self.connection.quic_transport_parameters().ok_or(OfferError::Length)
    }

    /// The chain secret of one lane for what `sender` sends.
    pub(crate) fn export(
        &self,
        version: u16,
        lane: u8,
        sender: Role,
    ) -> Result<ChainSecret, HandshakeError> {
        let [high, low] = version.to_be_bytes();
        let context = [high, low, lane, sender as u8];
        ChainSecret::fill(|secret| {
            self.connection
                .export_keying_material(secret, EXPORTER_LABEL, Some(&context))
                .map(drop)
                .map_err(|error| HandshakeError::Tls(error.to_string()))
        })
    }
}

fn client(
    identity: &Identity,
    peer: Fingerprint,
    offer: Vec<u8>,
) -> Result<quic::ClientConnection, Error> {
    let provider = Arc::new(crypto_provider());
    let verifier = Arc::new(Pinned { peer, provider: provider.clone() });
    let resolver = AlwaysResolvesClientRawPublicKeys::new(identity.certified_key());
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(NoClock))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(resolver));
    // A resumed session would pass without its verifier being asked.
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_sni = false;
    config.alpn_protocols = vec![ALPN.to_vec()];
    let name = ServerName::try_from("ipop.invalid").expect("a valid DNS name");
    quic::ClientConnection::new(Arc::new(config), quic::Version::V1, name, offer)
}

fn server(
    identity: &Identity,
    peer: Fingerprint,
    offer: Vec<u8>,
) -> Result<quic::ServerConnection, Error> {
    let provider = Arc::new(crypto_provider());
    let verifier = Arc::new(Pinned { peer, provider: provider.clone() });
    let resolver = AlwaysResolvesServerRawPublicKeys::new(identity.certified_key());
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(NoClock))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(resolver));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![ALPN.to_vec()];
    quic::ServerConnection::new(Arc::new(config), quic::Version::V1, offer)
}

/// X25519MLKEM768 first, X25519 for a peer built without it; TLS 1.3 suites only.
fn crypto_provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            provider::cipher_suite::TLS13_AES_256_GCM_SHA384,
            provider::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            provider::cipher_suite::TLS13_AES_128_GCM_SHA256,
        ],
        kx_groups: vec![provider::kx_group::X25519MLKEM768, provider::kx_group::X25519],
        ..provider::default_provider()
    }
}

/// Raw public keys have no dates, so no clock is asked.
#[derive(Debug)]
struct NoClock;

impl TimeProvider for NoClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::ZERO))
    }
}

/// Accepts exactly one public key.
#[derive(Debug)]
struct Pinned {
    peer: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn check(&self, spki: &[u8], others: &[CertificateDer<'_>]) -> Result<(), Error> {
        if others.is_empty() && Fingerprint::of_spki(spki) == self.peer {
            Ok(())
        } else {
            Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
        }
    }

    fn check_signature(
        &self,
        message: &[u8],
        spki: &[u8],
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let spki = SubjectPublicKeyInfoDer::from(spki);
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &spki, signature, algorithms)
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
