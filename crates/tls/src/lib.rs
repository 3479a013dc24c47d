//! The TLS record layer of a page whose handshake is done (RFC 8446 and RFC 5246): seal, open, key
//! update, alerts. No I/O, no clock, no randomness.

#![forbid(unsafe_code)]

pub mod keys;
pub mod record;
pub mod suite;
