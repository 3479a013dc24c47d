//! All tests from outside the library, in one binary.

#![allow(missing_docs, reason = "tests speak by their names")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test stops where it fails")]

mod anyone;
mod attackers;
mod bench;
mod bounds;
mod browser;
mod counts;
mod crowd;
mod documents;
mod fleet;
mod fuzzing;
mod pages;
mod preview;
mod program;
mod renewal;
mod seeds;
mod service;
mod simulation;
mod soak;
mod vectors;
mod world;
mod wss;
