//! `sharelinkd`: what happens inside a social app, live, on the web page behind a share link.
//!
//! This is the library under the program of the same name. Users run the program; the library
//! exists so that tests, fuzzers and the demo can use its layers directly. It is not published, and
//! its interface changes whenever the program needs it to.
//!
//! A relay stands between a *business server*, which decides who may see what, and thousands of
//! *pages*, each of them one browser's WebSocket. What the business server publishes on a *topic*
//! goes to the pages that were admitted to it. A topic has four *tracks*: the newest state,
//! messages in order, audio, and video. One idea carries the design: **a track is a ring of
//! ready-to-send frames, and a page is a cursor into it.** A publication is encoded once, as the
//! bytes that every page gets. A page that is slow, late or reconnecting is a cursor at an earlier
//! place. A page that fell behind the ring is notified of the gap. The workspace has a few layers,
//! each of which knows only those below: [`board`], [`wire`] and [`relay`] are `no_std` crates, the
//! rest is here.
//!
//! # The board
//!
//! [`board`] holds the limits of the box that the relay was built for: pages, topics, links, memory
//! blocks, timeouts. The sources are `board/*.toml`; the build turns each into a constant and
//! refuses limits that contradict each other. Its memory sum has one term for each owner. It
//! doesn't know what a limit is used for.
//!
//! # The wire
//!
//! [`wire`] encodes and decodes both protocols: postcard frames on the uplink ([`wire::uplink`]),
//! WebSocket frames and JSON for pages ([`wire::page`]), and the check that bytes are one JSON
//! value ([`wire::json`]). It checks every length and every variant, and reports the offset of an
//! error. It doesn't know what a frame means. `docs/protocol.md` is the contract, and
//! `tests/vectors/` freezes it.
//!
//! # The machine
//!
//! [`relay`] makes every decision and does no I/O. [`relay::Relay`] owns all tables and the arena,
//! allocated once at start. It has no socket, no clock, no log and no task: `handle_*` reports what
//! happened outside, `poll_*` returns what to do next, and time is an argument. So a test can play
//! a whole evening of pages that come, stall and leave within a second, and replay it from its
//! seed.
//!
//! Read it in the order that a publication takes: `uplink` (is the frame allowed now?), `topic`
//! (the tracks' rules), `log` (the ring), `cursor` (what is ahead of a page), `transmit` (which
//! bytes are next), `fanout` (which page is next). `pages`, `admission` and `asking` decide who is
//! let in and what is asked of the business server; `answering` handles its answers. `check` writes
//! down and checks the invariants.
//!
//! # The configuration
//!
//! [`config`] reads one TOML file as a whole. It returns a typed value, or every error at once,
//! each with its line and its remedy. It may lower a board's limits and never raises them. It
//! resolves no names and opens no socket.
//!
//! # The console
//!
//! [`console`] takes what an engineer types at the box and answers in text: bytes in, bytes out. It
//! reads the machine through its getters and changes nothing by itself.
//!
//! [`metrics`] renders the same figures as text for Prometheus.
//!
//! # The shell
//!
//! [`daemon`] owns the sockets around the machine, on one thread of a smol executor. Tasks send
//! each other no bytes: each mutates the machine in one step, and the step wakes the tasks that
//! have work, which then pull. One task writes to all pages, straight out of the arena. A page's
//! own task reads, closes, and waits while its socket is full. The daemon reads the only clock that
//! the machine gets.
//!
//! [`terminal`] is the engineer's end of the console: `sharelinkd console` and `sharelinkd status`.
//!
//! # The demo
//!
//! [`demo`] is a room served by a business server, with a host's page to run it. The business
//! server is the crate [`business`]; [`media`] splits what a browser records. The demo talks to the
//! relay over a real socket.
#![deny(unsafe_code)]

mod authority;
pub mod bench;
pub mod certificate;
mod clock;
pub mod config;
pub mod console;
pub mod daemon;
pub mod date;
pub mod demo;
pub mod metrics;
pub mod terminal;
mod tty;
