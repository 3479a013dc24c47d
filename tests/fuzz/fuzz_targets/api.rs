//! Runs `api::api` under libFuzzer.
#![no_main]

#[path = "../api.rs"]
mod api;

libfuzzer_sys::fuzz_target!(|data: &[u8]| api::api(data));
