//! Replays the corpora of the fuzz targets as regression tests. `tests/fuzz/README.md` says how
//! they grow.

#[path = "../fuzz/targets.rs"]
mod targets;

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

type Target = fn(&[u8]);

#[test]
fn the_fuzzers_corpora_are_replayed() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let targets: [(&str, Target); 12] = [
        ("uplink", targets::uplink),
        ("page_json", targets::page_json),
        ("http_head", targets::http_head),
        ("config", targets::config),
        ("json", targets::json),
        ("machine", targets::machine),
        ("console", targets::console),
        ("tls_open", targets::tls_open),
        ("handshake", targets::handshake),
        ("certificate", targets::certificate),
        ("dns", targets::dns),
        ("media", targets::media),
    ];
    let manifest = fs::read_to_string(corpora.with_file_name("Cargo.toml")).unwrap();
    // `api` is replayed by the hub's own tests: this package has no tokio.
    assert_eq!(manifest.matches("[[bin]]").count(), targets.len() + 1, "every fuzz target is replayed");
    for (name, target) in targets {
        let mut count = 0;
        for entry in fs::read_dir(corpora.join(name)).unwrap_or_else(|error| panic!("corpus/{name}: {error}")) {
            let path = entry.unwrap().path();
            let data = fs::read(&path).unwrap();
            assert!(catch_unwind(|| target(&data)).is_ok(), "{} fails: tests/fuzz/README.md", path.display());
            count += 1;
        }
        println!("{name}: {count} inputs");
        assert!(count >= 20, "corpus/{name} has only {count} inputs");
    }
}
