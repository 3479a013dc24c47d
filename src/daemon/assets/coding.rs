//! Which content coding a peer gets: `Accept-Encoding` (RFC 9110, 12.5.3).
//!
//! Owns the choice: the acceptable coding of the highest weight; among equals brotli, then gzip,
//! then none. A peer that says nothing gets none. Refuses no request: a peer that accepts none of
//! the codings gets plain bytes, which the RFC prefers to a 406. Knows no files.

/// How a body is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// As it is.
    Plain,
    /// gzip (RFC 1952).
    Gzip,
    /// Brotli (RFC 7932).
    Brotli,
}

/// A header line for caches, of every response whose coding is negotiated.
pub const VARY: &str = "Vary: Accept-Encoding\r\n";

impl Coding {
    /// The coding for a peer, given the members of its `Accept-Encoding`, of a body that has a
    /// brotli form or none.
    ///
    /// Brotli only for a peer that names it: `*` comes from programs that don't know what they get.
    #[must_use]
    pub fn accepted<'a>(members: impl Iterator<Item = &'a [u8]>, has_brotli: bool) -> Self {
        let [mut brotli, mut gzip, mut plain, mut others] = [None; 4];
        for member in members {
            let (name, weight) = weighted(member);
            let slot = match name.to_ascii_lowercase().as_slice() {
                b"br" => &mut brotli,
                b"gzip" | b"x-gzip" => &mut gzip,
                b"identity" => &mut plain,
                b"*" => &mut others,
                _ => continue,
            };
            // Of what is named twice, the first counts.
            slot.get_or_insert(weight);
        }
        let brotli = brotli.filter(|_| has_brotli).unwrap_or(0);
        let gzip = gzip.or(others).unwrap_or(0);
        let plain = plain.or(others).unwrap_or(0);
        match brotli.max(gzip).max(plain) {
            0 => Self::Plain,
            most if brotli == most => Self::Brotli,
            most if gzip == most => Self::Gzip,
            _ => Self::Plain,
        }
    }

    /// Its header line; empty for plain bytes.
    #[must_use]
    pub const fn line(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Gzip => "Content-Encoding: gzip\r\n",
            Self::Brotli => "Content-Encoding: br\r\n",
        }
    }
}

/// A member's name, and its weight in thousandths; 0, which is "not acceptable", if it is invalid.
fn weighted(member: &[u8]) -> (&[u8], u32) {
    let mut parts = member.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let name = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q=")));
    (name, weight.map_or(1000, |weight| thousandths(weight).unwrap_or(0)))
}

fn thousandths(weight: &[u8]) -> Option<u32> {
    let (whole, digits) = match weight {
        [whole @ (b'0' | b'1')] => (whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', digits @ ..] if digits.len() <= 3 => (whole, digits),
        _ => return None,
    };
    let mut value = u32::from(whole - b'0');
    for place in 0..3 {
        let digit = digits.get(place).unwrap_or(&b'0');
        value = value * 10 + u32::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    (value <= 1000).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::Coding::{Brotli, Gzip, Plain};
    use super::*;

    #[test]
    fn a_peer_gets_the_coding_that_it_likes_best_and_brotli_among_equals() {
        for (accepted, coding) in [
            ("", Plain),
            ("gzip", Gzip),
            ("x-gzip", Gzip),
            ("GZip , bR", Brotli),
            ("gzip, deflate, br, zstd", Brotli),
            ("gzip;q=1.0, br;q=0.5", Gzip),
            ("gzip;q=0.5, br;q=0.5", Brotli),
            ("gzip;q=0.001", Gzip),
            ("br;q=0, gzip", Gzip),
            ("br;q=0.0, gzip;q=0.000", Plain),
            ("gzip;q=0, *", Plain),
            ("*", Gzip),
            ("*;q=0.1", Gzip),
            ("*;q=0", Plain),
            ("br, *;q=0", Brotli),
            ("br;q=0.2, *;q=0.3", Gzip),
            ("identity", Plain),
            ("identity;q=0", Plain),
            ("identity;q=0, gzip", Gzip),
            ("identity;q=0.5, gzip;q=0.4", Plain),
            ("identity, gzip", Gzip),
            ("deflate, zstd, compress", Plain),
            ("gzip ;\tQ=0.7", Gzip),
            ("gzip;level=9;q=0.5, br;q=0.4", Gzip),
            ("gzip;q=0, gzip", Plain),
            // Not a weight: not acceptable.
            ("gzip;q=", Plain),
            ("gzip;q=2", Plain),
            ("gzip;q=1.001", Plain),
            ("gzip;q=0.1234", Plain),
            ("gzip;q=-1", Plain),
            ("gzip;q=.5", Plain),
            ("gzip;q=0.x", Plain),
            ("gzip2, brx, b r", Plain),
        ] {
            let members =
                accepted.split(',').map(|member| member.trim().as_bytes()).filter(|member| !member.is_empty());
            assert_eq!(Coding::accepted(members, true), coding, "{accepted:?}");
        }
        assert_eq!(Coding::accepted([&b"\xff"[..], b"br;q=\xff", b"gzip"].into_iter(), true), Gzip);
        for (members, coding) in
            [(&[&b"br"[..], b"gzip;q=0.1"][..], Gzip), (&[b"br"], Plain), (&[b"br", b"gzip;q=0"], Plain)]
        {
            assert_eq!(Coding::accepted(members.iter().copied(), false), coding);
        }
    }
}
