//! The hub as a pure machine: topics by name over an engine, links, relays.
//!
//! A hub is the relay's idea one storey up: a track is a ring of ready uplink frames, a relay is a
//! cursor into it. The rings and the relays are `business`'s; the hub fills the rings from an
//! engine, which numbers and keeps what is published, and says who may watch. No sockets, no clock,
//! no tasks.
//!
//! ```text
//! API -> api.rs ----> engine (memory.rs, or a server) --doorbells-+
//!                        ^                                        |
//!                        +------- reads -------- topics.rs <------+
//!                                                following.rs
//! relays <-> business <-------- publications --------+
//!         -> relays.rs -> admission.rs -> webhook
//! ```
#![forbid(unsafe_code)]

pub mod admission;
mod api;
pub mod call;
pub mod counters;
pub mod engine;
mod following;
mod hub;
pub mod link;
pub mod memory;
mod name;
mod note;
mod notice;
mod page_id;
mod purpose;
pub mod rate;
mod relays;
pub mod settings;
pub mod token;
mod topics;

pub use hub::Hub;
pub use memory::{Memory, Moment};
pub use name::{FleetKey, NAME_SIZE_MAX, Name, shown};
pub use note::Note;
pub use notice::Notice;
pub use page_id::PageId;
pub use purpose::Ticket;
pub use settings::Settings;
