//! A house rule: in `src/daemon`, a loop over a read names a budget.
//!
//! There is one thread of tasks, and a loop over a socket's reads runs for as long as the peer
//! sends. The rule is textual: a `loop`, `while` or `for` whose text calls a read, or a function of
//! the daemon that reads and has no budget of its own, must contain the word *budget*.
//! `CONTRIBUTING.md` explains the rule.

use std::collections::BTreeSet;

use super::{files, read, untested};

/// Calls that take bytes or a message from a socket.
const READS: [&str; 11] = [
    "read",
    "read_vectored",
    "read_exact",
    "read_to_end",
    "recv",
    "recv_from",
    "recvmsg",
    "peek",
    "poll_read",
    "poll_next",
    "poll_fill_buf",
];
const LOOPS: [&str; 3] = ["loop", "while", "for"];

#[test]
fn a_loop_over_a_read_has_a_budget() {
    let sources: Vec<_> = files(&[".rs"])
        .into_iter()
        .filter(|path| path.starts_with("src/daemon/"))
        .map(|path| (path.clone(), read(&path)))
        .collect();
    let (found, checked) = without_budget(&sources);
    assert!(found.is_empty(), "loops over a read without a budget (src/daemon/budget.rs):\n{}", found.join("\n"));
    assert!(checked >= 4, "only {checked} loops over a read were found");
}

#[test]
fn a_planted_loop_is_found_wherever_the_read_is() {
    for (planted, line) in [
        // The three that once existed and stalled the relay.
        (
            "async fn linger(s: &S) {\n    while let Ok(1..) = read(s, &mut nowhere).await {}\n}\nasync fn read(s: &S) { s.get_ref().read(x) }",
            2,
        ),
        (
            "async fn read_head(s: &S) {\n    let x = 1;\n    loop {\n        match s.read(x).await { _ => {} }\n    }\n}",
            3,
        ),
        (
            "fn poll(page: &P) {\n    loop {\n        if frames == 16 { return; }\n        page.reads_one();\n    }\n}\nimpl P { fn reads_one(&self) { self.socket.poll_next(context) } }",
            2,
        ),
        // Two calls away, in another notation, with braces in the loop's condition.
        ("fn a() {\n    for _ in 0.. {\n        b();\n    }\n}\nfn b() { c() }\nfn c() { rustix::net::recv(x, y) }", 2),
        ("fn a() {\n    while x(|| { 1 }) {\n        s.peek(x);\n    }\n}", 2),
        ("fn a() {\n    loop {\n        stream.peek();\n    }\n}", 2),
        ("fn a() {\n    loop {\n        Read::read(s, x);\n        s.drain_all();\n    }\n}", 2),
        // A comment or a literal is no budget.
        ("fn a() {\n    loop {\n        // a budget\n        s.read(\"budget\");\n    }\n}", 2),
    ] {
        let (found, _) = without_budget(&[("src/daemon/planted.rs".to_owned(), planted.to_owned())]);
        assert!(
            found.len() == 1 && found[0].starts_with(&format!("src/daemon/planted.rs:{line}: ")),
            "{found:?}: {planted}"
        );
    }
}

#[test]
fn other_loops_and_loops_with_a_budget_are_accepted() {
    for fine in [
        "fn a() { loop { budget.next_read().await; s.read(x); } }",
        "fn a() { loop { s.read(budget.clip(x)); } }",
        // The callee takes from a budget itself, so its callers need none.
        "fn a() { loop { b(); } }\nfn b(budget: &mut Budget) { s.read(budget.clip(x)) }",
        "fn a() { loop { fs::read(path); head::read(bytes); Request::read(bytes); letters.peek(); reader(); ready(x); } }",
        "impl Read for A { fn read(&mut self) { s.read(x) } }",
        "fn a() where for<'a> &'a T: Read { s.read(x) }",
        "fn a() { for x in y {} s.read(x); }",
        "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() { loop { s.read(x); } }\n}",
    ] {
        let sources =
            [("src/daemon/fine.rs".to_owned(), fine.to_owned()), ("src/daemon/head.rs".to_owned(), String::new())];
        assert_eq!(without_budget(&sources).0, [""; 0], "{fine}");
    }
}

/// Loops over a read without a budget, as `file:line: what it calls`, and how many loops over a
/// read there are.
fn without_budget(sources: &[(String, String)]) -> (Vec<String>, usize) {
    let codes: Vec<(&str, String)> = sources.iter().map(|(path, text)| (path.as_str(), code(text))).collect();
    let functions: Vec<Function<'_>> = codes.iter().flat_map(|(path, code)| functions(module(path), code)).collect();
    let modules = codes.iter().map(|(path, _)| module(path)).collect();
    let mut known = Known { modules, functions: &functions, readers: Vec::new() };
    while let Some(reader) = functions.iter().find(|function| {
        let is_known = known.readers.iter().any(|reader| std::ptr::eq(*reader, *function));
        !is_known && !has_budget(function.text) && known.call(function.module, function.body).is_some()
    }) {
        known.readers.push(reader);
    }
    let (mut found, mut count) = (Vec::new(), 0);
    for (path, code) in &codes {
        for (at, text) in loops(code) {
            let Some(call) = known.call(module(path), text) else { continue };
            count += 1;
            if !has_budget(text) {
                found.push(format!("{path}:{}: {call}", code[..at].matches('\n').count() + 1));
            }
        }
    }
    (found, count)
}

/// A file's name without its ending.
fn module(path: &str) -> &str {
    path.rsplit('/').next().and_then(|name| name.strip_suffix(".rs")).unwrap_or(path)
}

/// What distinguishes calls.
struct Known<'a> {
    modules: BTreeSet<&'a str>,
    functions: &'a [Function<'a>],
    /// Functions that read and have no budget.
    readers: Vec<&'a Function<'a>>,
}

impl Known<'_> {
    /// The first call of a read in the code of a module.
    fn call<'c>(&self, module: &str, code: &'c str) -> Option<&'c str> {
        words(code)
            .find(|(at, word)| self.reads(module, &code[..*at], word, &code[at + word.len()..]))
            .map(|(_, word)| word)
    }

    fn reads(&self, module: &str, before: &str, word: &str, behind: &str) -> bool {
        let before = before.trim_end();
        if !behind.starts_with('(') || before.ends_with("fn") {
            return false;
        }
        // `RwLock::read` and `Peekable::peek` have no argument; nor has `Stream::peek`.
        let is_of_stream = before.ends_with("stream.");
        let is_read = READS.contains(&word) && (!behind.starts_with("()") || is_of_stream);
        let is_reader =
            |of: &dyn Fn(&Function<'_>) -> bool| self.readers.iter().any(|reader| reader.name == word && of(reader));
        let is_seen = |reader: &Function<'_>| reader.module == module || reader.is_pub;
        if before.ends_with('.') {
            return is_read || is_reader(&|reader| reader.is_method && is_seen(reader));
        }
        match before.strip_suffix("::").map(|path| words(path).last().map_or("", |(_, word)| word)) {
            // Files are not sockets: std's, and `config/file.rs`.
            Some("fs" | "file") => false,
            Some(of) if self.modules.contains(of) => is_reader(&|reader| reader.module == of),
            Some(of) if of.starts_with(char::is_uppercase) => {
                is_read && (of.ends_with("Read") || of.ends_with("Stream")) || is_reader(&is_seen)
            }
            Some(_) => is_read,
            None => {
                let is_here = |function: &Function<'_>| !function.is_method && function.module == module;
                let is_own = self.functions.iter().any(|function| function.name == word && is_here(function));
                is_reader(&|reader| if is_own { is_here(reader) } else { !reader.is_method && reader.is_pub })
            }
        }
    }
}

fn has_budget(code: &str) -> bool {
    code.to_ascii_lowercase().contains("budget")
}

struct Function<'a> {
    module: &'a str,
    name: &'a str,
    is_method: bool,
    is_pub: bool,
    /// The text from its name on.
    text: &'a str,
    body: &'a str,
}

fn functions<'a>(module: &'a str, code: &'a str) -> impl Iterator<Item = Function<'a>> {
    words(code).filter(|(_, word)| *word == "fn").filter_map(move |(at, _)| {
        let from = &code[at + 2..];
        let (_, name) = words(from).next()?;
        let open = opening(from)?;
        let size = block(&from[open..])?;
        let is_method = words(&from[..open]).any(|(_, word)| word == "self");
        let is_pub = words(code[..at].rsplit('\n').next()?).any(|(_, word)| word == "pub");
        Some(Function { module, name, is_method, is_pub, text: &from[..open + size], body: &from[open..open + size] })
    })
}

/// The beginnings of loops, and their texts including the condition.
fn loops(code: &str) -> impl Iterator<Item = (usize, &str)> {
    words(code).filter(|(_, word)| LOOPS.contains(word)).filter_map(|(at, word)| {
        let from = &code[at..];
        let open = opening(from)?;
        // Neither `impl A for B` nor `for<'a>`.
        let is_loop = word != "for" || words(&from[..open]).any(|(_, word)| word == "in");
        is_loop.then_some(())?;
        Some((at, &from[..open + block(&from[open..])?]))
    })
}

/// The words of some code, each with its position.
fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.split(move |c| !is_part(c))
        .filter(|word| !word.is_empty())
        .map(|word| (word.as_ptr() as usize - code.as_ptr() as usize, word))
}

/// The brace that opens a block: the first outside parentheses, unless the item ends before it.
fn opening(code: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, letter) in code.char_indices() {
        match letter {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' if depth == 0 => return Some(at),
            ';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// The size of the block that begins here.
fn block(code: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, letter) in code.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at + 1);
        }
    }
    None
}

/// The code before the tests, with comments and literals blanked; line numbers stay the same.
fn code(text: &str) -> String {
    let text: String = untested(text).flat_map(|(_, line)| [line, "\n"]).collect();
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(letter) = rest.chars().next() {
        let literal = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if letter == '"' {
            let mut escaped = false;
            let end = rest[1..].find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            end.map_or(rest.len(), |end| end + 2)
        } else if let Some(size) = character(rest) {
            size
        } else {
            out.push(letter);
            rest = &rest[letter.len_utf8()..];
            continue;
        };
        out.push(' ');
        out.extend(rest[..literal].chars().filter(|c| *c == '\n'));
        rest = &rest[literal..];
    }
    out
}

/// The size of the character literal that begins here; `None` for a lifetime.
fn character(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('\'')?;
    let size = match inner.strip_prefix('\\') {
        Some(escaped) => {
            1 + escaped.find('\'').filter(|at| *at > 0).or_else(|| escaped[1..].find('\'').map(|at| at + 1))?
        }
        None => inner.chars().next()?.len_utf8(),
    };
    inner[size..].starts_with('\'').then_some(size + 2)
}
