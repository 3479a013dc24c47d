//! Replays the corpus of the fuzz target `api` as a regression test. `tests/fuzz/README.md` says
//! how it grows.

#[path = "../../tests/fuzz/api.rs"]
mod api;

use std::{fs, panic::catch_unwind, path::Path};

#[test]
fn the_fuzzers_corpus_of_the_api_is_replayed() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/api");
    let mut count = 0;
    for entry in fs::read_dir(corpus).expect("the corpus") {
        let path = entry.expect("a file").path();
        let data = fs::read(&path).expect("an input");
        assert!(catch_unwind(|| api::api(&data)).is_ok(), "{} fails: tests/fuzz/README.md", path.display());
        count += 1;
    }
    assert!(count >= 20, "corpus/api has only {count} inputs");
}
