//! A house rule: no two files of a crate depend on each other, directly or indirectly.
//!
//! Reads the source text: paths after `use`, and other paths that begin with `super`, `crate` or
//! the name of a child module. A file may name its parents: they declare their children. Tests at
//! the end of a file don't count.

use std::collections::{BTreeMap, BTreeSet};

use super::{files, is_source, read, untested};

type Module = Vec<String>;

/// Each file of a crate, by module path, and its code.
type Crate = BTreeMap<Module, String>;

#[test]
fn no_two_files_need_each_other() {
    let mut crates = BTreeMap::<String, Crate>::new();
    for path in files(&[".rs"]).into_iter().filter(|path| is_source(path)) {
        let Some((home, file)) = path.split_once("src/") else { continue };
        let code: String = untested(&read(&path)).map(|(_, line)| without_comment(line)).collect();
        crates.entry(home.to_owned()).or_default().insert(module(file), code);
    }
    assert!(crates.len() >= 5);
    for (home, files) in &crates {
        let found = cycle(files);
        assert!(
            found.is_none(),
            "{home}src: {}",
            found.unwrap().iter().map(|file| file.join("/")).collect::<Vec<_>>().join(" needs ")
        );
    }
}

#[test]
fn a_planted_cycle_is_found() {
    let files = |texts: &[(&str, &str)]| -> Crate {
        texts.iter().map(|(file, text)| (module(file), text.replace('\n', " "))).collect()
    };
    let three = files(&[
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "use super::{Relay, b::{B, C},\n};"),
        ("b.rs", "fn x() -> crate::c::C {}"),
        ("c.rs", "use super::a;"),
    ]);
    assert_eq!(cycle(&three).map(|found| found.len()), Some(4), "the first one again at the end");
    let below = files(&[
        ("lib.rs", ""),
        ("a/mod.rs", "fn x() { b::y() }"),
        ("a/b.rs", "use super::super::c::C; use super::A;"),
        ("c.rs", "use crate::a;"),
    ]);
    assert!(cycle(&below).is_some());
    let good = files(&[
        ("lib.rs", "mod a; use a::A;"),
        ("a.rs", "use super::b::B; use super::Relay;"),
        ("b.rs", "use super::Relay; use other::a;"),
    ]);
    assert_eq!(cycle(&good), None);
}

fn without_comment(line: &str) -> String {
    let code = line.split("//").next().unwrap();
    format!("{code} ")
}

/// The path of a file's module from the crate's root.
fn module(file: &str) -> Module {
    let file = file.trim_end_matches(".rs");
    let mut parts: Module = file.split('/').map(str::to_owned).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        parts.pop();
    }
    parts
}

/// A path from a file back to itself, if there is one.
fn cycle(files: &Crate) -> Option<Vec<Module>> {
    let needs: BTreeMap<&Module, BTreeSet<Module>> =
        files.iter().map(|(file, code)| (file, needs(files, file, code))).collect();
    for start in files.keys() {
        let mut way = vec![start.clone()];
        let mut seen = BTreeSet::new();
        if leads_back(&needs, start, &mut way, &mut seen) {
            return Some(way);
        }
    }
    None
}

fn leads_back(
    needs: &BTreeMap<&Module, BTreeSet<Module>>,
    start: &Module,
    way: &mut Vec<Module>,
    seen: &mut BTreeSet<Module>,
) -> bool {
    let here = way.last().unwrap().clone();
    for next in &needs[&here] {
        way.push(next.clone());
        if next == start || (seen.insert(next.clone()) && leads_back(needs, start, way, seen)) {
            return true;
        }
        way.pop();
    }
    false
}

/// The files that a file's code names, without itself and its parents.
fn needs(files: &Crate, file: &Module, code: &str) -> BTreeSet<Module> {
    let mut found = BTreeSet::new();
    for path in paths(code) {
        let mut parts = path.iter().map(String::as_str).peekable();
        let mut from = match parts.peek() {
            Some(&"crate") => Module::new(),
            Some(&("super" | "self")) => file.clone(),
            // A child module, by its name.
            Some(name) if files.contains_key(&[file.as_slice(), &[(*name).to_owned()]].concat()) => file.clone(),
            _ => continue,
        };
        while let Some(part) = parts.next_if(|part| matches!(*part, "crate" | "super" | "self")) {
            if part == "super" {
                from.pop();
            }
        }
        // The longest prefix of the path that is a file.
        let mut longest = None;
        for part in parts {
            from.push(part.to_owned());
            if files.contains_key(&from) {
                longest = Some(from.clone());
            }
        }
        found.extend(longest.filter(|needed| !file.starts_with(needed)));
    }
    found
}

/// Every path in a text, with the branches of a `use` expanded.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for statement in code.split(';') {
        match statement.rsplit_once("use ").filter(|(before, _)| is_before_use(before)) {
            Some((_, tree)) => branches(&[], tree, &mut found),
            None => {
                let words = statement.split(|letter: char| !(letter.is_alphanumeric() || matches!(letter, '_' | ':')));
                found.extend(words.filter(|word| word.contains("::")).map(split));
            }
        }
    }
    found
}

/// Whether the text before the word `use` shows that it begins an import.
fn is_before_use(before: &str) -> bool {
    before.trim_end().is_empty() || before.trim_end().ends_with(['}', '{', ')', ']', 'b'])
}

fn split(path: &str) -> Vec<String> {
    path.split("::").filter(|part| !part.is_empty()).map(|part| part.trim().to_owned()).collect()
}

/// `a::{b, c::{d}}` as `a::b` and `a::c::d`.
fn branches(before: &[String], tree: &str, found: &mut Vec<Vec<String>>) {
    let (mut depth, mut from) = (0, 0);
    let mut items = Vec::new();
    for (at, letter) in tree.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(&tree[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    items.push(&tree[from..]);
    for item in items.into_iter().map(str::trim).filter(|item| !item.is_empty()) {
        match item.split_once('{') {
            Some((path, inner)) => {
                let before = [before, &split(path)].concat();
                branches(&before, inner.trim_end().trim_end_matches('}'), found);
            }
            None => found.push([before, &split(item.split(" as ").next().unwrap())].concat()),
        }
    }
}
