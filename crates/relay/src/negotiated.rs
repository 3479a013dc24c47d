//! What the business server of one connection knows beyond plain version 1, and who pages are as
//! authors there.
//!
//! Owns the words that it named, and what pages are told of the connection, as one number: so a
//! page that missed that the uplink was lost and came back hears of it all the same. Knows no
//! frames and no pages.

use wire::{
    page::Standing,
    uplink::{AWAY, Author, RECEIPTS, author, features},
};

/// The extensions that the relay knows.
pub const WORDS: &str = "away receipts";
/// What a page knows of the uplink: it is down.
pub const DOWN: u32 = 0;
/// The same: the page takes it for up, and was told that it is no author.
pub const NOBODY: u32 = 1;
/// The same: the page was told nothing, and takes it for up.
pub const ANY: u32 = u32::MAX;

/// What was negotiated on a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Negotiated {
    /// The business server's nonce in the handshake.
    pub challenge: [u8; 16],
    /// Whether frames of extensions may come.
    pub is_extended: bool,
    /// It has not said which it knows. Pages hear that the uplink is back once it has.
    pub is_awaited: bool,
    /// Whether it may ask the relay to leave.
    pub has_away: bool,
    /// Whether it answers pages' messages.
    pub has_receipts: bool,
}

impl Negotiated {
    /// With this challenge, and nothing else yet.
    pub fn new(challenge: [u8; 16]) -> Self {
        Self { challenge, ..Self::default() }
    }

    /// The words of its `Features`.
    pub fn named(&mut self, words: &str) {
        self.has_away = features(words).any(|word| word == AWAY);
        self.has_receipts = features(words).any(|word| word == RECEIPTS);
    }

    /// What pages are told of the connection with this number, from 1 on: itself, and whether it
    /// has receipts. [`DOWN`] while it is not known.
    pub fn told(&self, connection: u64) -> u32 {
        // None of the above: that many connections are not made.
        let told = 2 * connection + u64::from(self.has_receipts);
        if self.is_awaited { DOWN } else { u32::try_from(told).unwrap_or(ANY - 1) }
    }

    /// What a page may use, and who it is.
    pub fn standing(&self, nonce: &[u8; 16], page: u32) -> Standing {
        let author: Author = author(&self.challenge, nonce, page);
        Standing { receipts: self.has_receipts, author: Some(author) }
    }
}
