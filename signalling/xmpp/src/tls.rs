//! TLS to the server, and which certificates are believed.

use crate::config::Trust;
use crate::failure::Failure;
use crate::prompt::Prompt;
use aws_lc_rs::digest::{SHA256, digest};
use ipop_signal::FatalCause;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use std::io;
use std::sync::Arc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// RFC 9266 section 2.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// Makes the client side of TLS; `alpn` for connections that are TLS from the start (XEP-0368).
pub(crate) fn connector(trust: &Trust, alpn: bool) -> Result<TlsConnector, Failure> {
    let provider = Arc::new(provider::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::fatal(FatalCause::Configuration, error.to_string()))?;
    let mut config = match trust {
        Trust::System => builder.with_root_certificates(system_roots()?),
        Trust::Roots(roots) => builder.with_root_certificates(given_roots(roots)?),
        Trust::Certificate(sha256) => {
            let pinned = PinnedCertificate { sha256: *sha256, provider };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(pinned))
        }
    }
    .with_no_client_auth();
    if alpn {
        config.alpn_protocols = vec![b"xmpp-client".to_vec()];
    }
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Shakes hands; the certificate must be for the account's domain, wherever the server is.
pub(crate) async fn secure(
    connector: &TlsConnector,
    domain: &str,
    tcp: Prompt,
) -> Result<TlsStream<Prompt>, Failure> {
    let name = ServerName::try_from(domain.to_owned()).map_err(|_| {
        let text = format!("{domain:?} cannot be the name of a server: check the account");
        Failure::fatal(FatalCause::Configuration, text)
    })?;
    connector.connect(name, tcp).await.map_err(|error| failure_of(domain, &error))
}

/// What a login can be tied to on this connection: 32 bytes that no other connection has. Older
/// versions of TLS do not promise that, so there is none.
pub(crate) fn channel_binding(tls: &TlsStream<Prompt>) -> Option<[u8; 32]> {
    let (_, connection) = tls.get_ref();
    if connection.protocol_version() != Some(rustls::ProtocolVersion::TLSv1_3) {
        return None;
    }
    connection.export_keying_material([0; 32], EXPORTER_LABEL, Some(&[])).ok()
}

fn system_roots() -> Result<RootCertStore, Failure> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    let (added, _) = store.add_parsable_certificates(found.certs);
    if added == 0 {
        let text = "this system has no root certificates: install the package ca-certificates, \
                    or name the server's root certificate in the configuration";
        return Err(Failure::fatal(FatalCause::Certificate, text));
    }
    Ok(store)
}

fn given_roots(roots: &[CertificateDer<'static>]) -> Result<RootCertStore, Failure> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).map_err(|error| {
            let text = format!("a root certificate of the configuration is unusable: {error}");
            Failure::fatal(FatalCause::Configuration, text)
        })?;
    }
    Ok(store)
}

fn failure_of(domain: &str, error: &io::Error) -> Failure {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(reason)) => {
            let text = format!(
                "the certificate of {domain} is not trusted: {}. Name its root certificate in the \
                 configuration (xmpp.ca_file) if it is the right one; otherwise somebody may be \
                 in between",
                certificate_fault(reason)
            );
            Failure::fatal(FatalCause::Certificate, text)
        }
        _ => Failure::retry(format!("TLS with {domain} failed: {error}")),
    }
}

fn certificate_fault(reason: &CertificateError) -> String {
    match reason {
        CertificateError::UnknownIssuer => "no known root vouches for it".to_owned(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another name".to_owned()
        }
        CertificateError::ApplicationVerificationFailure => {
            "its SHA-256 is not the one in the configuration".to_owned()
        }
        other => other.to_string(),
    }
}

/// Believes exactly one certificate; that its key is in use is checked all the same.
#[derive(Debug)]
struct PinnedCertificate {
    sha256: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if digest(&SHA256, end_entity).as_ref() == self.sha256 {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
