//! Files by which a client of ACME proves that it controls a name (RFC 8555, 8.3): http-01.
//!
//! Owns the path, and what a file may be: a token, as its name, in the configured directory.
//! Refuses everything else as not found. Reads one small file of the local disk, without waiting.

use super::Daemon;
use super::response::Response;
use crate::config::file;

const PATH: &str = "/.well-known/acme-challenge/";
/// Size of a key authorization, in bytes, at most. Usual ones have 87.
const SIZE_MAX: u64 = 1024;
/// Length of a token, at most.
const TOKEN_SIZE_MAX: usize = 128;

/// The answer to a request for a challenge; `None` if it is for none that exists.
pub fn answer(daemon: &Daemon, path: &str) -> Option<Response> {
    let token = path.strip_prefix(PATH).filter(|token| is_token(token))?;
    let path = daemon.config.borrow().challenge_directory.as_ref()?.join(token);
    let bytes = file::read(&path, SIZE_MAX).ok()?;
    Some(Response { body: bytes.into(), ..Response::plain(200, "") })
}

/// Base64url without padding (RFC 8555, 8.1): no dot, no slash.
fn is_token(token: &str) -> bool {
    (1..=TOKEN_SIZE_MAX).contains(&token.len())
        && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_a_file_in_the_directory_and_no_other() {
        assert!(is_token("evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr_oA"));
        for path in ["", ".", "..", "a/b", "a.b", "%2e", "\0", &"a".repeat(TOKEN_SIZE_MAX + 1)] {
            assert!(!is_token(path), "{path:?}");
        }
    }
}
