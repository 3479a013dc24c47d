//! Makes API keys and secrets: `sharelink-hub key` and `sharelink-hub secret`.
//!
//! Owns their forms. What is made is printed once and kept nowhere: of a key the configuration has
//! the hash alone. Refuses a row that the configuration would refuse, and a system without random
//! bytes.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use sha2::{Digest as _, Sha256};
use sharelinkd::config::{Surroundings, render::Quoted};

use crate::config::Config;

/// What `key` is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyOptions {
    /// Its name, for logs.
    pub name: String,
    /// Its scopes, as the configuration has them.
    pub scopes: String,
    /// The prefix of the topics that it is for.
    pub topics: String,
}

/// A random API key: `slk_` and 32 bytes in base64url.
///
/// # Errors
/// The system has no random bytes.
pub fn random_key() -> Result<String, String> {
    Ok(format!("slk_{}", URL_SAFE_NO_PAD.encode(random()?)))
}

/// A random secret: 32 bytes in base64url.
///
/// # Errors
/// The system has no random bytes.
pub fn random_secret() -> Result<String, String> {
    Ok(URL_SAFE_NO_PAD.encode(random()?))
}

/// 32 random bytes.
///
/// # Errors
/// The system has none.
pub fn random() -> Result<[u8; 32], String> {
    let mut bytes = [0; 32];
    let filled = getrandom::fill(&mut bytes);
    filled.map(|()| bytes).map_err(|error| format!("can't get random bytes from the system: {error}"))
}

/// The output of `key`.
///
/// # Errors
/// The row would be none for the configuration, or the system has no random bytes.
pub fn key(options: &KeyOptions) -> Result<String, String> {
    let key = random_key()?;
    let hash: String = Sha256::digest(&key).iter().map(|byte| format!("{byte:02x}")).collect();
    let [name, scopes, topics] = [&options.name, &options.scopes, &options.topics].map(Quoted);
    let row = format!("{{ name = {name}, hash = \"sha256:{hash}\", scopes = {scopes}, topics = {topics} }}");
    Config::parse(&format!("[api]\nkeys = [{row}]\n"), &Surroundings::without_files("key")).map_err(|problems| {
        problems.iter().map(|it| format!("{}; {}", it.what, it.remedy)).collect::<Vec<_>>().join("\n")
    })?;
    Ok(format!(
        "# The key, for the caller. It is shown once and stored nowhere:\n{key}\n\n\
         # Its row for [api] keys = [ ... ] in the hub's configuration:\n    {row},\n"
    ))
}

/// The output of `secret`: for a file of its own.
///
/// # Errors
/// The system has no random bytes.
pub fn secret(is_for_webhooks: bool) -> Result<String, String> {
    if is_for_webhooks {
        return Ok(format!("whsec_{}\n", STANDARD.encode(random()?)));
    }
    Ok(format!("{}\n", random_secret()?))
}
