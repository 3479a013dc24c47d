//! The build script: reads every `board/*.toml`, reports all errors by file and line, and writes
//! each board as a constant of type `Board` to `OUT_DIR/boards.rs`, which `src/lib.rs` includes.
//!
//! Owns the selection of the board (`SHARELINKD_BOARD`, by default `host`) and the one line that a
//! build prints: the selected board's memory sum. Shares its modules with the crate, which tests
//! them: parsing a board file (`source.rs`), the rules between limits (`rules.rs`) and the memory
//! sum (`sum.rs`).

extern crate alloc;

#[path = "src/limits.rs"]
#[expect(dead_code, reason = "the configuration uses the rest")]
mod limits;
#[path = "src/rules.rs"]
#[expect(dead_code, reason = "the crate's compile-time assertions use the rest")]
mod rules;
#[path = "src/source.rs"]
mod source;
#[path = "src/sum.rs"]
#[expect(dead_code, reason = "the crate's table uses the rest")]
mod sum;
#[path = "src/table.rs"]
#[expect(dead_code, reason = "the crate prints the table")]
mod table;

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use limits::Board;

const VARIABLE: &str = "SHARELINKD_BOARD";
/// The directory of the boards relative to the root of the tree, for messages.
const DIRECTORY: &str = "board";

fn main() -> ExitCode {
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problems) => {
            for problem in problems {
                println!("cargo::error={problem}");
            }
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), Vec<String>> {
    let boards = read_boards()?;
    let wanted = env::var(VARIABLE).unwrap_or_else(|_| "host".to_owned());
    let Some(selected) = boards.iter().find(|board| board.name == wanted) else {
        let names: Vec<&str> = boards.iter().map(|board| board.name).collect();
        return Err(vec![format!(
            "{VARIABLE}={wanted:?} is not a board: choose one of {}, or write {DIRECTORY}/{wanted}.toml (see {DIRECTORY}/README.md)",
            names.join(", ")
        )]);
    };
    let directory = env::var("OUT_DIR").map_err(|error| vec![format!("OUT_DIR: {error}: run this through Cargo")])?;
    let target = env::var("TARGET").map_err(|error| vec![format!("TARGET: {error}: run this through Cargo")])?;
    let path = Path::new(&directory).join("boards.rs");
    fs::write(&path, constants(&boards, selected, &target))
        .map_err(|error| vec![format!("{}: {error}", path.display())])?;
    println!("cargo::warning=note: board {}: {}", selected.name, source::sum_text(selected));
    Ok(())
}

fn read_boards() -> Result<Vec<Board>, Vec<String>> {
    let unreadable = |path: &Path, error: std::io::Error| vec![format!("{DIRECTORY}/{}: {error}", path.display())];
    // A build script runs in the directory of its package.
    let directory = Path::new(".");
    let entries = fs::read_dir(directory).map_err(|error| unreadable(directory, error))?;
    let mut paths = Vec::new();
    for entry in entries {
        let name = entry.map_err(|error| unreadable(directory, error))?.file_name();
        let path = PathBuf::from(name);
        if path.extension().is_some_and(|extension| extension == "toml") && path.as_os_str() != "Cargo.toml" {
            paths.push(path);
        }
    }
    paths.sort();
    // Watch the files, not the directory, which has scripts too. A new board is found when it is
    // first selected, since that changes the variable.
    for path in &paths {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    let (mut boards, mut problems) = (Vec::new(), Vec::new());
    for path in paths {
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        if !stem.starts_with(|first: char| first.is_ascii_lowercase())
            || !stem.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        {
            problems.push(format!(
                "{DIRECTORY}/{}: a board's name has lower-case letters, digits and hyphens: rename the file",
                path.display()
            ));
            continue;
        }
        if matches!(stem.as_str(), "all" | "selected" | "target") {
            problems
                .push(format!("{DIRECTORY}/{}: the name is reserved for a constant: rename the file", path.display()));
            continue;
        }
        let text = fs::read_to_string(&path).map_err(|error| unreadable(&path, error))?;
        match source::board(String::leak(stem), &text) {
            Ok(board) => boards.push(board),
            Err(found) => problems.extend(found.iter().map(|problem| {
                format!("{DIRECTORY}/{}:{}: {}; {}", path.display(), problem.line, problem.what, problem.remedy)
            })),
        }
    }
    if problems.is_empty() { Ok(boards) } else { Err(problems) }
}

/// The Rust source of all boards. The `Debug` output of a `Board` is a valid constant expression.
fn constants(boards: &[Board], selected: &Board, target: &str) -> String {
    let mut out = String::from("// Generated by board/build.rs from board/*.toml.\n");
    for board in boards {
        let _ = writeln!(out, "/// `board/{}.toml`.\npub const {}: Board = {board:?};", board.name, constant(board));
    }
    let all: Vec<String> = boards.iter().map(|board| format!("&{}", constant(board))).collect();
    let _ = writeln!(
        out,
        "/// Every board, in the order of their names.\npub const ALL: &[&Board] = &[{}];",
        all.join(", ")
    );
    let _ = writeln!(
        out,
        "/// The board that this binary was built for (`{VARIABLE}`).\npub const SELECTED: &Board = &{};",
        constant(selected)
    );
    let _ =
        writeln!(out, "/// The target triple that this binary was compiled for.\npub const TARGET: &str = {target:?};");
    out
}

fn constant(board: &Board) -> String {
    board.name.to_uppercase().replace('-', "_")
}
