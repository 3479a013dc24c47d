//! A certificate chain as an operator sees it: names, key, fingerprints, how long it lasts.
//!
//! Pure: takes DER and the time, returns values and words. Owns when an expiry is near, and what is
//! said about it, for `check`, the console and the metrics. Verifies nothing: neither signatures
//! nor whom a client trusts. Doesn't know files, and never sees a private key.

use std::fmt::{self, Write as _};

use sha2::{Digest as _, Sha256};

use crate::date::day_text;
use tls::certificate::{Certificate, KeyKind, Malformed, Name};

const HOUR_S: i64 = 3_600;
const DAY_S: i64 = 24 * HOUR_S;
/// Seconds before its end from which on a certificate should have been renewed, at most: of 90 days
/// ACME clients leave 30, so something is wrong with fewer than 14.
const SOON_S: i64 = 14 * DAY_S;
/// The same as a part of its life, for those that live shorter: clients leave a third or more.
const SOON_PART: i64 = 4;
/// Seconds before its end from which on it must be renewed now, at most.
const VERY_SOON_S: i64 = 3 * DAY_S;
/// The same as a part of its life.
const VERY_SOON_PART: i64 = 16;
/// The names of a certificate, in bytes, at most; more of them are only counted. The configuration
/// and the console keep them for each of eight certificates.
const NAMES_SIZE_MAX: usize = 1024;

/// A SHA-256. Prints as `openssl dgst` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

/// What an operator sees of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// DNS names and addresses, separated by `, `, for instance `box.example, 192.0.2.7, and 98
    /// more`; empty if there are none.
    pub names: String,
    /// The kind of the key.
    pub key_kind: KeyKind,
    /// SHA-256 of the server's own certificate (DER).
    pub fingerprint: Fingerprint,
    /// SHA-256 of its public key (SubjectPublicKeyInfo, DER): what a pin is.
    pub public_key: Fingerprint,
    /// First second in which every certificate of the chain is valid, in Unix seconds.
    pub not_before: i64,
    /// Last second in which every certificate of the chain is valid, in Unix seconds.
    pub not_after: i64,
    /// Seconds from the first to the last of the certificate whose last second that is.
    pub life_s: i64,
    /// Whether the first second is that of an intermediate certificate, and the server's own is
    /// earlier.
    pub begins_with_intermediate: bool,
    /// Whether the last second is that of an intermediate certificate, and the server's own is
    /// later.
    pub ends_with_intermediate: bool,
}

/// A chain that pages are served with, as the console shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The path of its file.
    pub file: String,
    /// `None` if it can't be read, although rustls serves with it.
    pub summary: Option<Summary>,
    /// Why its files can't be used now; the chain is the previous one.
    pub trouble: Option<String>,
}

/// How long a chain is valid, in seconds from now. Prints as the end of a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// The clock was never set.
    Unknown,
    /// It begins in this time.
    NotYet(i64),
    /// It ends in this time.
    Left(i64),
    /// It ended this time ago.
    Over(i64),
}

/// How near the end of a chain is: whether somebody should do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nearness {
    /// Nothing is known to be wrong.
    Far,
    /// It should have been renewed.
    Soon,
    /// It must be renewed now.
    VerySoon,
    /// It has expired, or is not valid yet.
    Invalid,
}

impl Summary {
    /// The summary of a chain: certificates in DER, the server's own first. An intermediate one
    /// that can't be read has no say, and neither has a root: clients have their own.
    ///
    /// # Errors
    /// The server's own can't be read, or there is none.
    pub fn of<'a>(mut chain: impl Iterator<Item = &'a [u8]>) -> Result<Self, Malformed> {
        let bytes = chain.next().unwrap_or_default();
        let own = Certificate::parse(bytes)?;
        let mut summary = Self {
            names: names_text(own.names()),
            key_kind: own.key_kind,
            fingerprint: Fingerprint(Sha256::digest(bytes).into()),
            public_key: Fingerprint(Sha256::digest(own.public_key).into()),
            not_before: own.not_before,
            not_after: own.not_after,
            life_s: own.not_after.saturating_sub(own.not_before),
            begins_with_intermediate: false,
            ends_with_intermediate: false,
        };
        for intermediate in chain.filter_map(|bytes| Certificate::parse(bytes).ok()).filter(|it| !it.is_self_issued) {
            if intermediate.not_before > summary.not_before {
                (summary.not_before, summary.begins_with_intermediate) = (intermediate.not_before, true);
            }
            if intermediate.not_after < summary.not_after {
                (summary.not_after, summary.ends_with_intermediate) = (intermediate.not_after, true);
                summary.life_s = intermediate.not_after.saturating_sub(intermediate.not_before);
            }
        }
        Ok(summary)
    }

    /// Whether it is an intermediate certificate that this validity is about.
    #[must_use]
    pub const fn is_of_intermediate(&self, validity: Validity) -> bool {
        match validity {
            Validity::NotYet(_) => self.begins_with_intermediate,
            _ => self.ends_with_intermediate,
        }
    }

    /// How near its end is, at this time.
    #[must_use]
    pub fn nearness(&self, now_s: Option<i64>) -> Nearness {
        match self.validity(now_s) {
            Validity::Over(_) | Validity::NotYet(_) => Nearness::Invalid,
            Validity::Left(s) if s < VERY_SOON_S.min(self.life_s / VERY_SOON_PART) => Nearness::VerySoon,
            Validity::Left(s) if s < SOON_S.min(self.life_s / SOON_PART) => Nearness::Soon,
            Validity::Left(_) | Validity::Unknown => Nearness::Far,
        }
    }

    /// How long it is valid, at this time; `None` is a clock that was never set.
    #[must_use]
    pub fn validity(&self, now_s: Option<i64>) -> Validity {
        match now_s {
            None => Validity::Unknown,
            Some(now_s) if now_s < self.not_before => Validity::NotYet(self.not_before - now_s),
            Some(now_s) if now_s > self.not_after => Validity::Over(now_s - self.not_after),
            Some(now_s) => Validity::Left(self.not_after - now_s),
        }
    }

    /// Seconds until its end, negative behind it; `None` if the clock was never set.
    #[must_use]
    pub fn left_s(&self, now_s: Option<i64>) -> Option<i64> {
        Some(self.not_after.saturating_sub(now_s?))
    }

    /// First and last day: `2026-01-01 to 2026-03-31`.
    #[must_use]
    pub fn days(&self) -> String {
        format!("{} to {}", day_text(self.not_before), day_text(self.not_after))
    }

    /// The kind of the key, in words.
    #[must_use]
    pub fn key(&self) -> String {
        match self.key_kind {
            KeyKind::Rsa(bits) => format!("RSA {bits}"),
            KeyKind::P256 => "ECDSA P-256".to_owned(),
            KeyKind::P384 => "ECDSA P-384".to_owned(),
            KeyKind::Ed25519 => "Ed25519".to_owned(),
            KeyKind::Other => "of another kind".to_owned(),
        }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Unknown => f.write_str("may have expired: the clock was never set"),
            Self::NotYet(s) => write!(f, "is not valid yet: it begins in {}", span(s)),
            Self::Left(s) => write!(f, "expires in {}", span(s)),
            Self::Over(s) => write!(f, "expired {} ago", span(s)),
        }
    }
}

/// Whole days, or whole hours below two days.
fn span(seconds: i64) -> String {
    match seconds / HOUR_S {
        ..1 => "less than an hour".to_owned(),
        1 => "1 hour".to_owned(),
        hours @ ..48 => format!("{hours} hours"),
        hours => format!("{} days", hours / 24),
    }
}

/// The names as far as they fit, and how many more there are.
fn names_text<'a>(names: impl Iterator<Item = Name<'a>>) -> String {
    let (mut out, mut left_out) = (String::new(), 0);
    for name in names {
        let comma = if out.is_empty() { "" } else { ", " };
        match name {
            Name::Dns(name) if left_out == 0 && out.len() + name.len() < NAMES_SIZE_MAX => {
                let _ = write!(out, "{comma}{name}");
            }
            Name::Address(address) if left_out == 0 && out.len() < NAMES_SIZE_MAX => {
                let _ = write!(out, "{comma}{address}");
            }
            _ => left_out += 1,
        }
    }
    if left_out > 0 {
        let _ = write!(out, ", and {left_out} more");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &[u8] = include_bytes!("../crates/tls/testdata/server.der");
    const ODD: &[u8] = include_bytes!("../crates/tls/testdata/odd.der");
    const RSA: &[u8] = include_bytes!("../crates/tls/testdata/rsa3072.der");
    const P384: &[u8] = include_bytes!("../crates/tls/testdata/p384.der");
    const LEAF: &[u8] = include_bytes!("../crates/tls/testdata/ed25519.der");

    #[test]
    fn a_chain_lasts_from_its_latest_beginning_to_its_earliest_end() {
        let alone = Summary::of([LEAF].into_iter()).unwrap();
        assert_eq!(
            (alone.days().as_str(), alone.begins_with_intermediate || alone.ends_with_intermediate),
            ("2000-02-29 to 9999-12-31", false)
        );
        let intermediate = |chain: &Summary| (chain.begins_with_intermediate, chain.ends_with_intermediate);
        // The last is a root.
        let chain = Summary::of([LEAF, RSA, P384].into_iter()).unwrap();
        assert_eq!((chain.days().as_str(), intermediate(&chain)), ("2000-02-29 to 2050-01-01", (false, true)));
        assert_eq!(
            (chain.fingerprint, chain.public_key, chain.key()),
            (alone.fingerprint, alone.public_key, "Ed25519".into())
        );
        let chain = Summary::of([RSA, LEAF].into_iter()).unwrap();
        assert_eq!((chain.days().as_str(), intermediate(&chain)), ("2000-02-29 to 2050-01-01", (true, false)));
        assert!(chain.is_of_intermediate(Validity::NotYet(1)) && !chain.is_of_intermediate(Validity::Left(1)));
        let server = Summary::of([SERVER].into_iter()).unwrap();
        assert!(server.names == "box.example, localhost" && server.key_kind == KeyKind::P256);
        let odd = "odd.example, *.odd.example, 192.0.2.7, 2001:db8::7, xn--bcher-kva.example";
        assert_eq!(Summary::of([ODD].into_iter()).unwrap().names, odd);
        assert_eq!(Summary::of([LEAF, b"no certificate"].into_iter()).unwrap().days(), alone.days());
        assert!(Summary::of([b"no certificate", LEAF].into_iter()).is_err());
        assert!(Summary::of([].into_iter()).is_err());
    }

    #[test]
    fn an_end_is_told_by_the_second_and_in_words() {
        let summary =
            Summary { not_before: 1_000_000, not_after: 5_000_000, ..Summary::of([LEAF].into_iter()).unwrap() };
        for (now_s, validity, text) in [
            (None, Validity::Unknown, "may have expired: the clock was never set"),
            (Some(0), Validity::NotYet(1_000_000), "is not valid yet: it begins in 11 days"),
            (Some(999_999), Validity::NotYet(1), "is not valid yet: it begins in less than an hour"),
            (Some(1_000_000), Validity::Left(4_000_000), "expires in 46 days"),
            (Some(5_000_000 - 2 * DAY_S + 1), Validity::Left(2 * DAY_S - 1), "expires in 47 hours"),
            (Some(5_000_000), Validity::Left(0), "expires in less than an hour"),
            (Some(5_000_001), Validity::Over(1), "expired less than an hour ago"),
            (Some(5_000_000 + HOUR_S), Validity::Over(HOUR_S), "expired 1 hour ago"),
        ] {
            let found = summary.validity(now_s);
            assert_eq!((found, found.to_string().as_str()), (validity, text));
        }
    }

    #[test]
    fn many_names_are_counted() {
        let names: Vec<String> = (0..500).map(|n| format!("name-{n}.example")).collect();
        let text = names_text(names.iter().map(|name| Name::Dns(name)));
        assert!(text.starts_with("name-0.example, name-1.example, ") && text.len() < NAMES_SIZE_MAX + 40);
        let shown = text.split(", ").count() - 1;
        assert!(text.ends_with(&format!(", and {} more", 500 - shown)), "{text}");
        assert_eq!(names_text([].into_iter()), "");
    }

    #[test]
    fn fingerprints_are_as_openssl_prints_them() {
        let printed = Fingerprint([0xab; 32]).to_string();
        assert!(printed.len() == 64 && printed.starts_with("abab"));
    }
}
