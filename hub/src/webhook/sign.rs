//! Signatures as Standard Webhooks 1.0.0 defines them: `v1`, HMAC-SHA256.
//!
//! Owns the form of a secret, and the three headers of a call. With two secrets there are two
//! signatures, so that a receiver can change from one to the other. Refuses secrets that are too
//! short to be one. No error quotes a secret. Doesn't know the time or what is signed.

use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// What a secret's text begins with.
const PREFIX: &str = "whsec_";
/// The size of a secret, in bytes: what the specification recommends, 24 to 64.
const SIZE_MIN: usize = 24;
const SIZE_MAX: usize = 64;
/// Some tools leave out the padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Decodes a secret's text, `whsec_` and base64.
///
/// # Errors
/// What is wrong and how to mend it, without the text.
pub fn secret(text: &str) -> Result<Vec<u8>, &'static str> {
    const FORM: &str =
        "write whsec_ and the base64 of 32 random bytes: `echo whsec_$(openssl rand -base64 32)` makes one";
    let encoded = text.strip_prefix(PREFIX).ok_or(FORM)?;
    let bytes = LENIENT.decode(encoded).map_err(|_| FORM)?;
    if (SIZE_MIN..=SIZE_MAX).contains(&bytes.len()) { Ok(bytes) } else { Err("a secret has 24 to 64 bytes") }
}

/// The value of `webhook-signature`: one signature for each key, separated by spaces.
pub fn signatures(keys: &[Vec<u8>], id: &str, timestamp: &str, body: &[u8]) -> String {
    let mut all = String::new();
    for key in keys {
        // It takes keys of any length, so there is no error.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { continue };
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        if !all.is_empty() {
            all.push(' ');
        }
        all.push_str("v1,");
        STANDARD.encode_string(mac.finalize().into_bytes(), &mut all);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example in the specification's own libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    #[test]
    fn signatures_are_those_of_the_specification() {
        let key = secret(SECRET).unwrap();
        assert_eq!(signatures(std::slice::from_ref(&key), ID, "1614265330", BODY), SIGNATURE);
        // Worked out by `openssl dgst -sha256 -hmac`.
        let other = b"another key of 24 bytes.".to_vec();
        let both = signatures(&[other, key], ID, "1614265330", BODY);
        assert_eq!(both, format!("v1,APbQNxKUn2e5lYvK3YGInvJ4DssWaDZYx4CfHqloctk= {SIGNATURE}"));
    }

    #[test]
    fn a_secret_is_base64_behind_its_prefix() {
        let bytes = b"another key of 24 bytes.".to_vec();
        assert_eq!(secret(&format!("whsec_{}", STANDARD.encode(&bytes))), Ok(bytes));
        assert_eq!(secret("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").map(|key| key.len()), Ok(25), "without padding");
        let long = format!("whsec_{}", STANDARD.encode([0; 65]));
        let short = format!("whsec_{}", STANDARD.encode([0; 23]));
        for bad in [
            "",
            "whsec_",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_*",
            "WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            &long,
            &short,
        ] {
            let why = secret(bad).unwrap_err();
            assert!(bad.len() < 7 || !why.contains(&bad[6..]), "{why}");
        }
    }
}
