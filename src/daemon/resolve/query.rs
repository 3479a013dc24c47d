//! One question to a name server and its answer, as bytes (RFC 1035). The only file that knows the
//! codec.
//!
//! Owns which messages are answers to our question, which records count, and how far aliases are
//! followed. Ignores a message with another id or question, and one that is itself a question.
//! Doesn't know servers, sockets or times.

use std::net::IpAddr;

use domain::base::iana::{Class, Opcode, Rcode};
use domain::base::name::ToName;
use domain::base::{Message, MessageBuilder, Name, ParsedName, Rtype};
use domain::dep::octseq::Array;
use domain::rdata::{A, Aaaa, Cname};

/// Aliases (CNAME) that are followed; more, or a circle, give no address.
const ALIASES_MAX: usize = 8;
/// Addresses of one family that count; further ones are ignored.
pub const ADDRESSES_MAX: usize = 8;
/// The size of our messages, which hold one question: 12 bytes, a name of at most 255, 4 bytes.
const QUESTION_SIZE_MAX: usize = 512;

/// The address family that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `A`.
    V4,
    /// `AAAA`.
    V6,
}

/// A question under an id.
#[derive(Clone, Debug)]
pub struct Question {
    id: u16,
    name: Name<Array<255>>,
    kind: Rtype,
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The addresses in the server's order, at most [`ADDRESSES_MAX`], at least one.
    Addresses(Vec<IpAddr>),
    /// The name has no address of this family.
    NoAddress,
    /// There is no such name.
    NoName,
    /// The answer doesn't fit a datagram: ask by TCP.
    Truncated,
    /// The aliases lead in a circle, or there are more than [`ALIASES_MAX`].
    Aliases,
    /// The server failed or refused, with this code; or 0, its answer is garbled.
    Failed(u8),
}

impl Question {
    /// The question for a name's addresses; `None` if the name is too long.
    pub fn new(name: &str, family: Family, id: u16) -> Option<Self> {
        let kind = match family {
            Family::V4 => Rtype::A,
            Family::V6 => Rtype::AAAA,
        };
        Some(Self { id, name: name.parse().ok()?, kind })
    }

    /// The message to the server. Recursion is desired; there is no EDNS, so that an answer by UDP
    /// has at most 512 bytes.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut message = MessageBuilder::from_target(Array::<QUESTION_SIZE_MAX>::new()).ok()?;
        message.header_mut().set_id(self.id);
        message.header_mut().set_rd(true);
        let mut question = message.question();
        question.push((&self.name, self.kind)).ok()?;
        Some(question.finish().as_ref().to_vec())
    }

    /// Reads a message; `None` if it is no answer to this question.
    pub fn parse(&self, bytes: &[u8]) -> Option<Answer> {
        let message = Message::from_octets(bytes).ok()?;
        let header = message.header();
        if header.id() != self.id || !header.qr() || header.opcode() != Opcode::QUERY {
            return None;
        }
        let rcode = header.rcode();
        let failed = Answer::Failed(rcode.to_int());
        // A server that can't read a question may answer without it.
        if message.header_counts().qdcount() == 0 && !matches!(rcode, Rcode::NOERROR | Rcode::NXDOMAIN) {
            return Some(failed);
        }
        let question = message.sole_question().ok()?;
        let is_ours =
            question.qname().name_eq(&self.name) && question.qtype() == self.kind && question.qclass() == Class::IN;
        if !is_ours {
            return None;
        }
        Some(match rcode {
            Rcode::NOERROR if header.tc() => Answer::Truncated,
            Rcode::NOERROR => self.addresses(message).unwrap_or(Answer::Failed(0)),
            Rcode::NXDOMAIN => Answer::NoName,
            _ => failed,
        })
    }

    /// Reads an answer that came by TCP, where nothing is truncated.
    pub fn parse_whole(&self, bytes: &[u8]) -> Option<Answer> {
        let answer = self.parse(bytes)?;
        if answer != Answer::Truncated {
            return Some(answer);
        }
        let message = Message::from_octets(bytes).ok()?;
        Some(self.addresses(message).unwrap_or(Answer::Failed(0)))
    }

    /// Follows the aliases to the addresses. The records may be in any order.
    fn addresses(&self, message: Message<&[u8]>) -> Option<Answer> {
        let mut owner = self.name.clone();
        for _ in 0..=ALIASES_MAX {
            let mut found = Vec::new();
            let mut alias = None;
            for record in message.answer().ok()? {
                let record = record.ok()?;
                if !record.owner().name_eq(&owner) || record.class() != Class::IN {
                    continue;
                }
                if record.rtype() == Rtype::CNAME {
                    let target = record.to_record::<Cname<ParsedName<_>>>().ok()??;
                    alias = alias.or(Some(target.data().cname().try_to_name::<Array<255>>().ok()?));
                } else if record.rtype() == self.kind {
                    let ip = match self.kind {
                        Rtype::A => IpAddr::V4(record.to_record::<A>().ok()??.data().addr()),
                        _ => IpAddr::V6(record.to_record::<Aaaa>().ok()??.data().addr()),
                    };
                    // The unspecified address means "blocked" to some; groups can't be dialled.
                    if found.len() < ADDRESSES_MAX && !ip.is_unspecified() && !ip.is_multicast() {
                        found.push(ip);
                    }
                }
            }
            match alias {
                _ if !found.is_empty() => return Some(Answer::Addresses(found)),
                Some(target) => owner = target,
                None => return Some(Answer::NoAddress),
            }
        }
        Some(Answer::Aliases)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A record for [`reply`]: owner, type, data.
    pub type Record<'a> = (&'a str, u16, Vec<u8>);

    pub const A: u16 = 1;
    pub const CNAME: u16 = 5;
    pub const AAAA: u16 = 28;

    /// A name as labels.
    pub fn labels(name: &str) -> Vec<u8> {
        let mut out = Vec::new();
        for label in name.split('.').filter(|label| !label.is_empty()) {
            out.push(u8::try_from(label.len()).unwrap());
            out.extend(label.as_bytes());
        }
        out.push(0);
        out
    }

    /// A server's message, written by hand: the query's id and question, flags, and records.
    pub fn reply(query: &[u8], flags: u16, records: &[Record<'_>]) -> Vec<u8> {
        let mut out = query[..2].to_vec();
        out.extend((0x8180 | flags).to_be_bytes());
        out.extend([0, 1]);
        out.extend(u16::try_from(records.len()).unwrap().to_be_bytes());
        out.extend([0; 4]);
        out.extend(&query[12..]);
        for (owner, kind, data) in records {
            out.extend(labels(owner));
            out.extend(kind.to_be_bytes());
            out.extend([0, 1, 0, 0, 0, 60]);
            out.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            out.extend(data);
        }
        out
    }

    fn question(name: &str, family: Family) -> (Question, Vec<u8>) {
        let question = Question::new(name, family, 0x1234).unwrap();
        let bytes = question.encode().unwrap();
        (question, bytes)
    }

    #[test]
    fn a_question_is_as_rfc_1035_has_it() {
        let (_, bytes) = question("b.example", Family::V6);
        assert_eq!(bytes, b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01b\x07example\x00\x00\x1c\x00\x01");
        let long = ["x".repeat(63), "y".repeat(63), "z".repeat(63), "w".repeat(61)].join(".");
        assert!(Question::new(&long, Family::V4, 1).is_some_and(|question| question.encode().is_some()));
        assert!(Question::new(&format!("{long}w"), Family::V4, 1).is_none());
        assert!(Question::new("a..b", Family::V4, 1).is_none());
    }

    #[test]
    fn addresses_are_taken_in_order_and_through_aliases_in_any_order() {
        let (asked, bytes) = question("b.example", Family::V4);
        let two = [("B.Example", A, vec![10, 0, 0, 2]), ("b.example", A, vec![10, 0, 0, 1])];
        let ips = |texts: &[&str]| Some(Answer::Addresses(texts.iter().map(|text| text.parse().unwrap()).collect()));
        assert_eq!(asked.parse(&reply(&bytes, 0, &two)), ips(&["10.0.0.2", "10.0.0.1"]));
        let aliases = [
            ("d.example", A, vec![10, 0, 0, 3]),
            ("other.example", A, vec![10, 0, 0, 66]),
            ("c.example", CNAME, labels("d.example")),
            ("b.example", CNAME, labels("c.example")),
        ];
        assert_eq!(asked.parse(&reply(&bytes, 0, &aliases)), ips(&["10.0.0.3"]));
        let (asked, bytes) = question("b.example", Family::V6);
        let mixed = [("b.example", A, vec![10, 0, 0, 1]), ("b.example", AAAA, vec![0xfd; 16])];
        assert_eq!(asked.parse(&reply(&bytes, 0, &mixed)), ips(&["fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd"]));
        // What can't be dialled is no address.
        let none = [("b.example", AAAA, vec![0; 16]), ("b.example", AAAA, vec![0xff; 16])];
        assert_eq!(asked.parse(&reply(&bytes, 0, &none)), Some(Answer::NoAddress));
        let many = vec![("b.example", AAAA, vec![0xfd; 16]); 20];
        assert!(matches!(asked.parse(&reply(&bytes, 0, &many)), Some(Answer::Addresses(some)) if some.len() == 8));
    }

    #[test]
    fn aliases_end() {
        let (asked, bytes) = question("b.example", Family::V4);
        let circle = [("b.example", CNAME, labels("c.example")), ("c.example", CNAME, labels("b.example"))];
        assert_eq!(asked.parse(&reply(&bytes, 0, &circle)), Some(Answer::Aliases));
        let chain = |aliases: usize| {
            let mut records: Vec<Record<'_>> = Vec::new();
            let names: Vec<String> =
                (0..=aliases).map(|n| if n == 0 { "b.example".into() } else { format!("n{n}") }).collect();
            for pair in names.windows(2) {
                records.push((&pair[0], CNAME, labels(&pair[1])));
            }
            records.push((&names[aliases], A, vec![10, 0, 0, 1]));
            asked.parse(&reply(&bytes, 0, &records))
        };
        assert!(matches!(chain(ALIASES_MAX), Some(Answer::Addresses(_))));
        assert_eq!(chain(ALIASES_MAX + 1), Some(Answer::Aliases));
        // A chain that leads out of the message has no address.
        let open = [("b.example", CNAME, labels("c.example"))];
        assert_eq!(asked.parse(&reply(&bytes, 0, &open)), Some(Answer::NoAddress));
    }

    #[test]
    fn what_answers_another_question_is_ignored() {
        let (asked, bytes) = question("b.example", Family::V4);
        let record = [("b.example", A, vec![10, 0, 0, 1])];
        let good = reply(&bytes, 0, &record);
        assert!(asked.parse(&good).is_some());
        let mut other_id = good.clone();
        other_id[1] ^= 1;
        let mut query = good.clone();
        query[2] &= 0x7f;
        let (_, other_name) = question("c.example", Family::V4);
        let (_, other_family) = question("b.example", Family::V6);
        for wrong in [other_id, query, reply(&other_name, 0, &record), reply(&other_family, 0, &record), Vec::new()] {
            assert_eq!(asked.parse(&wrong), None, "{wrong:?}");
        }
        assert_eq!(asked.parse(&good[..11]), None);
    }

    #[test]
    fn failures_are_told_apart_and_garbage_is_no_panic() {
        let (asked, bytes) = question("b.example", Family::V4);
        let record = [("b.example", A, vec![10, 0, 0, 1])];
        assert_eq!(asked.parse(&reply(&bytes, 0x0200, &record)), Some(Answer::Truncated));
        assert!(matches!(asked.parse_whole(&reply(&bytes, 0x0200, &record)), Some(Answer::Addresses(_))));
        assert_eq!(asked.parse(&reply(&bytes, 3, &[])), Some(Answer::NoName));
        assert_eq!(asked.parse(&reply(&bytes, 2, &[])), Some(Answer::Failed(2)));
        assert_eq!(asked.parse(&reply(&bytes, 0, &[])), Some(Answer::NoAddress));
        let mut bare = reply(&bytes, 1, &[])[..12].to_vec();
        bare[5] = 0;
        assert_eq!(asked.parse(&bare), Some(Answer::Failed(1)));
        assert_eq!(asked.parse(&reply(&bytes, 0, &[("b.example", A, vec![10, 0, 1])])), Some(Answer::Failed(0)));
        // A compression pointer to itself, then every cut and every changed byte.
        let mut pointer = reply(&bytes, 0, &[]);
        pointer[7] = 1;
        let at = u8::try_from(pointer.len()).unwrap();
        pointer.extend([0xc0, at, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4]);
        assert_eq!(asked.parse(&pointer), Some(Answer::Failed(0)));
        let good = reply(&bytes, 0, &record);
        for at in 0..good.len() {
            let _ = asked.parse(&good[..at]);
            for noise in [0, 1, 0x3f, 0xc0, 0xff] {
                let mut changed = good.clone();
                changed[at] = noise;
                let _ = asked.parse(&changed);
            }
        }
    }
}
