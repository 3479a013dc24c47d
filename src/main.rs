//! The program: parses arguments, runs a command, returns an exit code. The rest is in the library.
//!
//! Owns the output streams: results go to standard output, errors to standard error. A reader that
//! closes the pipe early (`sharelinkd config | head -1`) is not an error and never causes a panic.

mod cli;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use cli::Command;
use sharelinkd::config::{Config, ConfigError};

/// Wrong arguments: `EX_USAGE` of sysexits.h.
const EXIT_USAGE: u8 = 64;
/// The output can't be written: `EX_IOERR`.
const EXIT_OUTPUT: u8 = 74;
/// A configuration that is wrong: `EX_CONFIG`.
const EXIT_CONFIG: u8 = 78;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run(path)) => match Config::load(&path, board::SELECTED) {
            Ok(config) => sharelinkd::daemon::run(config, path),
            Err(errors) => refuse(&errors, "; nothing was started"),
        },
        Ok(Command::Check(path)) => match Config::load(&path, board::SELECTED) {
            Ok(config) => print(&checked(&path, &config)),
            Err(errors) => refuse(&errors, ""),
        },
        Ok(Command::DropIn(board, path)) => drop_in(board.as_deref(), path.as_deref()),
        Ok(Command::Config) => print(Config::default_text()),
        Ok(Command::Console(way, words)) => sharelinkd::terminal::console(&way, &words),
        Ok(Command::Status(path, as_json)) => sharelinkd::terminal::status(&path, as_json),
        Ok(Command::Demo(options)) => sharelinkd::demo::run(options),
        Ok(Command::Bench(options)) => sharelinkd::bench::run(&options),
        Ok(Command::BenchCeiling(pages)) => sharelinkd::bench::run_ceiling(pages),
        Ok(Command::Help(text)) => print(text),
        Ok(Command::Version) => print(&cli::version()),
        Err(cli::UsageError(text)) => complain(&text, EXIT_USAGE),
    }
}

/// The output of `check` for a valid configuration.
fn checked(path: &Path, config: &Config) -> String {
    let notes: String = config.notes().iter().map(|note| format!("# note: {note}\n")).collect();
    let table: String = board::table(&config.board).lines().map(|line| format!("# {line}\n")).collect();
    format!("# {}: valid. In full:\n{notes}\n{config}\n# Memory of the relay, at most:\n#\n{table}", path.display())
}

fn drop_in(name: Option<&str>, path: Option<&Path>) -> ExitCode {
    let board = name.map_or(Some(board::SELECTED), board::by_name);
    let Some(board) = board else {
        let names: Vec<&str> = board::ALL.iter().map(|board| board.name).collect();
        let text = format!("there is no board {:?}: choose one of {}", name.unwrap_or_default(), names.join(", "));
        return complain(&text, EXIT_USAGE);
    };
    match path.map_or_else(|| Config::of_defaults(board), |path| Config::load(path, board)) {
        Ok(config) => {
            let serial = config.console.serial.as_ref().and_then(|serial| serial.device.to_str());
            print(&board::drop_in(&config.board, serial))
        }
        Err(errors) => refuse(&errors, ""),
    }
}

fn refuse(errors: &[ConfigError], consequence: &str) -> ExitCode {
    let mut out = String::new();
    for error in errors {
        out.push_str(&format!("{error}\n"));
    }
    let count = errors.len();
    out.push_str(&format!(
        "sharelinkd: the configuration has {count} error{}{consequence}\n",
        if count == 1 { "" } else { "s" }
    ));
    // If standard error is closed, the exit code still reports the failure.
    let _ = io::stderr().write_all(out.as_bytes());
    ExitCode::from(EXIT_CONFIG)
}

fn complain(text: &str, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "sharelinkd: {text}");
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
