//! sharelinkd
#![forbid(unsafe_code)]
pub mod board;
pub mod config;
pub mod daemon;
pub mod demo;
pub mod relay;
pub mod wire;
