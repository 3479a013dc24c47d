//! `sharelink-hub`: the library's program, and nothing else.
//!
//! Owns the entry of the process. All that it does is in `lib.rs` and below, where tests and the
//! fuzzer of the API reach it too; knows no argument and no file. Refuses nothing itself.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    sharelink_hub::program()
}
