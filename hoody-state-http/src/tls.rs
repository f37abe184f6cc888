//! TLS for addresses other than loopback: with a given certificate, or a self-signed one that peers pin.

use hoody_state::error::IoContext;
use hoody_state::{Code, Error, Result};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
pub use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate chain and its key, in PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The chain, with the certificate of the server first.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

impl Identity {
    /// The self-signed certificate of a server.
    #[must_use]
    pub fn own(data: &Path) -> Self {
        let dir = data.join("tls");
        Identity { certificate: dir.join("certificate.pem"), key: dir.join("key.pem") }
    }

    /// Creates the certificate for these names and addresses, unless it exists. Returns whether it was created. Only root can read the key.
    ///
    /// # Errors
    /// `tls_names` for names that no certificate can have; those of the file system.
    pub fn make(&self, names: &[String]) -> Result<bool> {
        if self.certificate.exists() && self.key.exists() {
            return Ok(false);
        }
        let bad = |e: rcgen::Error| Error::new(Code::TlsNames, format!("no certificate can be created for {names:?}: {e}"));
        let made = rcgen::generate_simple_self_signed(names.to_vec()).map_err(bad)?;
        let dir = self.key.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir).io(|| format!("make {}", dir.display()))?;
        // The key first: a certificate without a key would look complete.
        for (path, text, mode) in [(&self.key, made.signing_key.serialize_pem(), 0o600), (&self.certificate, made.cert.pem(), 0o644)] {
            let write = || -> std::io::Result<()> {
                let mut f = std::fs::File::options().write(true).create(true).truncate(true).mode(mode).open(path)?;
                f.write_all(text.as_bytes())?;
                f.sync_all()
            };
            write().io(|| format!("write {}", path.display()))?;
        }
        Ok(true)
    }

    /// The certificate chain in PEM, for peers.
    ///
    /// # Errors
    /// Those of the file.
    pub fn pem(&self) -> Result<String> {
        std::fs::read_to_string(&self.certificate).io(|| format!("read {}", self.certificate.display()))
    }

    /// An acceptor that uses it.
    ///
    /// # Errors
    /// `tls_unusable` if the files are not a chain and a key, or do not match.
    pub fn acceptor(&self) -> Result<TlsAcceptor> {
        let unusable = |what: &Path, e: &dyn std::fmt::Display| Error::new(Code::TlsUnusable, format!("{} cannot be used for TLS: {e}", what.display()));
        let chain: std::result::Result<Vec<_>, _> = CertificateDer::pem_file_iter(&self.certificate).map_err(|e| unusable(&self.certificate, &e))?.collect();
        let chain = chain.map_err(|e| unusable(&self.certificate, &e))?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|e| unusable(&self.key, &e))?;
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|b| b.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|e| unusable(&self.certificate, &e))?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// The names and addresses at which a server that listens on `address` can probably be reached.
#[must_use]
pub fn likely_names(address: SocketAddr, host_name: Option<String>) -> Vec<String> {
    let mut names: Vec<String> = host_name.into_iter().filter(|n| !n.is_empty()).collect();
    if !address.ip().is_unspecified() {
        names.push(address.ip().to_string());
    }
    names.extend(["localhost".to_owned(), "127.0.0.1".to_owned()]);
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_certificate_is_made_once_and_its_key_is_roots() {
        let dir = tempfile::tempdir().unwrap();
        let own = Identity::own(dir.path());
        let names = likely_names("10.1.2.3:1".parse().unwrap(), Some("node".into()));
        assert_eq!(names, ["node", "10.1.2.3", "localhost", "127.0.0.1"]);
        assert!(own.make(&names).unwrap());
        let pem = own.pem().unwrap();
        assert!(!own.make(&names).unwrap());
        assert_eq!(own.pem().unwrap(), pem);
        assert_eq!(own.key.metadata().unwrap().mode() & 0o777, 0o600);
        own.acceptor().unwrap();
        std::fs::write(&own.key, "rubbish").unwrap();
        assert_eq!(own.acceptor().err().unwrap().code(), Code::TlsUnusable);
    }
}
