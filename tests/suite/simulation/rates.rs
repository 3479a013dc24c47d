//! Rate limits as the contract states them: within any time span at most the burst plus the span's
//! tokens may pass.
//!
//! A [`Passed`] holds the times at which something passed one limit and compares every pair of
//! them, so it is independent of how the relay counts. Times may come late and in any order: a page
//! learns only from the answer whether its request passed. Requests without an answer are left out,
//! which only weakens the check.

use std::net::IpAddr;

use super::ensure;

/// Times that are compared; older ones are dropped.
const MOMENTS_MAX: usize = 200;

/// Reasons of denials that take no token.
const TAKE_NO_TOKEN: [&str; 5] = [
    "too many requests, ask again later",
    "this is not a share link",
    "this page has too many topics already",
    "the relay has no room for more subscriptions now",
    "the relay restarts",
];

/// Whether a `subscribe` that was denied for this reason had passed the limits.
pub fn is_passed(reason: &str) -> bool {
    !TAKE_NO_TOKEN.contains(&reason)
}

/// The times at which something passed one limit.
#[derive(Debug, Default)]
pub struct Passed(Vec<u64>);

impl Passed {
    /// Records one more time.
    pub fn add(&mut self, at: u64, burst: u32, per_s: u32, what: &str) -> Result<(), String> {
        let place = self.0.partition_point(|other| *other <= at);
        self.0.insert(place, at);
        for (first, begin) in self.0.iter().enumerate().take(place + 1) {
            for (last, end) in self.0.iter().enumerate().skip(place) {
                let passed = (last - first + 1) as u64;
                let most = u64::from(burst) + (end - begin) * u64::from(per_s) / 1_000;
                ensure!(passed <= most, "RATE: {passed} {what} passed within {} ms, at most {most} may", end - begin);
            }
        }
        if self.0.len() > MOMENTS_MAX {
            self.0.remove(0);
        }
        Ok(())
    }
}

/// The network of an address: the first four octets, or the first eight.
pub fn network(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets()[..8].to_vec(),
    }
}
