//! How text is set: comments and documents are narrow enough for a diff, and phrases that readers
//! stumbled over stay out.

use super::{files, read};

/// Columns of a comment, at most.
const COMMENT_MAX: usize = 100;
/// Columns of a line of a document, at most. Tables, code blocks, links and images may be wider.
const DOCUMENT_MAX: usize = 120;
/// Phrases that a reader stumbles over, with what to write in their place.
const PHRASES: [(&str, &str); 9] = [
    ("so many at once", "a burst"),
    ("every how", "stride"),
    ("how manieth", "stride"),
    ("while which", "during which"),
    ("is none of a", "does not belong to a"),
    ("The least that says", "Minimal"),
    ("Mended: ", "an entry under Fixed"),
    ("has the time of a", "gets the timeout of a"),
    ("for a moment so that", "briefly, so that"),
];

fn width(line: &str) -> usize {
    line.chars().count()
}

/// What begins a comment in a file of this name.
fn comment(path: &str) -> Option<&'static str> {
    let by_extension = [(".rs", "//"), (".mjs", "//"), (".js", "//"), (".py", "#"), (".toml", "#")];
    by_extension.iter().find(|(extension, _)| path.ends_with(extension)).map(|(_, begin)| *begin)
}

/// Files whose text is others', or generated.
fn is_ours(path: &str) -> bool {
    !["tests/fuzz/corpus", "crates/media/testdata", "tests/vectors"].iter().any(|folder| path.starts_with(folder))
}

#[test]
fn comments_and_documents_fit_beside_a_diff() {
    let mut wide = Vec::new();
    for path in files(&[".rs", ".mjs", ".js", ".py", ".toml"]).iter().filter(|path| is_ours(path)) {
        let begin = comment(path).unwrap();
        for (number, line) in (1..).zip(read(path).lines()) {
            if line.trim_start().starts_with(begin) && width(line) > COMMENT_MAX && !line.contains("://") {
                wide.push(format!("{path}:{number}: a comment of {} columns", width(line)));
            }
        }
    }
    for path in files(&[".md"]).iter().filter(|path| is_ours(path)) {
        let mut in_code = false;
        for (number, line) in (1..).zip(read(path).lines()) {
            in_code ^= line.trim_start().starts_with("```");
            let may_be_wide = in_code || line.trim_start().starts_with('|') || !line.trim().contains(' ');
            if !may_be_wide && width(line) > DOCUMENT_MAX && !line.contains("](") && !line.contains("<img") {
                wide.push(format!("{path}:{number}: a line of {} columns", width(line)));
            }
        }
    }
    assert!(wide.is_empty(), "{} lines are too wide:\n{}", wide.len(), wide.join("\n"));
}

#[test]
fn nothing_is_said_in_the_old_dialect() {
    let here = "tests/suite/documents/prose.rs";
    for path in
        files(&[".rs", ".mjs", ".js", ".py", ".toml", ".md"]).iter().filter(|path| is_ours(path) && *path != here)
    {
        let text = read(path);
        for (phrase, better) in PHRASES {
            assert!(!text.contains(phrase), "{path} says {phrase:?}: better {better:?}");
        }
    }
}

#[test]
fn the_changelog_keeps_to_its_headings() {
    let headings = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"];
    let text = read("CHANGELOG.md");
    let mut seen = Vec::new();
    for line in text.lines() {
        if line.starts_with("## ") {
            seen.clear();
        } else if let Some(heading) = line.strip_prefix("### ") {
            assert!(headings.contains(&heading), "CHANGELOG.md: {heading} is no heading of Keep a Changelog's");
            assert!(!seen.contains(&heading), "CHANGELOG.md: {heading} is there twice");
            seen.push(heading);
        }
    }
}
