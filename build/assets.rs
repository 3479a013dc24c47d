//! Compresses the page's files (`src/web/`) and writes them to `OUT_DIR/assets.rs`, which
//! `src/daemon/assets.rs` includes.
//!
//! Owns what follows from the files' bytes: their gzip and brotli forms, the hashes that are their
//! versions and entity tags, the versions in the share page's addresses, its two halves around the
//! card, and the hash of its script for the page's policy. Refuses a share page without exactly one
//! script, one place for the card, and the address of each file. The same files give the same
//! bytes on every machine. Knows nothing of addresses, types and header lines.

use std::fmt::Write as _;
use std::path::Path;

use brotli::enc::BrotliEncoderParams;
use brotli::enc::backward_references::BrotliEncoderMode;
use miniz_oxide::DataFormat;
use miniz_oxide::deflate::CompressionLevel;
use miniz_oxide::deflate::core::{CompressorOxide, TDEFLFlush, TDEFLStatus, compress};
use sha2::{Digest, Sha256};

const FOLDER: &str = "src/web";
const PAGE: &str = "share.html";
/// The files with an address of their own, and their names in the code.
const FILES: [(&str, &str); 4] = [
    ("SHARELINK_JS", "sharelink.js"),
    ("SHARE_JS", "share.js"),
    ("SHARE_CSS", "share.css"),
    ("SHARELINK_D_TS", "sharelink.d.ts"),
];
/// Those that the share page loads.
const LOADED: [&str; 3] = ["sharelink.js", "share.js", "share.css"];
/// What the card replaces: a title and the place of the tags.
const CARD: &str = "<title>Live</title>\n<!-- sharelinkd:head -->";

type Error = Box<dyn std::error::Error>;

/// Writes `assets.rs` and the compressed files.
pub fn write(out: &Path) -> Result<(), Error> {
    println!("cargo::rerun-if-changed={FOLDER}");
    let mut code = String::new();
    let mut page = read(PAGE)?;
    for (name, file) in FILES {
        let text = read(file)?;
        let version = hash(text.as_bytes());
        let gzip = gzip(text.as_bytes())?;
        // Tools read the types: a third form of them isn't worth its place in the binary.
        let mut brotlied = "None".to_owned();
        if LOADED.contains(&file) {
            let unversioned = format!("/{file}?v=");
            if page.matches(&unversioned).count() != 1 {
                return Err(format!("{FOLDER}/{PAGE} does not have the address {unversioned} exactly once").into());
            }
            page = page.replace(&unversioned, &format!("{unversioned}{version}"));
            let brotli = brotli(text.as_bytes())?;
            brotlied = format!("Some(({}, {:?}))", put(out, &format!("{file}.br"), &brotli)?, hash(&brotli));
        }
        writeln!(
            code,
            "const {name}: Forms = Forms {{\n    size: {},\n    version: {version:?},\n    gzip: ({}, {:?}),\n    brotli: {brotlied},\n}};",
            text.len(),
            put(out, &format!("{file}.gz"), &gzip)?,
            hash(&gzip),
        )?;
    }
    write_page(out, &mut code, &page)?;
    Ok(std::fs::write(out.join("assets.rs"), code)?)
}

fn write_page(out: &Path, code: &mut String, page: &str) -> Result<(), Error> {
    let once = |what: &str| format!("{FOLDER}/{PAGE} does not have {what} exactly once");
    let scripts: Vec<&str> = page.split("<script").collect();
    let [_, script] = scripts[..] else { return Err(once("a script").into()) };
    let script = script.strip_prefix('>').and_then(|script| script.split_once("</script>"));
    let (script, _) = script.ok_or_else(|| once("a script without attributes"))?;
    let halves: Vec<&str> = page.split(CARD).collect();
    let [before, after] = halves[..] else { return Err(once(CARD).into()) };
    writeln!(code, "const SCRIPT_HASH: &str = \"sha256-{}\";", base64(&Sha256::digest(script.as_bytes())))?;
    for (name, half, flush) in [("BEFORE", before, TDEFLFlush::Sync), ("AFTER", after, TDEFLFlush::Finish)] {
        writeln!(
            code,
            "const {name}: Half = Half {{ size: {}, crc: {:#010x}, deflated: {} }};",
            half.len(),
            !crc(!0, half.bytes()),
            put(out, &format!("{name}.deflate"), &deflate(half.as_bytes(), flush)?)?
        )?;
    }
    // CRCs are linear: what the second half's length does to each bit of the CRC in front of it.
    let behind: Vec<String> =
        (0..32).map(|bit| format!("{:#010x}", crc(1 << bit, std::iter::repeat_n(0, after.len())))).collect();
    Ok(writeln!(code, "const BEHIND_AFTER: [u32; 32] = [{}];", behind.join(", "))?)
}

fn read(file: &str) -> Result<String, Error> {
    let path = format!("{FOLDER}/{file}");
    std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}").into())
}

/// Writes a file; the code that includes it.
fn put(out: &Path, name: &str, bytes: &[u8]) -> Result<String, Error> {
    std::fs::write(out.join(name), bytes)?;
    Ok(format!("include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{name}\"))"))
}

/// The first 64 bits of a SHA-256, in hex.
fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(8).fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}

/// A gzip file (RFC 1952) without name and time.
fn gzip(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255];
    let size = u32::try_from(bytes.len())?.to_le_bytes();
    let crc = (!crc(!0, bytes.iter().copied())).to_le_bytes();
    Ok([&head[..], &deflate(bytes, TDEFLFlush::Finish)?, &crc, &size].concat())
}

/// A deflate stream (RFC 1951) that ends at a byte, or that others may follow.
fn deflate(bytes: &[u8], flush: TDEFLFlush) -> Result<Vec<u8>, Error> {
    let mut compressor = CompressorOxide::with_format_and_level(DataFormat::Raw, CompressionLevel::UberCompression);
    // Text that doesn't get smaller is stored, with some bytes for each block.
    let mut out = vec![0; bytes.len() + 1024];
    let (status, taken, size) = compress(&mut compressor, bytes, &mut out, flush);
    let is_whole = taken == bytes.len() && size < out.len();
    if !is_whole || !matches!(status, TDEFLStatus::Okay | TDEFLStatus::Done) {
        return Err(format!("deflate: {status:?}").into());
    }
    out.truncate(size);
    Ok(out)
}

fn brotli(mut bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let parameters = BrotliEncoderParams {
        quality: 11,
        lgwin: 18, // 256 KiB: more than any of the files
        mode: BrotliEncoderMode::BROTLI_MODE_TEXT,
        size_hint: bytes.len(),
        ..BrotliEncoderParams::default()
    };
    let mut out = Vec::new();
    brotli::BrotliCompress(&mut bytes, &mut out, &parameters)?;
    Ok(out)
}

/// gzip's CRC-32 register after these bytes.
fn crc(register: u32, bytes: impl Iterator<Item = u8>) -> u32 {
    bytes.fold(register, |register, byte| {
        (0..8).fold(register ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let value =
            chunk.iter().fold(0_usize, |value, byte| value << 8 | usize::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = char::from(LETTERS[value >> (18 - 6 * place) & 63]);
            out.push(if place <= chunk.len() { letter } else { '=' });
        }
    }
    out
}
