//! A page as the API and the webhooks name it: `<connection>.<page>@<relay>`.
//!
//! A page's number is unique on its relay's connection only, so the id has the connection's number
//! and the relay's name too. Owns the text's form, in both directions: one id has one text. Doesn't
//! know whether there is such a page.

use core::fmt;

use wire::REASON_SIZE_MAX;

/// Names a page.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageId {
    /// The number of the relay's connection.
    pub connection: u64,
    /// The page's number on it.
    pub page: u32,
    /// The relay's name: 1 to 256 bytes.
    pub relay: String,
}

impl PageId {
    /// Reads the text that [`Display`](fmt::Display) writes. `None` if it is not such a text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (numbers, relay) = text.split_once('@')?;
        let (connection, page) = numbers.split_once('.')?;
        if !(1..=REASON_SIZE_MAX).contains(&relay.len()) {
            return None;
        }
        let page = u32::try_from(number(page)?).ok()?;
        Some(Self { connection: number(connection)?, page, relay: relay.to_owned() })
    }
}

/// A decimal number without sign or leading zeros.
fn number(text: &str) -> Option<u64> {
    let is_canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if is_canonical { text.parse().ok() } else { None }
}

impl fmt::Display for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}@{}", self.connection, self.page, self.relay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_text() {
        for (connection, page, relay, text) in [
            (1, 0, "box-1", "1.0@box-1"),
            (u64::MAX, u32::MAX, "host/2", "18446744073709551615.4294967295@host/2"),
            (7, 12, "a@b.c 1.2@d", "7.12@a@b.c 1.2@d"),
        ] {
            let id = PageId { connection, page, relay: relay.to_owned() };
            assert_eq!(id.to_string(), text);
            assert_eq!(PageId::parse(text), Some(id));
        }
        let long = format!("1.2@{}", "x".repeat(257));
        for bad in [
            "",
            "1",
            "1.2",
            "1.2@",
            "1@box",
            ".2@box",
            "1.@box",
            "01.2@box",
            "1.02@box",
            "+1.2@box",
            "1.-2@box",
            " 1.2@box",
            "1.4294967296@box",
            "18446744073709551616.1@box",
            "1.2.3@box",
            &long,
        ] {
            assert_eq!(PageId::parse(bad), None, "{bad:?}");
        }
    }
}
