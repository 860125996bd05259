//! Whom TLS believes: the system's roots, or those of a file.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, ClientConnection, RootCertStore};

use super::BridgeTls;

/// The client's end of a connection that is about to be made. The text says what is wrong with the
/// settings.
pub(super) fn client(tls: &BridgeTls) -> Result<ClientConnection, String> {
    let name = ServerName::try_from(tls.name.clone())
        .map_err(|_| format!("`{}` cannot be the name in a certificate", tls.name))?;
    let roots = match &tls.ca_file {
        Some(path) => of_file(path)?,
        None => of_system()?,
    };
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    ClientConnection::new(Arc::new(config), name).map_err(|error| error.to_string())
}

fn of_system() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let (added, _) =
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 {
        let text = "this system has no root certificates: install the package ca-certificates, or \
                    name a file with the server's root (nat.ca_file)";
        return Err(text.to_owned());
    }
    Ok(roots)
}

fn of_file(path: &Path) -> Result<RootCertStore, String> {
    let refused = |error: String| format!("nat.ca_file {}: {error}", path.display());
    let found = CertificateDer::pem_file_iter(path).map_err(|error| refused(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for root in found {
        let root = root.map_err(|error| refused(error.to_string()))?;
        roots.add(root).map_err(|error| refused(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(refused("it holds no certificate".to_owned()));
    }
    Ok(roots)
}

/// What a failed handshake says to people.
pub(super) fn failure(tls: &BridgeTls, error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(reason)) = inner else {
        return format!("TLS with {} failed: {error}", tls.name);
    };
    let fault = match reason {
        CertificateError::UnknownIssuer => "no known root vouches for it".to_owned(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another name".to_owned()
        }
        other => other.to_string(),
    };
    format!(
        "the certificate of {} is not trusted: {fault}. Name its root in the configuration \
         (nat.ca_file) if it is the right one",
        tls.name
    )
}
