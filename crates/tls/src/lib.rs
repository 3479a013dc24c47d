//! The TLS record layer of a page whose handshake is done (RFC 8446 and RFC 5246): seal, open, key
//! update, alerts, and which record goes before which. What a certificate says, and which one
//! answers a name. No I/O, no clock, no randomness, no allocation.
//!
//! The handshake is rustls's (in the daemon). This crate begins with the keys that it leaves.

#![forbid(unsafe_code)]

pub mod alert;
pub mod certificate;
pub mod channel;
pub mod keys;
pub mod ledger;
pub mod names;
pub mod record;
pub mod suite;
pub mod writing;

mod der;
