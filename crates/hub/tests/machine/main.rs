//! The hub's machine as its users see it: relays, the API, the webhook, the engine `memory`. What
//! happens when parts fail in any order is tested by the suite's `fleet`.

#![allow(missing_docs, reason = "tests speak by their names")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test stops where it fails")]
#![expect(clippy::cast_possible_truncation, reason = "numbers of the tests' own making, all small")]

extern crate sharelinkd_hub as hub;

mod admission;
mod api;
mod engine;
mod order;
mod relays;
mod rig;
