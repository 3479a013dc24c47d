//! The page's files, as the build compressed them (`build/assets.rs`): a request becomes an answer.
//!
//! Owns the files' addresses, types and caching, the conditions of a request (`If-None-Match`), and
//! the share page's bytes around its card. The binary has each file as gzip, and as brotli
//! if a first view needs it; plain bytes are made when the first peer asks for them, and kept: a
//! term of the memory sum. Refuses
//! nothing. Knows no socket and no link: `head.rs` asks for a file, `http.rs` for the share page.

pub mod coding;

use std::iter;
use std::sync::OnceLock;

use miniz_oxide::inflate::decompress_slice_iter_to_slice;

use self::coding::{Coding, VARY};
use super::request::Request;
use super::response::Response;

include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// A file's bytes and hashes. A version is the first 64 bits of the file's SHA-256 in hex, a tag
/// those of its form's.
struct Forms {
    size: usize,
    version: &'static str,
    gzip: (&'static [u8], &'static str),
    brotli: Option<(&'static [u8], &'static str)>,
}

/// The part of the share page in front of the card, or behind it. The stream of the first ends at
/// a byte, so that others can follow.
struct Half {
    size: usize,
    crc: u32,
    deflated: &'static [u8],
}

/// A file with an address of its own.
struct File {
    path: &'static str,
    kind: &'static str,
    headers: &'static str,
    forms: Forms,
    plain: OnceLock<Box<[u8]>>,
}

const ANY_ORIGIN: &str = "Access-Control-Allow-Origin: *\r\n";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

static FILES: [File; 4] = [
    File::new("/sharelink.js", SCRIPT, ANY_ORIGIN, SHARELINK_JS),
    File::new("/sharelink.d.ts", TEXT, ANY_ORIGIN, SHARELINK_D_TS),
    File::new("/assets/share.js", SCRIPT, "", SHARE_JS),
    File::new("/assets/share.css", "text/css; charset=utf-8", "", SHARE_CSS),
];
static PAGE: OnceLock<[Box<[u8]>; 2]> = OnceLock::new();

const _: () = assert!(
    SHARELINK_JS.size + SHARELINK_D_TS.size + SHARE_JS.size + SHARE_CSS.size + BEFORE.size + AFTER.size
        <= board::PLAIN_FILES_SIZE
);

/// Of an address that is not a version's: a new version of the relay must reach its pages soon.
const SHORT: &str = "Cache-Control: public, max-age=300\r\n";
/// Of an address that names the version which the answer is.
const LONG: &str = "Cache-Control: public, max-age=31536000, immutable\r\n";
/// gzip's header, and what ends a file that has no further stream (RFC 1952).
const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255];
const GZIP_TAIL_SIZE: usize = 8;

/// The share page's script, as its policy names it.
pub const SCRIPT_SOURCE: &str = SCRIPT_HASH;

/// The answer to a request for a file; `None` if there is none of this path.
#[must_use]
pub fn answer(request: &Request<'_, '_>, path: &str, is_head: bool) -> Option<Response> {
    let file = FILES.iter().find(|file| file.path == path)?;
    let coding = Coding::accepted(request.members("Accept-Encoding"), file.forms.brotli.is_some());
    let (bytes, tag) = file.form(coding);
    let mut asked = request.query.trim_start_matches('?').split('&');
    let is_versioned = asked.any(|part| part.strip_prefix("v=") == Some(file.forms.version));
    let caching = if is_versioned { LONG } else { SHORT };
    let headers = format!("{caching}{VARY}ETag: \"{tag}\"\r\n{}", file.headers);
    let answer = Response { kind: file.kind, is_head, ..Response::plain(200, "") };
    if request.members("If-None-Match").any(|known| is_tag(known, tag)) {
        return Some(Response { code: 304, headers, ..answer });
    }
    let headers = format!("{headers}X-Content-Type-Options: nosniff\r\n{}", coding.line());
    Some(Response { headers, body: bytes.into(), ..answer })
}

/// Whether a member of `If-None-Match` means this tag (RFC 9110, 13.1.2): the comparison is weak.
/// Our tags have no comma, so a member that a comma within a tag has cut is none of ours.
fn is_tag(member: &[u8], tag: &str) -> bool {
    let quoted = member.strip_prefix(b"W/").unwrap_or(member);
    let inner = quoted.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    member == b"*" || inner == Some(tag.as_bytes())
}

impl File {
    const fn new(path: &'static str, kind: &'static str, headers: &'static str, forms: Forms) -> Self {
        Self { path, kind, headers, forms, plain: OnceLock::new() }
    }

    /// The bytes of a coding that the file has, and their tag.
    fn form(&'static self, coding: Coding) -> (&'static [u8], &'static str) {
        match (coding, self.forms.brotli) {
            (Coding::Brotli, Some(brotli)) => brotli,
            (Coding::Gzip, _) => self.forms.gzip,
            _ => (self.plain(), self.forms.version),
        }
    }

    fn plain(&'static self) -> &'static [u8] {
        self.plain.get_or_init(|| {
            let (gzip, _) = self.forms.gzip;
            let end = gzip.len().saturating_sub(GZIP_TAIL_SIZE);
            inflated(gzip.get(GZIP_HEAD.len()..end).unwrap_or_default(), self.forms.size)
        })
    }
}

/// The bytes of a stream that the build made. The first half of the share page has no end of its
/// own: there the inflater asks for more, once everything is there.
fn inflated(deflated: &[u8], size: usize) -> Box<[u8]> {
    let mut out = vec![0; size].into_boxed_slice();
    let _ = decompress_slice_iter_to_slice(&mut out, iter::once(deflated), false, true);
    out
}

/// The share page around its card, plain or as gzip.
#[must_use]
pub fn share_page(card: &str, coding: Coding) -> Vec<u8> {
    if coding == Coding::Plain {
        let [before, after] = PAGE.get_or_init(|| [BEFORE, AFTER].map(|half| inflated(half.deflated, half.size)));
        return [before, card.as_bytes(), after].concat();
    }
    // The card is a block that is stored: what users typed is not compressed together with
    // anything, so that its size tells nothing about it.
    let size = u16::try_from(card.len()).unwrap_or(u16::MAX);
    let card = card.as_bytes().get(..size.into()).unwrap_or_default();
    let crc = joined(!register(!BEFORE.crc, card));
    let whole = u32::try_from(BEFORE.size + card.len() + AFTER.size).unwrap_or(u32::MAX);
    let block = [&[0][..], &size.to_le_bytes(), &(!size).to_le_bytes()].concat();
    let tail = [crc.to_le_bytes(), whole.to_le_bytes()].concat();
    [&GZIP_HEAD, BEFORE.deflated, &block, card, AFTER.deflated, &tail].concat()
}

/// gzip's CRC-32 register after these bytes.
fn register(register: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(register, |register, byte| {
        (0..8).fold(register ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// The whole page's CRC, given that of all in front of its second half.
fn joined(crc: u32) -> u32 {
    let bits = (0..).zip(BEHIND_AFTER).filter(|(bit, _)| crc >> bit & 1 == 1);
    bits.fold(AFTER.crc, |joined, (_, behind)| joined ^ behind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::request::HEADERS_MAX;

    fn asked(target: &str, lines: &str) -> Response {
        let head = format!("GET {target} HTTP/1.1\r\nHost: x\r\n{lines}\r\n");
        let mut room = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let request = Request::parse(head.as_bytes(), &mut room).unwrap();
        answer(&request, &request.path(), false).unwrap()
    }

    fn header<'a>(answer: &'a Response, name: &str) -> Option<&'a str> {
        answer.headers.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn source(path: &str) -> Vec<u8> {
        let name = path.rsplit('/').next().unwrap();
        std::fs::read(format!("{}/src/web/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    fn unbrotlied(mut bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        brotli::BrotliDecompress(&mut bytes, &mut out).unwrap();
        out
    }

    /// A gzip file of any number of blocks, with its CRC and size checked.
    fn gunzipped(bytes: &[u8]) -> Vec<u8> {
        let (stream, tail) = bytes.split_at(bytes.len() - GZIP_TAIL_SIZE);
        let numbers: Vec<u32> = tail.chunks(4).map(|four| u32::from_le_bytes(four.try_into().unwrap())).collect();
        let mut out = vec![0; numbers[1] as usize];
        let stream = stream.strip_prefix(&GZIP_HEAD).unwrap();
        assert_eq!(decompress_slice_iter_to_slice(&mut out, iter::once(stream), false, true), Ok(out.len()));
        assert_eq!(numbers[0], !register(!0, &out));
        out
    }

    #[test]
    fn each_form_of_a_file_is_the_file() {
        for file in &FILES {
            let source = source(file.path);
            assert_eq!(file.forms.size, source.len());
            let best = if file.forms.brotli.is_some() { "br" } else { "gzip" };
            for (accepted, coding, decode) in [
                ("br, gzip", Some(best), if best == "br" { unbrotlied } else { gunzipped as fn(&[u8]) -> Vec<u8> }),
                ("gzip", Some("gzip"), gunzipped),
                ("identity", None, <[u8]>::to_vec),
            ] {
                let answer = asked(file.path, &format!("accept-encoding: {accepted}\r\n"));
                assert_eq!((answer.code, header(&answer, "Content-Encoding")), (200, coding));
                assert!(decode(&answer.body) == source, "{} as {coding:?}", file.path);
                assert_eq!(header(&answer, "Vary"), Some("Accept-Encoding"));
            }
            assert!(asked(file.path, "").body == source);
        }
        let split = asked("/sharelink.js", "Accept-Encoding: deflate\r\nX: y\r\nAccept-Encoding: gzip;q=0, br\r\n");
        assert_eq!(header(&split, "Content-Encoding"), Some("br"));
    }

    #[test]
    fn the_same_form_is_not_sent_twice() {
        let mut tags = Vec::new();
        for file in &FILES {
            let codings = ["identity", "gzip", "br"];
            for coding in &codings[..if file.forms.brotli.is_some() { 3 } else { 2 }] {
                let accepted = format!("Accept-Encoding: {coding}\r\n");
                let whole = asked(file.path, &accepted);
                let tag = header(&whole, "ETag").unwrap();
                tags.push(tag.to_owned());
                for (known, is_known) in [
                    (tag.to_owned(), true),
                    (format!("W/{tag}"), true),
                    (format!("\"a,b\", W/\"c\" ,{tag}"), true),
                    (format!("\"a\"\r\nIf-None-Match: {tag}"), true),
                    ("*".to_owned(), true),
                    (tag.trim_matches('"').to_owned(), false),
                    (format!("w/{tag}"), false),
                    (format!("\"x{}", &tag[1..]), false),
                    ("\"\", \"".to_owned(), false),
                    (String::new(), false),
                ] {
                    let answer = asked(file.path, &format!("{accepted}If-None-Match: {known}\r\n"));
                    assert_eq!(
                        (answer.code, answer.body.is_empty()),
                        if is_known { (304, true) } else { (200, false) }
                    );
                    let head = String::from_utf8(answer.head(None)).unwrap();
                    for name in ["Cache-Control", "ETag", "Vary"] {
                        assert_eq!(header(&answer, name), header(&whole, name), "{known}");
                    }
                    assert!(!is_known || !head.contains("Content-"), "{head}");
                }
            }
        }
        let count = tags.len();
        tags.sort();
        tags.dedup();
        assert_eq!(tags.len(), count, "each form has its own tag");
    }

    #[test]
    fn only_the_address_of_the_right_version_is_kept() {
        for file in &FILES {
            let version = file.forms.version;
            let hash = <sha2::Sha256 as sha2::Digest>::digest(source(file.path));
            assert_eq!(version, hash[..8].iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}")));
            for (query, is_kept) in [
                (format!("?v={version}"), true),
                (format!("?v={version}&try=2"), true),
                (String::new(), false),
                ("?v=".to_owned(), false),
                (format!("?v={version}0"), false),
                (format!("?w={version}"), false),
                ("?v=0123456789abcdef".to_owned(), false),
            ] {
                let answer = asked(&format!("{}{query}", file.path), "");
                let caching = if is_kept { "public, max-age=31536000, immutable" } else { "public, max-age=300" };
                assert_eq!((answer.code, header(&answer, "Cache-Control")), (200, Some(caching)), "{query}");
            }
        }
        let page = String::from_utf8(share_page("", Coding::Plain)).unwrap();
        for file in FILES.iter().filter(|file| !file.path.ends_with(".d.ts")) {
            let address = format!("\"{}?v={}\"", file.path, file.forms.version);
            assert_eq!(page.matches(&address).count(), 1, "{address}");
        }
    }

    #[test]
    fn the_share_page_as_gzip_is_the_page_whatever_the_card() {
        for card in ["", "x", "<title>Live</title>\n", &"😀".repeat(3000), &"\0".repeat(usize::from(u16::MAX))] {
            let page = share_page(card, Coding::Plain);
            assert_eq!(page.len(), BEFORE.size + card.len() + AFTER.size);
            assert!(gunzipped(&share_page(card, Coding::Gzip)) == page, "{} bytes", card.len());
        }
        assert!(share_page("", Coding::Gzip).len() < 3400, "a first view waits for it");
    }
}
