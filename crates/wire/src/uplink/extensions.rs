//! Extensions of version 1: how both sides say which they know, and their words.
//!
//! Owns the mark in the nonces and the list of words. The frames themselves are appended to those
//! of version 1 in `uplink.rs`, which refuses them where they were not asked for. Knows nothing of
//! what an extension does.

/// The last bytes of the nonce in `Challenge` of a business server that knows extensions, and of
/// the nonce in `Hello` of a relay that knows them too and answers such a challenge. It then sends
/// `Features` as its first frame after `Welcome`, and the business server answers with its own.
/// Frames that were appended to version 1 go either way only after that, and only those that both
/// named. To a peer of plain version 1 nothing changes, not even by a frame.
pub const EXTENSIONS_MARK: [u8; 4] = *b"+ext";
/// The maximum size of the words of `Features`, in bytes.
pub const FEATURES_SIZE_MAX: usize = 256;
/// The extension by which a business server asks relays to leave.
pub const AWAY: &str = "away";
/// The extension by which a business server says that it has a page's message.
pub const RECEIPTS: &str = "receipts";

/// A nonce with the mark of who knows extensions. `random` must be random and new.
#[must_use]
pub fn marked(random: [u8; 12]) -> [u8; 16] {
    let mut nonce = [0; 16];
    for (byte, from) in nonce.iter_mut().zip(random.into_iter().chain(EXTENSIONS_MARK)) {
        *byte = from;
    }
    nonce
}

/// Whether a nonce is from one who knows extensions.
#[must_use]
pub fn is_marked(nonce: &[u8; 16]) -> bool {
    nonce.ends_with(&EXTENSIONS_MARK)
}

/// The words of `Features`, which are separated by spaces. Words that aren't known mean nothing.
pub fn features(words: &str) -> impl Iterator<Item = &str> {
    words.split(' ').filter(|word| !word.is_empty())
}
