//! What an operator should know about a pair of files that can be served with.
//!
//! Owns the remarks on a pair, for `check` and for the log when a pair is taken: what its key
//! costs, what browsers miss in its chain, an end that is near, who else may read it. Refuses
//! nothing; `certificates.rs` does. Doesn't know other pairs: `config/tls.rs` compares names.

use std::path::Path;

use super::certificates::{Pair, exposed, kept, load, unreadable};
use super::values::Wrong;
use crate::certificate::{Nearness, Summary};
use crate::clock;
use board::IS_ARM32;
use tls::certificate::{Certificate, KeyKind};

/// What an RSA key costs. The factors are those of rustls and ring, without the system's part: 700
/// of 132 us (x86-64), 9.05 of 0.82 million instructions (64-bit ARM), 14.5 of 3.15 (32-bit ARM).
const RSA_COSTS: &str = if IS_ARM32 {
    "each full handshake costs 5 times the processor time of an ECDSA key; a processor of this kind is expected to do about 40 a second, and the pages of a full table return at that rate after a power cut"
} else {
    "each full handshake costs 5 (32-bit ARM, x86-64) to 11 times (64-bit ARM) the processor time of an ECDSA key"
};

/// What was found in a pair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Remarks, one line each.
    pub notes: Vec<String>,
    /// The DNS names in the server's own certificate, in its order.
    pub names: Vec<String>,
    /// Names, key and end in one line.
    pub about: String,
}

/// Loads a pair for its errors and its report alone, as a configuration is checked.
///
/// # Errors
/// As [`load`].
pub fn check(certificate_file: &Path, key_file: &Path) -> Result<Report, Wrong> {
    let pair = load(certificate_file, key_file)?;
    let mut report = report(&pair, certificate_file, clock::wall_s());
    report.notes.extend(unreadable(&[certificate_file, key_file]));
    report.notes.extend(exposed(key_file, true, &kept()));
    Ok(report)
}

/// The report on a loaded pair, at this time; `None` is a clock that was never set.
pub fn report(pair: &Pair, certificate_file: &Path, now_s: Option<i64>) -> Report {
    let file = certificate_file.display();
    let Ok(summary) = Summary::of(pair.chain()) else {
        let what = format!(
            "{file} is not as RFC 5280 says: neither its names nor its dates are known, and it answers only if no other certificate does"
        );
        return Report { notes: vec![what], ..Report::default() };
    };
    let validity = summary.validity(now_s);
    // As far as each is known.
    let chain: Vec<_> = pair.chain().map_while(|der| Certificate::parse(der).ok()).collect();
    let names = chain.first().into_iter().flat_map(Certificate::dns_names).map(str::to_owned).collect();
    let no_names = if summary.names.is_empty() { "no names" } else { "" };
    let about = format!("{no_names}{}; {}; valid {}", summary.names, summary.key(), summary.days());
    let is_warning = if IS_ARM32 { "warning: " } else { "" };
    let key_note = key_note(summary.key_kind).map(|what| format!("{is_warning}{file} {what}"));
    let mut notes = Vec::from_iter(key_note);
    if chain.len() < pair.chain().count() {
        notes.push(format!(
            "{file} has certificate {}, which is not as RFC 5280 says: its end is not known",
            chain.len() + 1
        ));
    }
    notes.extend(chain_notes(&chain).into_iter().map(|what| format!("{file} {what}")));
    if summary.nearness(now_s) != Nearness::Far {
        let whose = if summary.is_of_intermediate(validity) { "an intermediate certificate of " } else { "" };
        notes.push(format!("{whose}{file} {validity}; get a new one, or set the clock if it is wrong"));
    }
    Report { notes, names, about }
}

fn key_note(kind: KeyKind) -> Option<String> {
    const REMEDY: &str = "get a certificate for an ECDSA key on P-256";
    match kind {
        KeyKind::Rsa(_) => Some(format!("has an RSA key: {RSA_COSTS}; {REMEDY}")),
        KeyKind::P384 => Some(format!(
            "has a key on P-384: the signature of each full handshake takes 50 times as long as on P-256 (x86-64); {REMEDY}"
        )),
        KeyKind::Ed25519 => Some(format!("has an Ed25519 key, which browsers don't accept; {REMEDY}")),
        _ => None,
    }
}

/// What browsers will miss in a chain.
fn chain_notes(chain: &[Certificate<'_>]) -> Vec<String> {
    let mut notes = Vec::new();
    if let [own] = chain
        && !own.is_self_issued
    {
        notes.push("has only the server's own certificate: browsers that don't know its issuer refuse it; append the intermediate certificates, or name the CA's fullchain.pem".to_owned());
    }
    let stranger = chain.windows(2).position(|two| matches!(two, [one, next] if !one.is_issued_by(next)));
    if let Some(index) = stranger {
        notes.push(format!(
            "has certificate {}, which did not issue certificate {}: browsers may refuse the chain; keep the server's own, then the issuer of each",
            index + 2,
            index + 1
        ));
    }
    if chain.first().is_some_and(|own| own.names().next().is_none()) {
        notes.push(
            "has no name in subjectAltName: every browser refuses it; get a certificate with the public name"
                .to_owned(),
        );
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::super::certificates::tests::{Folder, P256};
    use super::*;

    fn notes(folder: &Folder, certificate: &str, key: &str) -> Vec<String> {
        let pair = folder.load(certificate, key).unwrap_or_else(|wrong| panic!("{certificate}: {wrong:?}"));
        report(&pair, Path::new("x.pem"), clock::wall_s()).notes
    }

    #[test]
    fn costly_keys_are_noted() {
        let folder = Folder::new();
        for (name, algorithm, expected) in [
            ("p256", P256, None),
            ("p384", "EC -pkeyopt ec_paramgen_curve:P-384", Some("x.pem has a key on P-384: the signature of each")),
            ("ed", "ed25519", Some("x.pem has an Ed25519 key, which browsers don't accept")),
            ("rsa", "RSA -pkeyopt rsa_keygen_bits:2048", Some("x.pem has an RSA key: each full handshake costs 5")),
        ] {
            folder.pair(name, algorithm);
            let notes = notes(&folder, &format!("{name}.pem"), &format!("{name}.key"));
            assert_eq!(notes.len(), usize::from(expected.is_some()), "{name}: {notes:?}");
            assert!(expected.is_none_or(|expected| notes[0].starts_with(expected)), "{name}: {notes:?}");
        }
    }

    #[test]
    fn what_browsers_will_miss_in_a_chain_is_noted() {
        let folder = Folder::new();
        folder.pair("ca", P256);
        folder.pair("other", P256);
        folder.openssl(&format!("genpkey -algorithm {P256} -out leaf.key"));
        folder.openssl("req -new -key leaf.key -subj /CN=leaf -addext subjectAltName=DNS:leaf.example -out leaf.csr");
        folder.openssl(
            "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -set_serial 7 -days 30 -copy_extensions copy -out leaf.pem",
        );
        folder.openssl("req -x509 -new -key leaf.key -subj /CN=leaf -days 30 -out nameless.pem");
        folder.join("chain.pem", &["leaf.pem", "ca.pem"]);
        folder.join("strange.pem", &["leaf.pem", "other.pem"]);
        for (certificate, expected) in [
            ("leaf.pem", Some("x.pem has only the server's own certificate")),
            ("chain.pem", None),
            ("strange.pem", Some("x.pem has certificate 2, which did not issue certificate 1")),
            ("nameless.pem", Some("x.pem has no name in subjectAltName")),
        ] {
            let notes = notes(&folder, certificate, "leaf.key");
            assert_eq!(notes.len(), usize::from(expected.is_some()), "{certificate}: {notes:?}");
            assert!(expected.is_none_or(|expected| notes[0].starts_with(expected)), "{certificate}: {notes:?}");
        }
        assert_eq!(notes(&folder, "ca.pem", "ca.key"), [""; 0], "a self-signed one");
    }

    #[test]
    fn an_end_that_is_near_is_noted_also_an_intermediate_certificate_s() {
        let folder = Folder::new();
        folder.pair("own", P256);
        folder.openssl(&format!("genpkey -algorithm {P256} -out ca.key"));
        folder.openssl("req -x509 -new -key ca.key -subj /CN=root -days 50 -out root.pem");
        folder.openssl("req -x509 -CA root.pem -CAkey ca.key -new -key ca.key -subj /CN=own -days 5 -out ca.pem");
        folder.join("chain.pem", &["own.pem", "ca.pem"]);
        let of = |certificate: &str, days: i64| {
            let pair = folder.load(certificate, "own.key").unwrap();
            let begins = Summary::of(pair.chain()).unwrap().not_before;
            report(&pair, Path::new("x.pem"), Some(begins + days * 86_400)).notes
        };
        for (certificate, days, expected) in [
            ("own.pem", 22, None),
            ("own.pem", 23, Some("x.pem expires in 7 days; get a new one, or set the clock if it is wrong")),
            ("own.pem", 31, Some("x.pem expired 24 hours ago; get a new one")),
            ("own.pem", -1, Some("x.pem is not valid yet: it begins in 24 hours; get")),
            ("chain.pem", 3, None),
            ("chain.pem", 4, Some("an intermediate certificate of x.pem expires in 24 hours; get")),
        ] {
            let notes = of(certificate, days);
            assert_eq!(notes.len(), usize::from(expected.is_some()), "{certificate} {days}: {notes:?}");
            assert!(expected.is_none_or(|expected| notes[0].starts_with(expected)), "{certificate} {days}: {notes:?}");
        }
        let pair = folder.load("own.pem", "own.key").unwrap();
        let report = report(&pair, Path::new("x.pem"), None);
        assert_eq!((report.notes, report.names), (Vec::new(), vec!["own.example".to_owned()]), "no clock, no alarm");
        assert!(report.about.starts_with("own.example; ECDSA P-256; valid 20"), "{}", report.about);
    }
}
