//! `ARCHITECTURE.md` against the tree: it is short, and each source file is in a room it names.

use std::collections::BTreeSet;

use super::{cells, code, files, read, root, section};

/// Bytes of the page, at most: it is read before the code, in one go.
const SIZE_MAX: usize = 14_000;

#[test]
fn the_architecture_is_short() {
    let size = read("ARCHITECTURE.md").len();
    assert!(size <= SIZE_MAX, "ARCHITECTURE.md has {size} bytes, {SIZE_MAX} are allowed");
}

#[test]
fn every_source_is_in_a_room() {
    let text = read("ARCHITECTURE.md");
    let rooms = section(&text, "Source tree").split("\n### ").next().unwrap();
    let rows = rooms.lines().filter_map(cells).filter(|row| row.len() == 2);
    let rooms: Vec<&str> = rows.flat_map(|row| code(row[0]).collect::<Vec<_>>()).collect();
    assert!(rooms.len() > 20, "only {} rooms were found", rooms.len());
    for room in &rooms {
        assert!(root().join(room).exists(), "ARCHITECTURE.md: there is no {room}");
    }
    let generated = ["tests/browser/node_modules", "target"];
    for path in files(&[".rs", ".py", ".mjs", ".js", ".service"]) {
        if generated.iter().any(|folder| path.starts_with(folder)) {
            continue;
        }
        let has_room = rooms.iter().any(|room| path == *room || room.ends_with('/') && path.starts_with(room));
        assert!(has_room, "{path} is in no room of ARCHITECTURE.md");
    }
}

#[test]
fn every_file_of_the_machine_is_in_one_part() {
    let text = read("ARCHITECTURE.md");
    let (_, machine) = text.split_once("\n### The machine\n").unwrap();
    let machine = machine.split("\n## ").next().unwrap();
    let rows = machine.lines().filter_map(cells).filter(|row| row.len() == 2 && !row[0].starts_with("---"));
    let mut named = Vec::new();
    for row in rows.filter(|row| row[0] != "part") {
        named.extend(code(row[1]).map(|file| format!("crates/relay/src/{file}")));
    }
    let there: BTreeSet<String> =
        files(&[".rs"]).into_iter().filter(|path| path.starts_with("crates/relay/src/")).collect();
    let named_once: BTreeSet<String> = named.iter().cloned().collect();
    assert_eq!(named.len(), named_once.len(), "ARCHITECTURE.md names a file of the machine twice");
    assert_eq!(named_once, there, "ARCHITECTURE.md's parts of the machine are not its files");
}
