//! `sharelinkd`: what happens inside a social app, live, on the web page behind a share link.
//!
//! This is the library under the program of the same name. The program is what users run; the library is
//! there so that tests, fuzzers and the demo can hold its layers in their hands. It is not published, and
//! its interface changes whenever the program needs it to.
//!
//! A relay stands between a *business server*, which decides who may see what, and thousands of *pages*,
//! each of them one browser's WebSocket. What the business server publishes on a *topic* goes out to the
//! pages that were admitted to it. A topic has four *tracks*: the newest state, messages in order,
//! sound, and picture. Everything here follows from one idea: **a track is a ring of ready-to-send
//! frames, and a page is a cursor into it.** A publication is encoded once, as the bytes that every page
//! gets; a page that is slow, late or back again is a cursor at an earlier place; one that fell behind the
//! ring is told what it missed. The workspace is a handful of layers, each of which knows only those below: [`board`],
//! [`wire`] and [`relay`] are crates without std, the rest is here.
//!
//! # The board
//!
//! [`board`] is the box that the relay was built for: how many pages, topics, links, blocks of memory, and
//! how long things may take. `board/*.toml` are the sources; the build turns each into a constant and
//! refuses what doesn't fit together. Its memory sum has a term for each owner. It knows nothing of
//! what a limit is for.
//!
//! # The wire
//!
//! [`wire`] is the bytes of both protocols and nothing else: postcard frames on the uplink
//! ([`wire::uplink`]), WebSocket frames and JSON towards pages ([`wire::page`]), and whether bytes are one
//! JSON value ([`wire::json`]). It checks every length and every variant, and says at which byte
//! something is wrong. What a frame means is not its business. `docs/protocol.md` is the contract, and
//! `tests/vectors/` freezes it.
//!
//! # The machine
//!
//! [`relay`] decides everything and does nothing. [`relay::Relay`] owns all tables and the arena, taken
//! once at start. It has no socket, no clock, no log and no task: `handle_*` tells it what the world did,
//! `poll_*` asks what the world must do next, and time is an argument. So a whole evening of pages that
//! come, stall and leave can be played in a test within a second, and again from its seed.
//!
//! Read it in the order in which a publication takes its way: `uplink` (is the frame in place?), `topic`
//! (the tracks' rules), `log` (the ring), `cursor` (what is ahead of a page), `transmit` (which bytes
//! are next), `fanout` (whose turn it is). Who is let in and who is asked for is `pages`, `admission` and
//! `asking`; what comes of it is `answering`.
//! What must always hold is written down in `check`, and is checked there.
//!
//! # The configuration
//!
//! [`config`] reads one TOML file, whole: a typed value, or every error at once, each with its line and
//! its remedy. It may lower a board's limits and never raises them. It resolves no names and opens no
//! socket.
//!
//! # The console
//!
//! [`console`] is what an engineer types at the box and what is answered, as text: bytes in, bytes out. It reads the machine
//! through its getters and changes nothing by itself.
//!
//! [`metrics`] are the same figures for Prometheus, as text too.
//!
//! # The shell
//!
//! [`daemon`] is the sockets around the machine, on one thread of a smol executor. Tasks send each other
//! no bytes: each mutates the machine in one step, and the step wakes whoever has work, who then pulls.
//! One task writes to all pages, straight out of the arena; a page's own task reads, closes, and waits
//! where its socket is full. It reads the only clock that the machine hears of.
//!
//! [`terminal`] is the console's other end, for the engineer: `sharelinkd console` and `sharelinkd status`.
//!
//! # The demo
//!
//! [`demo`] is a room that lives in a business server, and a host's page to run that room. The business server is
//! [`business`], a crate of its own; [`media`] splits what a browser records. It meets the relay over a real socket.
#![deny(unsafe_code)]

pub mod bench;
pub mod config;
pub mod console;
pub mod daemon;
pub mod demo;
pub mod metrics;
pub mod terminal;
mod tty;
