//! TLS of both listeners, and the system's CAs.
//!
//! Owns the choices: the API has TLS 1.2 and 1.3 and speaks HTTP/1.1; the uplink has what its
//! contract says (`business::tls`). Refuses files that can't be used, with the remedy. A reload
//! reads them anew. Knows no sockets.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, pem::PemObject as _},
    sign::SingleCertAndKey,
};
use sharelinkd::config::{Wrong, certificates, file};
use tokio_rustls::TlsAcceptor;

/// The bundle of CAs that Debian's package `ca-certificates` installs, and other systems have too.
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The maximum size of the bundle and of a PEM file, in bytes.
const BUNDLE_SIZE_MAX: u64 = 4 << 20;
const FILE_SIZE_MAX: u64 = 64 << 10;

/// TLS of the API.
///
/// # Errors
/// What is wrong with the files, and the remedy.
pub fn api(certificate: Option<&(PathBuf, PathBuf)>) -> Result<Option<TlsAcceptor>, Wrong> {
    let Some((chain, key)) = certificate else { return Ok(None) };
    let pair = certificates::load(chain, key)?;
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| (error.to_string(), "this is a bug".to_owned()))?;
    let resolver = SingleCertAndKey::from(rustls::sign::CertifiedKey::clone(&pair.certified));
    let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

/// TLS of the uplink; with a CA, each relay must show a certificate of it.
///
/// # Errors
/// What is wrong with the files, and the remedy.
pub fn uplink(certificate: Option<&(PathBuf, PathBuf)>, ca_file: Option<&Path>) -> Result<Option<TlsAcceptor>, Wrong> {
    let Some((chain, key)) = certificate else { return Ok(None) };
    // For what it says of a pair that doesn't match.
    certificates::load(chain, key)?;
    let clients = ca_file.map(read).transpose()?;
    let config = business::tls::config(&read(chain)?, &read(key)?, clients.as_deref());
    let config =
        config.map_err(|error| (format!("[uplink.tls] can't be used: {error}"), "check its files".to_owned()))?;
    Ok(Some(TlsAcceptor::from(config)))
}

fn read(path: &Path) -> Result<Vec<u8>, Wrong> {
    file::read(path, FILE_SIZE_MAX).map_err(|cause| {
        let remedy = file::remedy(cause.kind(), "name a file that exists");
        (format!("{} can't be read: {cause}", path.display()), remedy.to_owned())
    })
}

/// The system's CAs. Those that can't be parsed are left out.
///
/// # Errors
/// There are none.
pub fn system_roots() -> Result<Arc<RootCertStore>, Wrong> {
    roots_of(Path::new(BUNDLE))
}

/// The same for a reload: where they can't be read now, those that the hub has.
///
/// # Errors
/// There are none, and it has none.
pub fn system_roots_or(known: Option<Arc<RootCertStore>>) -> Result<Arc<RootCertStore>, Wrong> {
    roots_or(Path::new(BUNDLE), known)
}

fn roots_or(bundle: &Path, known: Option<Arc<RootCertStore>>) -> Result<Arc<RootCertStore>, Wrong> {
    roots_of(bundle).or_else(|wrong| known.ok_or(wrong))
}

fn roots_of(bundle: &Path) -> Result<Arc<RootCertStore>, Wrong> {
    let remedy = || "install the system's CAs (Debian: the package ca-certificates), or set ca_file".to_owned();
    let shown = bundle.display();
    let bytes = file::read(bundle, BUNDLE_SIZE_MAX);
    let bytes = bytes.map_err(|cause| (format!("the system's CAs can't be read: {shown}: {cause}"), remedy()))?;
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_slice_iter(&bytes).flatten();
    roots.add_parsable_certificates(certificates);
    if roots.is_empty() { Err((format!("{shown} has no certificate"), remedy())) } else { Ok(Arc::new(roots)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_keeps_the_cas_where_they_cannot_be_read() {
        let nowhere = Path::new("/nowhere/ca-certificates.crt");
        let known = Arc::new(RootCertStore::empty());
        let kept = roots_or(nowhere, Some(Arc::clone(&known))).unwrap();
        assert!(Arc::ptr_eq(&kept, &known));
        let (what, _) = roots_or(nowhere, None).unwrap_err();
        assert!(what.starts_with("the system's CAs can't be read: /nowhere/ca-certificates.crt: "), "{what}");
    }
}
