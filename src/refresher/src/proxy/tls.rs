//! The certificates with which a proxy and this program authenticate each other.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::error::ProxyError;

/// The PEM files. They are read again for every connection, so that rotated ones take effect without a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The CA of the proxy's certificate.
    pub authority: PathBuf,
    /// The client certificate, followed by those between it and its CA.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl TlsFiles {
    /// Reads them.
    pub(super) fn read(&self) -> Result<ClientConfig, ProxyError> {
        let wrong = |path: &Path, problem: &dyn fmt::Display| ProxyError::TlsFile {
            path: path.into(),
            problem: problem.to_string(),
        };
        let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, ProxyError> {
            let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            match certificates {
                Ok(none) if none.is_empty() => Err(wrong(path, &"it has no certificate in PEM")),
                certificates => certificates.map_err(|error| wrong(path, &error)),
            }
        };
        let mut authorities = RootCertStore::empty();
        for certificate in certificates(&self.authority)? {
            authorities.add(certificate).map_err(|error| wrong(&self.authority, &error))?;
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| wrong(&self.key, &error))?;
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| ProxyError::Tls(error.to_string()))?
            .with_root_certificates(authorities)
            .with_client_auth_cert(certificates(&self.certificate)?, key)
            .map_err(|error| wrong(&self.certificate, &error))
    }
}
