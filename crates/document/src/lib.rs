//! Reads a TOML document: values with their line numbers, and all errors at once.
//!
//! Owns the list of [`Problem`]s: reading never stops at the first. Values are *taken*: taking a
//! key removes it and records its name as known. Keys left at the end are unknown, and are reported
//! with the most similar known key. Refuses syntax errors, wrong types, numbers out of range and
//! unknown keys, each with its line and a remedy. Never quotes a value unless the caller does: it
//! may be a secret. Does not know what the keys mean. Used by `config.rs` and `board/build.rs`, so
//! it depends on neither.

#![forbid(unsafe_code)]

mod syntax;
mod words;

use toml::de::{DeTable, DeValue};

pub use words::nearest;

/// An error in a document: its line (0: the document as a whole), what is wrong, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The line number, from 1.
    pub line: u32,
    /// What is wrong.
    pub what: String,
    /// How to fix it.
    pub remedy: String,
}

/// A value and the line where it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At<T> {
    /// The line number, from 1.
    pub line: u32,
    /// The value.
    pub value: T,
}

/// A TOML document that is being read.
#[derive(Debug)]
pub struct Document<'i> {
    text: &'i str,
    root: DeTable<'i>,
    known: Vec<(&'static str, &'static str)>,
    problems: Vec<Problem>,
    syntax_ok: bool,
    headers_ok: bool,
}

impl<'i> Document<'i> {
    /// Parses a text. Records syntax errors as problems, and keeps everything that could be parsed.
    pub fn parse(text: &'i str) -> Self {
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut document = Self {
            text,
            root: root.into_inner(),
            known: Vec::new(),
            problems: Vec::new(),
            syntax_ok: errors.is_empty(),
            headers_ok: true,
        };
        for error in errors {
            let offset = error.span().map_or(0, |span| span.start);
            let line = document.line(offset);
            if document.line_text(line).trim_start().starts_with('[') && error.message() != "duplicate key" {
                document.headers_ok = false;
            }
            document.refuse(line, syntax::what(error.message()), syntax::remedy(error.message()));
        }
        document
    }

    /// Records a problem. It prints as one line, even if it quotes control characters.
    pub fn refuse(&mut self, line: u32, what: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Problem { line, what: printable(what.into()), remedy: printable(remedy.into()) });
    }

    /// Takes a string.
    pub fn text(&mut self, section: &'static str, key: &'static str) -> Option<At<String>> {
        let At { line, value } = self.take(section, key)?;
        if let DeValue::String(text) = value {
            return Some(At { line, value: text.into_owned() });
        }
        self.refuse_type(section, key, line, &value, &format!("write a string in quotes: {key} = \"...\""));
        None
    }

    /// Takes a string or a list of strings.
    pub fn texts(&mut self, section: &'static str, key: &'static str) -> Option<Vec<At<String>>> {
        const REMEDY: &str = "write a string in quotes, or a list of strings: [\"...\", \"...\"]";
        let At { line, value } = self.take(section, key)?;
        match value {
            DeValue::String(text) => Some(vec![At { line, value: text.into_owned() }]),
            DeValue::Array(list) => {
                let mut texts = Vec::with_capacity(list.len());
                for item in list {
                    let line = self.line(item.span().start);
                    match item.into_inner() {
                        DeValue::String(text) => texts.push(At { line, value: text.into_owned() }),
                        other => self.refuse_type(section, key, line, &other, REMEDY),
                    }
                }
                Some(texts)
            }
            other => {
                self.refuse_type(section, key, line, &other, REMEDY);
                None
            }
        }
    }

    /// Takes a list of tables, each with exactly these keys, all of them strings:
    /// `[{ a = "...", b = "..." }]`, or `[[section.key]]` for each. Tables with an error are left
    /// out.
    pub fn tables<const N: usize>(
        &mut self,
        section: &'static str,
        key: &'static str,
        keys: [&'static str; N],
    ) -> Option<Vec<At<[String; N]>>> {
        let At { line, value } = self.take(section, key)?;
        let list = match value {
            DeValue::Array(list) => list
                .into_iter()
                .map(|item| At { line: self.line(item.span().start), value: item.into_inner() })
                .collect(),
            table @ DeValue::Table(_) => vec![At { line, value: table }],
            other => {
                self.refuse_type(section, key, line, &other, &format!("write a list of tables: {}", tables_of(&keys)));
                return None;
            }
        };
        let mut rows = Vec::with_capacity(list.len());
        for At { line, value } in list {
            match value {
                DeValue::Table(table) => rows.extend(self.row((section, key), line, table, keys)),
                other => {
                    let remedy = format!("write a table for each entry: {}", tables_of(&keys));
                    self.refuse_type(section, key, line, &other, &remedy);
                }
            }
        }
        Some(rows)
    }

    /// Takes all of `keys` from a table, which must have no others.
    fn row<const N: usize>(
        &mut self,
        (section, list): (&'static str, &'static str),
        line: u32,
        mut table: DeTable<'i>,
        keys: [&'static str; N],
    ) -> Option<At<[String; N]>> {
        let before = self.problem_count();
        let texts = keys.map(|key| {
            let Some(found) = table.remove(key) else {
                // A syntax error may have hidden it.
                if self.syntax_ok {
                    let remedy = format!("write {key} = \"...\" in the same table");
                    self.refuse(line, format!("{}: {key} is missing", name(section, list)), remedy);
                }
                return None;
            };
            let line = self.line(found.span().start);
            match found.into_inner() {
                DeValue::String(text) => Some(text.into_owned()),
                other => {
                    let remedy = format!("write a string in quotes: {key} = \"...\"");
                    self.refuse_type(section, &format!("{list}: {key}"), line, &other, &remedy);
                    None
                }
            }
        });
        for (key, _) in table {
            let line = self.line(key.span().start);
            let remedy = match nearest(key.get_ref(), keys) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("remove it: each entry has {}", keys.join(" and ")),
            };
            self.refuse(line, format!("{}: unknown key {}", name(section, list), key.get_ref()), remedy);
        }
        let is_whole = self.problem_count() == before && texts.iter().all(Option::is_some);
        is_whole.then(|| At { line, value: texts.map(Option::unwrap_or_default) })
    }

    /// Takes `true` or `false`.
    pub fn flag(&mut self, section: &'static str, key: &'static str) -> Option<At<bool>> {
        let At { line, value } = self.take(section, key)?;
        if let DeValue::Boolean(value) = value {
            return Some(At { line, value });
        }
        self.refuse_type(section, key, line, &value, "write true or false, without quotes");
        None
    }

    /// Takes an integer from `least` to `most`.
    pub fn number(&mut self, section: &'static str, key: &'static str, least: u64, most: u64) -> Option<At<u64>> {
        self.number_within(section, key, (least, most), (least, most))
    }

    /// Takes an integer, or `word` instead of it, for which it returns `None`.
    pub fn number_or(
        &mut self,
        (section, key): (&'static str, &'static str),
        word: &str,
        least: u64,
        most: u64,
    ) -> Option<At<u64>> {
        let found = self.take(section, key)?;
        if matches!(&found.value, DeValue::String(text) if text == word) {
            return None;
        }
        let remedy = format!("write \"{word}\", or a whole number from {least} to {most} without quotes");
        self.whole((section, key), &found, ((least, most), (least, most)), &remedy)
    }

    /// Like [`number`](Self::number), but accepts the range `within` and suggests the narrower
    /// range `suggested`.
    pub fn number_within(
        &mut self,
        section: &'static str,
        key: &'static str,
        within: (u64, u64),
        suggested: (u64, u64),
    ) -> Option<At<u64>> {
        let found = self.take(section, key)?;
        let remedy = format!("write a whole number from {} to {}, without quotes", suggested.0, suggested.1);
        self.whole((section, key), &found, (within, suggested), &remedy)
    }

    fn whole(
        &mut self,
        (section, key): (&'static str, &'static str),
        At { line, value }: &At<DeValue<'i>>,
        ((least, most), suggested): ((u64, u64), (u64, u64)),
        remedy: &str,
    ) -> Option<At<u64>> {
        let line = *line;
        let DeValue::Integer(number) = value else {
            self.refuse_type(section, key, line, value, remedy);
            return None;
        };
        match i128::from_str_radix(number.as_str(), number.radix()) {
            Ok(n) if (i128::from(least)..=i128::from(most)).contains(&n) => {
                Some(At { line, value: u64::try_from(n).unwrap_or(most) })
            }
            _ => {
                self.refuse(
                    line,
                    format!("{} = {number} is out of range", name(section, key)),
                    format!("choose a number from {} to {}", suggested.0, suggested.1),
                );
                None
            }
        }
    }

    /// Records that a required key is missing, unless a syntax error may have hidden it.
    pub fn missing(&mut self, section: &'static str, key: &'static str, remedy: String) {
        if self.syntax_ok {
            let line = self.section_line(section).unwrap_or(1);
            self.refuse(line, format!("{} is missing", name(section, key)), remedy);
        }
    }

    /// Whether a key exists and has not been taken yet.
    pub fn contains(&self, section: &str, key: &str) -> bool {
        let mut table = &self.root;
        for part in section.split('.').filter(|part| !part.is_empty()) {
            match table.get(part).and_then(|value| value.get_ref().as_table()) {
                Some(inner) => table = inner,
                None => return false,
            }
        }
        table.contains_key(key)
    }

    /// The line of a section's header, if the section exists.
    pub fn section_line(&self, section: &str) -> Option<u32> {
        let mut table = &self.root;
        let mut line = None;
        for part in section.split('.').filter(|part| !part.is_empty()) {
            let value = table.get(part)?;
            line = Some(self.line(value.span().start));
            table = value.get_ref().as_table()?;
        }
        line
    }

    /// The number of problems so far.
    pub fn problem_count(&self) -> usize {
        self.problems.len()
    }

    /// Refuses all keys that were not taken, and returns all problems in the order of lines.
    pub fn finish(mut self) -> Vec<Problem> {
        let root = core::mem::take(&mut self.root);
        self.refuse_unknown("", root);
        self.problems.sort();
        self.problems.dedup();
        self.problems
    }

    fn take(&mut self, section: &'static str, key: &'static str) -> Option<At<DeValue<'i>>> {
        self.known.push((section, key));
        let mut table = &mut self.root;
        for part in section.split('.').filter(|part| !part.is_empty()) {
            match table.get_mut(part)?.get_mut() {
                DeValue::Table(inner) => table = inner,
                _ => return None,
            }
        }
        let value = table.remove(key)?;
        let line = self.line(value.span().start);
        // A line with a syntax error has its problem already, and its value is a guess.
        if !self.syntax_ok
            && self.problems.iter().any(|problem| problem.line == line && problem.what != "duplicate key")
        {
            return None;
        }
        Some(At { line, value: value.into_inner() })
    }

    fn refuse_type(&mut self, section: &str, key: &str, line: u32, value: &DeValue<'_>, remedy: &str) {
        let kind = match value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a number",
            DeValue::Float(_) => "a number with a decimal point",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a section",
        };
        self.refuse(line, format!("{} can't be {kind}", name(section, key)), remedy);
    }

    fn refuse_unknown(&mut self, section: &str, table: DeTable<'i>) {
        for (key, value) in table {
            let line = self.line(key.span().start);
            let path =
                if section.is_empty() { key.get_ref().to_string() } else { format!("{section}.{}", key.get_ref()) };
            let is_section =
                self.known.iter().any(|(known, _)| *known == path || known.starts_with(&format!("{path}.")));
            match value.into_inner() {
                DeValue::Table(inner) if is_section => self.refuse_unknown(&path, inner),
                _ if is_section => self.refuse(
                    line,
                    format!("{path} is a section"),
                    format!("write [{path}] once, on its own line, and its keys below"),
                ),
                // If a header is broken, the keys below it are in the wrong section.
                _ if !self.headers_ok => {}
                DeValue::Table(_) => {
                    let remedy = self.section_remedy(&path);
                    self.refuse(line, format!("unknown section [{path}]"), remedy);
                }
                _ => {
                    let remedy = self.key_remedy(section, key.get_ref());
                    self.refuse(line, format!("unknown key {}", name(section, key.get_ref())), remedy);
                }
            }
        }
    }

    fn section_remedy(&self, section: &str) -> String {
        let sections: Vec<&str> =
            self.known.iter().map(|(section, _)| *section).filter(|section| !section.is_empty()).collect();
        match nearest(section, sections) {
            Some(near) => format!("did you mean [{near}]?"),
            None => {
                let mut sections: Vec<String> = Vec::new();
                for (section, _) in self.known.iter().filter(|(section, _)| !section.is_empty()) {
                    let section = format!("[{section}]");
                    if !sections.contains(&section) {
                        sections.push(section);
                    }
                }
                format!("remove it: the sections are {}", sections.join(", "))
            }
        }
    }

    fn key_remedy(&self, section: &str, key: &str) -> String {
        let own = self.known.iter().filter(|(known, _)| *known == section).map(|(_, key)| *key);
        let elsewhere: Vec<String> = self
            .known
            .iter()
            .filter(|(known, other)| *known != section && *other == key)
            .map(|(known, _)| format!("[{known}]"))
            .collect();
        match nearest(key, own) {
            Some(near) => format!("did you mean {near}?"),
            None if !elsewhere.is_empty() => format!("it belongs below {}", elsewhere.join(" or ")),
            None => match nearest(key, self.known.iter().map(|(_, key)| *key)) {
                Some(near) => {
                    let home = self.known.iter().find(|(_, key)| *key == near).map_or("", |(section, _)| *section);
                    format!("did you mean {}?", name(home, near))
                }
                None => "remove it; `sharelinkd config` prints all keys".to_owned(),
            },
        }
    }

    fn line(&self, offset: usize) -> u32 {
        line_of(self.text.as_bytes(), offset)
    }

    fn line_text(&self, line: u32) -> &'i str {
        self.text.lines().nth(line.saturating_sub(1) as usize).unwrap_or("")
    }
}

/// The line number, from 1, of a byte offset.
#[must_use]
pub fn line_of(text: &[u8], offset: usize) -> u32 {
    let before = text.get(..offset.min(text.len())).unwrap_or_default();
    u32::try_from(before.iter().filter(|byte| **byte == b'\n').count() + 1).unwrap_or(u32::MAX)
}

fn name(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("[{section}] {key}") }
}

/// An example of a list of tables with these keys.
fn tables_of(keys: &[&str]) -> String {
    let keys: Vec<String> = keys.iter().map(|key| format!("{key} = \"...\"")).collect();
    format!("[{{ {} }}]", keys.join(", "))
}

/// Replaces control characters: a quoted key may contain line feeds, which would look like further
/// errors, or escape codes, which move a terminal's cursor.
fn printable(text: String) -> String {
    if text.contains(char::is_control) { text.replace(char::is_control, "?") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<(u32, String)> {
        let mut document = Document::parse(text);
        let _ = document.texts("pages", "listen");
        let _ = document.text("uplink", "secret");
        let _ = document.number("track.video", "blocks", 2, 9);
        let _ = document.flag("pages", "strict");
        document
            .finish()
            .into_iter()
            .map(|problem| (problem.line, format!("{}; {}", problem.what, problem.remedy)))
            .collect()
    }

    #[test]
    fn a_good_text_has_no_problems() {
        assert_eq!(
            problems("[pages]\nlisten = \"a\"\nstrict = true\n[uplink]\nsecret = \"x\"\n[track.video]\nblocks = 0x3\n"),
            []
        );
        assert_eq!(problems(""), []);
        assert_eq!(problems("\u{feff}pages.listen = [\"a\",\r\n \"b\"]\r\ntrack = { video = { blocks = 9 } }"), []);
    }

    type Pair = At<[String; 2]>;

    fn pairs(text: &str) -> (Option<Vec<Pair>>, Vec<String>) {
        let mut document = Document::parse(text);
        let pairs = document.tables("tls", "pairs", ["one", "two"]);
        let line = |problem: Problem| format!("{}: {}; {}", problem.line, problem.what, problem.remedy);
        (pairs, document.finish().into_iter().map(line).collect())
    }

    #[test]
    fn a_list_of_tables_is_written_in_each_of_toml_s_ways() {
        let row = |line, one: &str, two: &str| At { line, value: [one.to_owned(), two.to_owned()] };
        for (text, rows) in [
            (
                "[tls]\npairs = [{ one = \"a\", two = \"b\" },\n { two = \"d\", one = \"c\" }]\n",
                vec![row(2, "a", "b"), row(3, "c", "d")],
            ),
            (
                "[tls]\n[[tls.pairs]]\none = \"a\"\ntwo = \"b\"\n[[tls.pairs]]\none = \"c\"\ntwo = \"d\"\n",
                vec![row(2, "a", "b"), row(5, "c", "d")],
            ),
            ("[tls]\npairs = { one = \"a\", two = \"b\" }\n", vec![row(2, "a", "b")]),
            ("tls.pairs = []\n", vec![]),
        ] {
            assert_eq!(pairs(text), (Some(rows), vec![]), "{text}");
        }
        assert_eq!(pairs("[tls]\n"), (None, vec![]));
    }

    #[test]
    fn every_problem_of_a_list_of_tables_has_its_line() {
        let text = "[tls]\npairs = [\n { one = \"a\" },\n { one = \"a\",\n   two = 3, twoo = \"b\" },\n \"c\",\n { one = \"d\", two = \"e\" },\n { one = \"f\", two = \"g\", three = 1 } ]\n";
        let (rows, problems) = pairs(text);
        assert_eq!(rows, Some(vec![At { line: 7, value: ["d".to_owned(), "e".to_owned()] }]));
        assert_eq!(
            problems,
            [
                "3: [tls] pairs: two is missing; write two = \"...\" in the same table",
                "5: [tls] pairs: two can't be a number; write a string in quotes: two = \"...\"",
                "5: [tls] pairs: unknown key twoo; did you mean two?",
                "6: [tls] pairs can't be a string; write a table for each entry: [{ one = \"...\", two = \"...\" }]",
                "8: [tls] pairs: unknown key three; remove it: each entry has one and two",
            ]
        );
        assert_eq!(
            pairs("[tls]\npairs = true\n"),
            (
                None,
                vec![
                    "2: [tls] pairs can't be true or false; write a list of tables: [{ one = \"...\", two = \"...\" }]"
                        .to_owned()
                ]
            )
        );
    }

    #[test]
    fn a_syntax_error_in_a_list_of_tables_has_no_consequences() {
        for text in [
            "[tls]\npairs = [{ one = a, two = \"b\" }]\n",
            "[tls]\npairs = [{ one = \"a\", two = \"b\" ]\n",
            "[tls]\npairs = [\n { one = \"a\", one = \"b\" },\n { one = \"a\", two = \"b\" }]\n",
            "[tls]\npairs = [\n { one = \"a\",\n two = b },\n { one = \"a\", two = \"b\" }]\n",
        ] {
            let (_, problems) = pairs(text);
            assert!(!problems.is_empty() && problems.iter().all(|text| !text.contains("[tls]")), "{problems:#?}");
        }
    }

    #[test]
    fn every_problem_has_its_line() {
        let text = "[pages]\nlisten = [\"a\",\n 3]\nlisen = 1\nsecret = \"x\"\n[uplnk]\nsecret = 1\n[track.video]\nblocks = 10\n[track.vido]\n";
        assert_eq!(
            problems(text),
            [
                (
                    3,
                    "[pages] listen can't be a number; write a string in quotes, or a list of strings: [\"...\", \"...\"]"
                        .to_owned()
                ),
                (4, "unknown key [pages] lisen; did you mean listen?".to_owned()),
                (5, "unknown key [pages] secret; it belongs below [uplink]".to_owned()),
                (6, "unknown section [uplnk]; did you mean [uplink]?".to_owned()),
                (9, "[track.video] blocks = 10 is out of range; choose a number from 2 to 9".to_owned()),
                (10, "unknown section [track.vido]; did you mean [track.video]?".to_owned()),
            ]
        );
    }

    #[test]
    fn a_problem_prints_as_one_line_whatever_it_quotes() {
        let text = "[\"\\u001b[2J\\nboard.toml:1: all is well\"]\n[track.video]\n\"blo\\ncks\" = 1\n";
        let found = problems(text);
        assert!(found.iter().all(|(_, text)| !text.contains(char::is_control)), "{found:?}");
        assert!(found[0].1.starts_with("unknown section [?[2J?board.toml:1"), "{found:?}");
    }

    #[test]
    fn numbers_beyond_any_type_and_negative_ones_are_out_of_range() {
        for number in ["-1", "99999999999999999999999999999999999999999999", "0", "1"] {
            let found = problems(&format!("[track.video]\nblocks = {number}"));
            assert!(matches!(found.as_slice(), [(2, text)] if text.contains("out of range")), "{found:?}");
        }
        assert!(problems("[track.video]\nblocks = 3.5")[0].1.contains("can't be a number with a decimal point"));
    }

    #[test]
    fn syntax_errors_are_all_reported_once_and_without_consequences() {
        let found = problems("[pages]\nlisten = 127.0.0.1:80\nstrict = yes\n[uplink]\nsecret = \"x\nsecret = \"y\"\n");
        assert_eq!(found.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 3, 5, 6], "{found:?}");
        assert!(
            found[0].1.starts_with("this value is not a number") && found[0].1.contains("double quotes"),
            "{found:?}"
        );
        assert!(found[3].1.contains("duplicate key; this key or section is written twice: keep one"));
        // A broken header: the keys below it are not reported as unknown.
        assert_eq!(problems("[pages\nlisten = \"a\"\n").len(), 1);
    }

    #[test]
    fn a_section_that_is_a_value_or_a_list_is_reported() {
        assert_eq!(
            problems("pages = 3\n[[uplink]]\nsecret=\"\"\n").iter().map(|(line, _)| *line).collect::<Vec<_>>(),
            [1, 2]
        );
    }

    #[test]
    fn lines_count_from_one() {
        assert_eq!(line_of(b"a\nb\n", 0), 1);
        assert_eq!(line_of(b"a\nb\n", 2), 2);
        assert_eq!(line_of(b"a\nb\n", 99), 3);
        assert_eq!(line_of(b"", 0), 1);
    }
}
