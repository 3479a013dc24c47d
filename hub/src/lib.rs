//! `sharelink-hub`: one `curl` to publish, one webhook to say who may watch.
//!
//! The program around the hub's machine (`crates/hub`): tokio, sockets, HTTP, the clock. Downstream
//! it is the business server of many relays; upstream a company's back end speaks HTTP to it and
//! answers its webhooks. Owns the exit codes and the output streams; decides nothing about topics,
//! links or relays.
#![forbid(unsafe_code)]

mod cli;
mod client;
mod config;
mod dev;
pub mod http;
mod ingest;
mod logging;
mod metrics;
mod push;
mod relays;
mod revocations;
mod run;
mod secrets;
pub mod shared;
mod tls;
mod webhook;

use std::{
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use cli::{Command, UsageError};
use config::Config;
use sharelinkd::config::ConfigError;

/// Wrong arguments: `EX_USAGE` of sysexits.h.
const EXIT_USAGE: u8 = 64;
/// No running hub: `EX_UNAVAILABLE`.
const EXIT_UNAVAILABLE: u8 = 69;
/// The output can't be written: `EX_IOERR`.
const EXIT_OUTPUT: u8 = 74;
/// A configuration that is wrong: `EX_CONFIG`.
const EXIT_CONFIG: u8 = 78;

/// Runs the program with the arguments of this process.
pub fn program() -> ExitCode {
    match cli::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run(path)) => match Config::load(&path) {
            Ok(config) => run::run(config, path),
            Err(errors) => refuse(&errors, "; nothing was started"),
        },
        Ok(Command::Check(path)) => match Config::load(&path) {
            Ok(config) => print(&checked(&path, &config)),
            Err(errors) => refuse(&errors, ""),
        },
        Ok(Command::Config) => print(Config::default_text()),
        Ok(Command::Key(options)) => made(secrets::key(&options)),
        Ok(Command::Secret(is_for_webhooks)) => made(secrets::secret(is_for_webhooks)),
        Ok(Command::Dev(options)) => dev::run(&options),
        Ok(Command::DevRelay(path)) => dev::relay(path),
        Ok(Command::Say(target, say)) => ended(client::say(&target, &say)),
        Ok(Command::Push(target, topic)) => ended(push::push(&target, &topic)),
        Ok(Command::Status(target, is_json)) => ended(client::status(&target, is_json)),
        Ok(Command::Help(text)) => print(text),
        Ok(Command::Version) => print(&format!("sharelink-hub {}\n", env!("CARGO_PKG_VERSION"))),
        Err(UsageError(text)) => complain(&text, EXIT_USAGE),
    }
}

/// The output of `check` for a valid configuration.
fn checked(path: &Path, config: &Config) -> String {
    let mut notes = config.notes();
    // The service's user may not write where root may.
    if config.revocations_file.is_some() && rustix::process::geteuid().is_root() {
        notes.push(
            "checked as root, who may write anywhere: whether the service may write [topics] revocations_file says \
             `runuser -u sharelink-hub -- sharelink-hub check --config FILE`"
                .to_owned(),
        );
    }
    let notes: String = notes.iter().map(|note| format!("# note: {note}\n")).collect();
    let sum: String = config::sum(config).lines().map(|line| format!("# {line}\n")).collect();
    format!("# {}: valid. In full:\n{notes}\n{config}\n# Memory, at most:\n#\n{sum}", path.display())
}

fn made(secret: Result<String, String>) -> ExitCode {
    match secret {
        Ok(text) => print(&text),
        Err(error) => complain(&error, 1),
    }
}

fn ended(answer: Result<String, client::Failure>) -> ExitCode {
    match answer {
        Ok(text) => print(&text),
        Err(client::Failure::Usage(text)) => complain(&text, EXIT_USAGE),
        Err(client::Failure::Unreachable(text)) => complain(&text, EXIT_UNAVAILABLE),
        Err(client::Failure::Refused(text)) => complain(&text, 1),
    }
}

fn refuse(errors: &[ConfigError], consequence: &str) -> ExitCode {
    let mut out: String = errors.iter().map(|error| format!("{error}\n")).collect();
    let plural = if errors.len() == 1 { "" } else { "s" };
    out += &format!("sharelink-hub: the configuration has {} error{plural}{consequence}\n", errors.len());
    // If standard error is closed, the exit code still reports the failure.
    let _ = io::stderr().write_all(out.as_bytes());
    ExitCode::from(EXIT_CONFIG)
}

fn complain(text: &str, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "sharelink-hub: {text}");
    ExitCode::from(code)
}

fn print(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => complain(&format!("standard output: {error}"), EXIT_OUTPUT),
    }
}
