//! The TLS of a business server: from PEM texts to what
//! [`serve_tls`](crate::serve::Server::serve_tls) takes.
//!
//! Owns the choices that the uplink's contract makes: TLS 1.3 alone, and a client certificate that
//! is required where a CA for it is given. Refuses texts without a certificate or key, and a key
//! that doesn't match. Reads no files.

use std::io;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ServerConfig, WebPkiClientVerifier};
use rustls::version::TLS13;

/// The configuration of a server with this certificate chain and key (PEM). With the certificates
/// of a CA (PEM), each relay must show a certificate that is from it.
///
/// # Errors
/// What is wrong with the texts.
pub fn config(chain: &[u8], key: &[u8], clients: Option<&[u8]>) -> io::Result<Arc<ServerConfig>> {
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .map_err(io::Error::other)?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(clients)? {
                roots.add(certificate).map_err(io::Error::other)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().map_err(io::Error::other)?)
        }
    };
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| wrong(&format!("the key: {error}")))?;
    let mut config = builder.with_single_cert(certificates(chain)?, key).map_err(io::Error::other)?;
    // A relay connects once, for days.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn certificates(text: &[u8]) -> io::Result<Vec<CertificateDer<'static>>> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let certificates = certificates.map_err(|error| wrong(&format!("a certificate: {error}")))?;
    if certificates.is_empty() { Err(wrong("no certificate in PEM")) } else { Ok(certificates) }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
