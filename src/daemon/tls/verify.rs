//! Whether a business server is the right one: its certificate and its key, as rustls asks.
//!
//! Owns the two ways of trust, a CA and pins, which must hold both where both are configured, and
//! the floor of the clock: a box without a battery starts in 1970, and must not be locked out by
//! that. Signatures, the handshake's too, are verified by rustls's own functions. With pins
//! alone, names and dates don't count: the key is the identity. Doesn't know connections.

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};
use sha2::{Digest as _, Sha256};

use crate::clock::SOURCE_S;
use crate::config::Pin;

/// Certificates of a chain that may each begin later than the floor; more are refused as not valid
/// yet.
const CHAIN_MAX: usize = 8;

/// The public key of a certificate, as a pin names it.
///
/// # Errors
/// The certificate can't be parsed.
pub fn pin_of(certificate: &CertificateDer<'_>) -> Result<Pin, Error> {
    let key = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
    Ok(Pin(Sha256::digest(&key).into()))
}

/// The server has another key than those that are pinned.
#[derive(Debug)]
pub struct OtherKey(pub Pin);

/// The handshake is not signed with the key of the certificate.
#[derive(Debug)]
pub struct NotItsKey;

impl fmt::Display for OtherKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its key has the pin {}, which is not in uplink.tls.pin", self.0)
    }
}

impl fmt::Display for NotItsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it does not have the key of its certificate")
    }
}

impl std::error::Error for OtherKey {}
impl std::error::Error for NotItsKey {}

/// Verifies one server, in one handshake.
#[derive(Debug)]
pub struct Verifier {
    /// The CA, if there is one.
    roots: Option<RootCertStore>,
    /// Empty: any key.
    pins: Vec<Pin>,
    algorithms: WebPkiSupportedAlgorithms,
    /// The key that the server showed, whether or not it is the right one.
    shown: OnceLock<Pin>,
}

impl Verifier {
    /// Trusts what is from this CA, if there is one, and has one of these keys, if there are any.
    /// Without either it trusts nobody.
    pub const fn new(roots: Option<RootCertStore>, pins: Vec<Pin>, algorithms: WebPkiSupportedAlgorithms) -> Self {
        Self { roots, pins, algorithms, shown: OnceLock::new() }
    }

    /// The key that the server showed.
    pub fn shown(&self) -> Option<Pin> {
        self.shown.get().copied()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let pin = pin_of(end_entity)?;
        let _ = self.shown.set(pin);
        if self.roots.is_none() && self.pins.is_empty() {
            return Err(CertificateError::UnknownIssuer.into());
        }
        if !self.pins.is_empty() && !self.pins.contains(&pin) {
            return Err(other(OtherKey(pin)));
        }
        if let Some(roots) = &self.roots {
            let algorithms = self.algorithms.all;
            above_floor(now, |now| {
                verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)
            })?;
            verify_server_name(&certificate, name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // Never called: only TLS 1.3 is offered.
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms).map_err(|error| match error {
            Error::InvalidCertificate(CertificateError::BadSignature) => other(NotItsKey),
            error => error,
        })
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}

/// Verifies at the present time. While the clock is below the time of this program's source, it was
/// never set: then verifies at that time, and if a certificate begins later, at its beginning. So
/// `notBefore` is not enforced, and nothing is accepted that had expired when the program was made.
fn above_floor<T>(now: UnixTime, verify: impl Fn(UnixTime) -> Result<T, Error>) -> Result<T, Error> {
    if now.as_secs() >= SOURCE_S {
        return verify(now);
    }
    let mut at = SOURCE_S;
    for _ in 0..CHAIN_MAX {
        match verify(UnixTime::since_unix_epoch(std::time::Duration::from_secs(at))) {
            Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }))
                if not_before.as_secs() > at =>
            {
                at = not_before.as_secs();
            }
            result => return result,
        }
    }
    Err(CertificateError::NotValidYet.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Whether a chain of certificates, each valid from and to these seconds after the source's
    /// time, is accepted while the clock says so.
    fn accepts(clock: u64, chain: &[(i64, i64)]) -> bool {
        let second = |after: i64| SOURCE_S.checked_add_signed(after).unwrap();
        let time = |second: u64| UnixTime::since_unix_epoch(Duration::from_secs(second));
        let verify = |at: UnixTime| {
            for (from, to) in chain {
                let (not_before, not_after) = (time(second(*from)), time(second(*to)));
                if at < not_before {
                    return Err(CertificateError::NotValidYetContext { time: at, not_before }.into());
                }
                if at > not_after {
                    return Err(CertificateError::ExpiredContext { time: at, not_after }.into());
                }
            }
            Ok(())
        };
        above_floor(time(clock), verify).is_ok()
    }

    #[test]
    fn a_clock_that_was_never_set_neither_locks_out_nor_lets_in_what_had_expired() {
        const YEAR: i64 = 31_536_000;
        for never_set in [0, 1_000_000, SOURCE_S - 1] {
            assert!(accepts(never_set, &[(-YEAR, YEAR)]));
            assert!(accepts(never_set, &[(YEAR, 2 * YEAR)]), "newer than the program");
            assert!(accepts(never_set, &[(YEAR, 3 * YEAR), (2 * YEAR, 4 * YEAR)]));
            assert!(!accepts(never_set, &[(-2 * YEAR, -1)]), "expired before the program was made");
            assert!(!accepts(never_set, &[(YEAR, 2 * YEAR), (-YEAR, -1)]));
            assert!(!accepts(never_set, &[(2 * YEAR, 3 * YEAR), (-YEAR, YEAR)]), "never valid together");
            let stairs: Vec<_> = (1..=20).map(|from| (from, 10 * YEAR)).collect();
            assert!(!accepts(never_set, &stairs), "bounded");
        }
        // A clock that was set decides by itself.
        assert!(accepts(SOURCE_S, &[(-YEAR, YEAR)]) && accepts(SOURCE_S + 10, &[(0, 10)]));
        assert!(!accepts(SOURCE_S, &[(1, YEAR)]) && !accepts(SOURCE_S + 11, &[(0, 10)]));
    }
}
