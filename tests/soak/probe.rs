//! Reads the relay's figures from outside: from the kernel and from the relay's console.
//!
//! Owns only where they are: `/proc` for resident memory, descriptors and processor time, `ss` for
//! the queues of the relay's sockets (those on its port and its end of the uplink), the console's
//! socket for the tables and all counters. Decides nothing.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value;
use sharelinkd::bench;
use sharelinkd::terminal::ask;

/// A running relay.
pub struct Probe {
    pub process: u32,
    pub address: SocketAddr,
    pub business: [SocketAddr; 2],
    pub console: PathBuf,
}

impl Probe {
    /// Resident memory, bytes.
    pub fn resident(&self) -> f64 {
        as_number(bench::resident(self.process))
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> Option<f64> {
        let count = fs::read_dir(format!("/proc/{}/fd", self.process)).ok()?.count();
        Some(as_number(count as u64))
    }

    /// Processor time so far, seconds.
    pub fn processor(&self) -> f64 {
        bench::cpu(self.process).total_ms / 1000.0
    }

    /// Bytes queued in the kernel in the relay's sockets, in both directions.
    pub fn kernel(&self) -> Option<f64> {
        let [first, second] = self.business.map(|address| address.port());
        let filter = format!("sport = :{} or dport = :{first} or dport = :{second}", self.address.port());
        bench::queued(&filter).map(as_number)
    }

    /// The console's `json`.
    pub fn state(&self) -> Result<Value, String> {
        serde_json::from_str(&ask(&self.console, "json")?).map_err(|error| format!("the console's json: {error}"))
    }

    /// The console's `counters`.
    pub fn counters(&self) -> Result<Vec<(String, f64)>, String> {
        let text = ask(&self.console, "counters")?;
        let mut words = text.split_whitespace();
        let mut found = Vec::new();
        while let (Some(name), Some(number)) = (words.next(), words.next()) {
            let number = number.parse().map_err(|_| format!("the console's counters: {name} {number}"))?;
            found.push((name.to_owned(), number));
        }
        Ok(found)
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes and counts below 2^53")]
fn as_number(number: u64) -> f64 {
    number as f64
}
