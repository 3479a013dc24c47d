//! What a certificate says (RFC 5280, 4.1): its time, its names, its key.
//!
//! A walk over borrowed bytes, for `check` and the choice by name. Strict: what isn't DER, or isn't
//! in the order of the RFC, is refused with the part that is wrong. Nothing is verified: neither
//! the signature nor the chain, nor that the time is now. Clients do that.

use core::error::Error;
use core::fmt;
use core::net::IpAddr;

use crate::der::{
    self, BIT_STRING, BOOLEAN, GENERALIZED_TIME, INTEGER, NULL, OBJECT_IDENTIFIER, OCTET_STRING, Reader, SEQUENCE,
    UTC_TIME,
};

/// A certificate, in bytes, at most. One with a hundred names has about 6 KiB.
pub const SIZE_MAX: usize = 1 << 16;
/// A DNS name, in bytes, at most (RFC 1035, 2.3.4).
pub const NAME_SIZE_MAX: usize = 255;

/// What a certificate says. Borrows its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certificate<'a> {
    /// First second of its time, in Unix seconds.
    pub not_before: i64,
    /// Last second of its time, in Unix seconds.
    pub not_after: i64,
    /// Whether subject and issuer are the same bytes: a root, or a certificate that signs itself.
    pub is_self_issued: bool,
    /// The content of the issuer's name.
    issuer: &'a [u8],
    /// The content of the subject's name.
    subject: &'a [u8],
    /// The SubjectPublicKeyInfo in DER: what a pin is the hash of.
    pub public_key: &'a [u8],
    /// The kind of that key.
    pub key_kind: KeyKind,
    /// The content of subjectAltName, checked.
    alternatives: &'a [u8],
}

/// The kind of a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA, with the bits of its modulus.
    Rsa(u32),
    /// ECDSA over P-256.
    P256,
    /// ECDSA over P-384.
    P384,
    /// Ed25519.
    Ed25519,
    /// Anything else.
    Other,
}

/// A subject's name, as far as a server has use for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name<'a> {
    /// A DNS name, possibly with a wildcard: printable ASCII without a space, at least 1 byte and
    /// at most [`NAME_SIZE_MAX`].
    Dns(&'a str),
    /// An address.
    Address(IpAddr),
}

/// The part of a certificate that isn't as RFC 5280 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "not an X.509 certificate: {}", self.0)
    }
}

impl Error for Malformed {}

impl<'a> Certificate<'a> {
    /// Reads a whole certificate in DER.
    ///
    /// # Errors
    ///
    /// The first part that is wrong, over [`SIZE_MAX`] bytes included.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() > SIZE_MAX {
            return Err(Malformed("it is too long"));
        }
        let part = |what| move || Malformed(what);
        let outer = Reader::new(bytes).only(SEQUENCE).ok_or_else(part("its outermost sequence"))?;
        let mut outer = Reader::new(outer);
        let body = outer.next(SEQUENCE).ok_or_else(part("its body"))?;
        algorithm(&mut outer).ok_or_else(part("its signature's algorithm"))?;
        outer.only(BIT_STRING).ok_or_else(part("its signature"))?;

        let mut body = Reader::new(body);
        version(&mut body).ok_or_else(part("its version"))?;
        body.next(INTEGER).filter(|serial| der::is_integer(serial)).ok_or_else(part("its serial number"))?;
        algorithm(&mut body).ok_or_else(part("its algorithm"))?;
        let issuer = body.next(SEQUENCE).ok_or_else(part("its issuer"))?;
        let validity = body.next(SEQUENCE).ok_or_else(part("its validity"))?;
        let (not_before, not_after) = times(validity).ok_or_else(part("its validity"))?;
        let subject = body.next(SEQUENCE).ok_or_else(part("its subject"))?;
        let public_key = body.value(SEQUENCE).ok_or_else(part("its public key"))?;
        let key_kind = key_kind(public_key.content).ok_or_else(part("its public key"))?;
        let alternatives = alternatives(body)?;
        Ok(Self {
            not_before,
            not_after,
            is_self_issued: issuer == subject,
            issuer,
            subject,
            public_key: public_key.whole,
            key_kind,
            alternatives,
        })
    }

    /// The DNS names and addresses of subjectAltName, in their order. The common name is none.
    pub fn names(&self) -> impl Iterator<Item = Name<'a>> + use<'a> {
        let mut rest = Reader::new(self.alternatives);
        core::iter::from_fn(move || Some(name(rest.any()?))).filter_map(Option::flatten)
    }

    /// Whether this certificate names the other's subject as its issuer. Verifies no signature.
    #[must_use]
    pub fn is_issued_by(&self, other: &Certificate<'_>) -> bool {
        self.issuer == other.subject
    }

    /// The DNS names among [`Certificate::names`].
    pub fn dns_names(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.names().filter_map(|name| match name {
            Name::Dns(name) => Some(name),
            Name::Address(_) => None,
        })
    }
}

/// Version 1 is the default and not written; the others are an explicit \[0\].
fn version(body: &mut Reader<'_>) -> Option<()> {
    const VERSION: u8 = 0xA0;
    if !body.is_next(VERSION) {
        return Some(());
    }
    let version = Reader::new(body.next(VERSION)?).only(INTEGER)?;
    matches!(version, [1 | 2]).then_some(())
}

/// An AlgorithmIdentifier: the algorithm, and its parameters if there are any.
fn algorithm<'a>(reader: &mut Reader<'a>) -> Option<(&'a [u8], Option<der::Value<'a>>)> {
    let mut inside = Reader::new(reader.next(SEQUENCE)?);
    let identifier = inside.next(OBJECT_IDENTIFIER).filter(|identifier| !identifier.is_empty())?;
    let parameters = if inside.is_empty() { None } else { Some(inside.any()?) };
    inside.is_empty().then_some((identifier, parameters))
}

/// First and last second.
fn times(validity: &[u8]) -> Option<(i64, i64)> {
    let mut validity = Reader::new(validity);
    let times = (time(validity.any()?)?, time(validity.any()?)?);
    validity.is_empty().then_some(times)
}

/// Unix seconds of a Time, which is in UTC and has seconds (RFC 5280, 4.1.2.5).
fn time(value: der::Value<'_>) -> Option<i64> {
    let (year, rest) = match value.tag {
        UTC_TIME => {
            let (year, rest) = digits(value.content, 2)?;
            (if year >= 50 { 1900 + year } else { 2000 + year }, rest)
        }
        GENERALIZED_TIME => digits(value.content, 4)?,
        _ => return None,
    };
    let (month, rest) = digits(rest, 2)?;
    let (day, rest) = digits(rest, 2)?;
    let (hour, rest) = digits(rest, 2)?;
    let (minute, rest) = digits(rest, 2)?;
    let (second, rest) = digits(rest, 2)?;
    let is_there = (1..=days_in(year, month)?).contains(&day) && hour < 24 && minute < 60 && second < 60;
    (is_there && rest == b"Z").then(|| ((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

/// A number of this many decimal digits, and what comes behind it.
fn digits(bytes: &[u8], count: usize) -> Option<(i64, &[u8])> {
    let (digits, rest) = bytes.split_at_checked(count)?;
    let is_number = digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| (digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')), rest))
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const fn days_in(year: i64, month: i64) -> Option<i64> {
    Some(match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => return None,
    })
}

/// Days from 1 January 1970 to this day of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    /// 1 January 1970, counted from 1 January of the year 0.
    const EPOCH: i64 = 719_528;
    // Leap years before this one; the year 0 is one.
    let before = year - 1;
    let leaps = before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400) + 1;
    let months: i64 = (1..month).filter_map(|month| days_in(year, month)).sum();
    year * 365 + leaps + months + day - 1 - EPOCH
}

/// The kind of a key, from the content of its SubjectPublicKeyInfo.
fn key_kind(content: &[u8]) -> Option<KeyKind> {
    const RSA: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x01];
    const EC: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01];
    const P256: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07];
    const P384: &[u8] = &[0x2B, 0x81, 0x04, 0x00, 0x22];
    const ED25519: &[u8] = &[0x2B, 0x65, 0x70];
    let mut content = Reader::new(content);
    let (identifier, parameters) = algorithm(&mut content)?;
    let key = der::whole_bytes(content.only(BIT_STRING)?)?;
    Some(match (identifier, parameters) {
        (RSA, Some(parameters)) if parameters.tag == NULL => {
            let mut numbers = Reader::new(Reader::new(key).only(SEQUENCE)?);
            let modulus = der::bits(numbers.next(INTEGER)?)?;
            der::bits(numbers.only(INTEGER)?)?;
            KeyKind::Rsa(modulus)
        }
        (EC, Some(curve)) if curve.tag == OBJECT_IDENTIFIER => match curve.content {
            P256 => KeyKind::P256,
            P384 => KeyKind::P384,
            _ => KeyKind::Other,
        },
        (ED25519, None) => KeyKind::Ed25519,
        _ => KeyKind::Other,
    })
}

/// The content of subjectAltName, out of what comes behind the public key; empty if there is none.
fn alternatives(mut body: Reader<'_>) -> Result<&[u8], Malformed> {
    const ISSUER_ID: u8 = 0x81;
    const SUBJECT_ID: u8 = 0x82;
    const EXTENSIONS: u8 = 0xA3;
    const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1D, 0x11];
    for tag in [ISSUER_ID, SUBJECT_ID] {
        if body.is_next(tag) {
            body.next(tag).ok_or(Malformed("its unique identifiers"))?;
        }
    }
    if body.is_empty() {
        return Ok(&[]);
    }
    let wrong = || Malformed("its extensions");
    let extensions = Reader::new(body.only(EXTENSIONS).ok_or_else(wrong)?).only(SEQUENCE).ok_or_else(wrong)?;
    let mut extensions = Reader::new(extensions);
    let mut found = None;
    while !extensions.is_empty() {
        let (identifier, value) = extension(&mut extensions).ok_or_else(wrong)?;
        if identifier == SUBJECT_ALT_NAME && found.replace(value).is_some() {
            return Err(Malformed("it has subjectAltName twice"));
        }
    }
    let Some(value) = found else { return Ok(&[]) };
    let names = Reader::new(value).only(SEQUENCE).ok_or(Malformed("its subjectAltName"))?;
    let mut rest = Reader::new(names);
    while !rest.is_empty() {
        let one = rest.any().and_then(name);
        one.ok_or(Malformed("a name in its subjectAltName"))?;
    }
    Ok(names)
}

/// An extension: what it is, and its value.
fn extension<'a>(extensions: &mut Reader<'a>) -> Option<(&'a [u8], &'a [u8])> {
    let mut inside = Reader::new(extensions.next(SEQUENCE)?);
    let identifier = inside.next(OBJECT_IDENTIFIER).filter(|identifier| !identifier.is_empty())?;
    if inside.is_next(BOOLEAN) {
        // DER omits a default; some write the `false` all the same, and verifiers take it.
        inside.next(BOOLEAN).and_then(der::boolean)?;
    }
    Some((identifier, inside.only(OCTET_STRING)?))
}

/// A GeneralName: one of ours, or none of use. `None` if it is malformed.
fn name(value: der::Value<'_>) -> Option<Option<Name<'_>>> {
    const DNS: u8 = 0x82;
    const ADDRESS: u8 = 0x87;
    let content = value.content;
    match value.tag {
        DNS => {
            let is_name = (1..=NAME_SIZE_MAX).contains(&content.len()) && content.iter().all(u8::is_ascii_graphic);
            let text = core::str::from_utf8(content).ok().filter(|_| is_name)?;
            Some(Some(Name::Dns(text)))
        }
        ADDRESS => {
            let four = <[u8; 4]>::try_from(content).map(IpAddr::from);
            let address = four.or_else(|_| <[u8; 16]>::try_from(content).map(IpAddr::from)).ok()?;
            Some(Some(Name::Address(address)))
        }
        // Other name, mail, X.400 address, directory name, EDI party, URI, registered identifier.
        0xA0 | 0x81 | 0xA3 | 0xA4 | 0xA5 | 0x86 | 0x88 => Some(None),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    const SERVER: &[u8] = include_bytes!("../testdata/server.der");
    const ODD: &[u8] = include_bytes!("../testdata/odd.der");
    const P384: &[u8] = include_bytes!("../testdata/p384.der");
    const ED25519: &[u8] = include_bytes!("../testdata/ed25519.der");
    const RSA3072: &[u8] = include_bytes!("../testdata/rsa3072.der");
    const ALL: [&[u8]; 5] = [SERVER, ODD, P384, ED25519, RSA3072];

    #[test]
    fn a_plain_certificate() {
        let certificate = Certificate::parse(SERVER).unwrap();
        // 2026-01-01 and 2126-01-01, the last one as GeneralizedTime.
        assert_eq!((certificate.not_before, certificate.not_after), (1_767_225_600, 4_922_899_200));
        assert!(certificate.is_self_issued && certificate.key_kind == KeyKind::P256);
        assert_eq!(certificate.dns_names().collect::<Vec<_>>(), ["box.example", "localhost"]);
        assert_eq!(certificate.names().count(), 2);
    }

    #[test]
    fn an_odd_certificate() {
        let certificate = Certificate::parse(ODD).unwrap();
        let expected = [
            Name::Dns("odd.example"),
            Name::Dns("*.odd.example"),
            Name::Address("192.0.2.7".parse().unwrap()),
            Name::Address("2001:db8::7".parse().unwrap()),
            Name::Dns("xn--bcher-kva.example"),
        ];
        assert_eq!(certificate.names().collect::<Vec<_>>(), expected);
        let dns = ["odd.example", "*.odd.example", "xn--bcher-kva.example"];
        assert_eq!(certificate.dns_names().collect::<Vec<_>>(), dns);
        assert_eq!((certificate.not_before, certificate.not_after), (1_767_225_600, 2_804_025_600));
        assert!(certificate.is_self_issued && certificate.key_kind == KeyKind::Rsa(2_048));
    }

    #[test]
    fn the_ends_of_time() {
        // The first and the last second of UTCTime.
        let root = Certificate::parse(P384).unwrap();
        assert_eq!((root.not_before, root.not_after), (-631_152_000, 2_524_607_999));
        assert!(root.is_self_issued && root.key_kind == KeyKind::P384 && root.names().count() == 0);
        // A leap day, and "no end" (RFC 5280, 4.1.2.5).
        let leaf = Certificate::parse(ED25519).unwrap();
        assert_eq!((leaf.not_before, leaf.not_after), (951_825_600, 253_402_300_799));
        assert!(!leaf.is_self_issued && leaf.key_kind == KeyKind::Ed25519);
        assert!(leaf.is_issued_by(&root) && root.is_issued_by(&root) && !root.is_issued_by(&leaf));
        let long = Certificate::parse(RSA3072).unwrap();
        assert_eq!((long.not_before, long.not_after), (0, 2_524_608_000));
        assert!(!long.is_self_issued && long.key_kind == KeyKind::Rsa(3_072));
    }

    /// What OpenSSL extracts from the same bytes.
    #[test]
    fn openssl_finds_the_same_public_key() {
        let openssl = |arguments: &str, input: &[u8]| {
            let mut command = Command::new("openssl");
            let mut child = command
                .args(arguments.split(' '))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("the command openssl");
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), input).unwrap();
            child.wait_with_output().unwrap().stdout
        };
        for bytes in ALL {
            let pem = openssl("x509 -inform DER -noout -pubkey", bytes);
            let der = openssl("pkey -pubin -outform DER", &pem);
            assert_eq!(Certificate::parse(bytes).unwrap().public_key, der);
        }
    }

    #[test]
    fn each_time_is_a_day_of_the_calendar() {
        let seconds = |tag, text: &str| time(der::Value { tag, content: text.as_bytes(), whole: &[] });
        for (text, expected) in [
            ("700101000000Z", 0),
            ("691231235959Z", -1),
            ("500101000000Z", -631_152_000),
            ("491231235959Z", 2_524_607_999),
            ("000229000000Z", 951_782_400),
            ("240229235959Z", 1_709_251_199),
            ("380119031408Z", 1 << 31),
        ] {
            assert_eq!(seconds(UTC_TIME, text), Some(expected), "{text}");
        }
        for (text, expected) in [
            ("19700101000000Z", 0),
            ("00000101000000Z", -62_167_219_200),
            ("00000301000000Z", -62_162_035_200),
            ("00010101000000Z", -62_135_596_800),
            ("19000301000000Z", -2_203_891_200),
            ("20000301000000Z", 951_868_800),
            ("21000301000000Z", 4_107_542_400),
            ("21060207062816Z", 1 << 32),
            ("99991231235959Z", 253_402_300_799),
        ] {
            assert_eq!(seconds(GENERALIZED_TIME, text), Some(expected), "{text}");
        }
        for wrong in [
            "",
            "Z",
            "7001010000Z",
            "700101000000",
            "700101000000z",
            "700101000000+0000",
            "700101000000Z0",
            "70010100000.Z",
            "+00101000000Z",
            "700001000000Z",
            "701301000000Z",
            "700100000000Z",
            "700132000000Z",
            "700431000000Z",
            "700229000000Z",
            "700101240000Z",
            "700101006000Z",
            "700101000060Z",
            "19700101000000Z",
        ] {
            assert_eq!(seconds(UTC_TIME, wrong), None, "{wrong}");
        }
        for wrong in ["700101000000Z", "19700101000000.5Z", "21000229000000Z", "1970010100000Z"] {
            assert_eq!(seconds(GENERALIZED_TIME, wrong), None, "{wrong}");
        }
        assert_eq!(seconds(INTEGER, "700101000000Z"), None);
    }

    #[test]
    fn the_days_are_counted_without_a_gap() {
        let mut expected = days(1, 1, 1);
        for year in 1..3_000 {
            for month in 1..=12 {
                for day in 1..=days_in(year, month).unwrap() {
                    assert_eq!(days(year, month, day), expected, "{year}-{month}-{day}");
                    expected += 1;
                }
            }
        }
    }

    #[test]
    fn a_damaged_certificate_is_refused_or_read() {
        for good in ALL {
            for end in 0..good.len() {
                assert!(Certificate::parse(&good[..end]).is_err(), "cut at {end}");
            }
            assert!(Certificate::parse(&[good, &[0]].concat()).is_err(), "a byte too many");
            for at in 0..good.len() {
                for value in [good[at] ^ 1, good[at] ^ 0x80, 0, 0xFF, good[at].wrapping_add(1)] {
                    let mut bytes = good.to_vec();
                    bytes[at] = value;
                    // Either way without a panic; what was read can be used.
                    if let Ok(certificate) = Certificate::parse(&bytes) {
                        assert!(certificate.names().count() <= 8);
                    }
                }
            }
        }
        let long = [&[SEQUENCE, 0x83, 1, 0, 0][..], &vec![0; 1 << 16]].concat();
        assert_eq!(Certificate::parse(&long), Err(Malformed("it is too long")));
        assert_eq!(
            Certificate::parse(b"text").unwrap_err().to_string(),
            "not an X.509 certificate: its outermost sequence"
        );
    }

    /// With one part of a good certificate replaced by another of the same size.
    fn altered(good: &[u8], from: &[u8], to: &[u8]) -> Result<usize, &'static str> {
        assert_eq!(from.len(), to.len());
        let at: Vec<usize> = (0..good.len()).filter(|at| good[*at..].starts_with(from)).collect();
        let [.., last] = at.as_slice() else { panic!("{from:?} is not in it") };
        let bytes = [&good[..*last], to, &good[last + from.len()..]].concat();
        Certificate::parse(&bytes).map(|read| read.names().count()).map_err(|malformed| malformed.0)
    }

    #[test]
    fn what_is_not_as_it_must_be_is_named() {
        let name = Err("a name in its subjectAltName");
        // A name with a NUL, with a space, and in UTF-8; a mail address as an IP address.
        assert_eq!(altered(ODD, b"\x82\x0Bodd.example", b"\x82\x0Bodd\0example"), name);
        assert_eq!(altered(ODD, b"\x82\x0Bodd.example", b"\x82\x0Bodd example"), name);
        assert_eq!(altered(ODD, b"\x82\x0Bodd.example", b"\x82\x0B\xC3\xB6d.example"), name);
        assert_eq!(altered(ODD, b"\x81\x0Da@odd", b"\x87\x0Da@odd"), name);
        assert_eq!(altered(ODD, b"\x81\x0Da@odd", b"\x89\x0Da@odd"), name);
        assert_eq!(altered(ODD, b"\x81\x0Da@odd", b"\x82\x0Da@odd"), Ok(6));
        assert_eq!(altered(ODD, b"\x82\x0Bodd.example", b"\x88\x0Bodd.example"), Ok(4));
        // Its keyUsage made a second subjectAltName.
        let twice = Err("it has subjectAltName twice");
        assert_eq!(altered(SERVER, &[0x55, 0x1D, 0x0F], &[0x55, 0x1D, 0x11]), twice);
        assert_eq!(altered(SERVER, &[0x55, 0x1D, 0x11], &[0x55, 0x1D, 0x12]), Ok(0));
        // A critical extension: `true` is 0xFF; `false` may be written.
        let critical = [BOOLEAN, 1, 0xFF];
        assert_eq!(altered(SERVER, &critical, &[BOOLEAN, 1, 0x01]), Err("its extensions"));
        assert_eq!(altered(SERVER, &critical, &[BOOLEAN, 1, 0x00]), Ok(2));
        // The version is 2 or 3 where it is written.
        let version = [0xA0, 3, INTEGER, 1, 2];
        assert_eq!(altered(SERVER, &version, &[0xA0, 3, INTEGER, 1, 1]), Ok(2));
        for wrong in [0, 3, 0x82] {
            assert_eq!(altered(SERVER, &version, &[0xA0, 3, INTEGER, 1, wrong]), Err("its version"));
        }
        assert_eq!(altered(SERVER, b"260101000000Z", b"260132000000Z"), Err("its validity"));
        // Without \[3\] around the extensions: something else in their place.
        assert_eq!(altered(SERVER, &[0xA3], &[0xA4]), Err("its extensions"));
        // A negative serial number in its shortest form, and in a longer one.
        assert_eq!(altered(ODD, &[INTEGER, 4, 0xB6], &[INTEGER, 4, 0xFF]), Ok(5));
        assert_eq!(altered(ODD, &[INTEGER, 4, 0xB6, 0x69], &[INTEGER, 4, 0xFF, 0xFF]), Err("its serial number"));
    }
}
