//! TLS for pages: the line of `status`, the rows of `tls`, its part of `json`, its conditions.
//!
//! Reads what the shell knows through [`PagesTls`]. Owns when a certificate is a condition, and
//! which: one for each code, however many certificates it is about, so that answers stay short.
//! Decides nothing, and shows no key but its fingerprint.

use core::fmt::Write as _;

use super::text::{plain, within, wrapped};
use super::view::PagesTls;
use crate::certificate::{Nearness, Served, Validity};
use tls::certificate::KeyKind;

/// Columns behind the label of a row of `tls`.
const COLUMNS: usize = 65;
/// Columns of a file's path in a condition, and bytes of it in `json`.
const FILE_SIZE_MAX: usize = 80;

/// The line of `status`: how many certificates, and which end comes first.
pub fn status(tls: &PagesTls<'_>) -> String {
    let ends = tls.certificates.iter().filter_map(|served| served.summary.as_ref());
    let first = ends.map(|summary| summary.validity(tls.now_s)).min_by_key(left);
    let end = match (first, tls.certificates.len()) {
        (Some(end), 1) => format!(", {end}"),
        (Some(end), _) => format!(", one {end}"),
        (None, _) => String::new(),
    };
    format!("{} at {}{end}", counted(tls.certificates.len()), within(&addresses(tls), 24))
}

/// The head of `tls`.
pub fn head(tls: Option<&PagesTls<'_>>) -> String {
    let Some(tls) = tls else {
        return "TLS is off: `listen` below [tls] in the configuration turns it on\n".to_owned();
    };
    let counts = &tls.counts;
    let mut out = String::new();
    let _ = writeln!(out, "pages by TLS  {}", within(&addresses(tls), COLUMNS));
    let _ = writeln!(out, "handshakes    {} full, {} resumed, {} failed", counts.full, counts.resumed, counts.failed);
    let _ = writeln!(out, "              {} refused by their address's rate", counts.limited);
    let _ =
        writeln!(out, "half records  {} kept, {} connections cut for others", counts.half_records, counts.halves_cut);
    let _ = writeln!(out, "reloads       {} good, {} failed", counts.reloads, counts.reloads_failed);
    out
}

/// The rows of one certificate in `tls`.
pub fn certificate(tls: &PagesTls<'_>, index: usize) -> Option<String> {
    let served = tls.certificates.get(index)?;
    let mut out = String::new();
    let mut row = |label: &str, text: &str| {
        for (at, piece) in wrapped(text, COLUMNS).enumerate() {
            let _ = writeln!(out, "{:<13} {piece}", if at == 0 { label } else { "" });
        }
    };
    row(&format!("certificate {}", index + 1), &within(&plain(&served.file), COLUMNS));
    match &served.summary {
        Some(summary) => {
            row("names", if summary.names.is_empty() { "-" } else { &summary.names });
            row("key", &summary.key());
            let validity = summary.validity(tls.now_s);
            let whose = if summary.is_of_intermediate(validity) { "; an intermediate certificate" } else { ";" };
            row("valid", &format!("{}{whose} {validity}", summary.days()));
            row("SHA-256", &summary.fingerprint.to_string());
            row("public key", &summary.public_key.to_string());
        }
        None => row("names", "- (it is not as RFC 5280 says)"),
    }
    if let Some(trouble) = &served.trouble {
        row("[C3]", &plain(trouble));
    }
    Some(out)
}

/// The part of `json`. Names are left out, since they may be many.
pub fn json(tls: &PagesTls<'_>) -> serde_json::Value {
    let certificate = |served: &Served| {
        let summary = served.summary.as_ref();
        serde_json::json!({
            "file": within(&plain(&served.file), FILE_SIZE_MAX),
            "sha256": summary.map(|summary| summary.fingerprint.to_string()),
            "not_after": summary.map(|summary| summary.not_after),
            "left_s": summary.and_then(|summary| summary.left_s(tls.now_s)),
            "is_usable": served.trouble.is_none(),
        })
    };
    serde_json::json!({
        "certificates": tls.certificates.iter().map(certificate).collect::<Vec<_>>(),
        "handshakes": tls.counts.full + tls.counts.resumed,
    })
}

/// The conditions, the worst first: code and text.
pub fn conditions(tls: &PagesTls<'_>) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let mut add = |code, texts: Vec<String>| {
        if let Some(first) = texts.first() {
            let more = match texts.len() - 1 {
                0 => String::new(),
                more => format!(" (and {more} more: `tls` lists them)"),
            };
            found.push((code, format!("{first}{more}")));
        }
    };
    let rows = || (1..).zip(tls.certificates);
    let ends = |nearness| {
        let texts = rows().filter_map(|(number, served)| {
            let summary = served.summary.as_ref().filter(|summary| summary.nearness(tls.now_s) == nearness)?;
            let validity = summary.validity(tls.now_s);
            let whose = if summary.is_of_intermediate(validity) { "an intermediate of " } else { "" };
            Some(format!("{whose}{} {validity}", name(number, served)))
        });
        texts.collect::<Vec<_>>()
    };
    add("C1", ends(Nearness::Invalid));
    add("C2", ends(Nearness::VerySoon));
    let trouble = |served: &Served| served.trouble.as_ref().map(|why| format!("{why}; the previous one stays in use"));
    add("C3", tls.certificates.iter().filter_map(trouble).collect());
    add("C4", ends(Nearness::Soon));
    if tls.now_s.is_none() && !tls.certificates.is_empty() {
        add("C5", vec!["the clock was never set: whether the certificates have expired is not known".to_owned()]);
    } else {
        let unread = rows().filter(|(_, served)| served.summary.is_none());
        let text = |(number, served)| format!("when {} ends is not known: it can't be read", name(number, served));
        add("C5", unread.map(text).collect());
    }
    let slow = rows().filter(|_| tls.is_slow).filter_map(|(number, served)| {
        let summary = served.summary.as_ref()?;
        let is_costly = matches!(summary.key_kind, KeyKind::Rsa(_) | KeyKind::P384);
        let text = || format!("{} has a key that makes handshakes slow here: {}", name(number, served), summary.key());
        is_costly.then(text)
    });
    add("C6", slow.collect());
    found
}

/// The order of ends: the least time left first.
const fn left(validity: &Validity) -> i64 {
    match *validity {
        Validity::Over(s) => -s,
        Validity::NotYet(_) => 0,
        Validity::Left(s) => s,
        Validity::Unknown => i64::MAX,
    }
}

fn name(number: usize, served: &Served) -> String {
    format!("certificate {number}, {},", within(&plain(&served.file), FILE_SIZE_MAX))
}

fn counted(count: usize) -> String {
    format!("{count} certificate{}", if count == 1 { "" } else { "s" })
}

fn addresses(tls: &PagesTls<'_>) -> String {
    tls.listening.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::text::COLUMNS as SCREEN;
    use super::super::view::TlsCounts;
    use super::*;
    use crate::certificate::Summary;
    use board::CERTIFICATES_MAX;

    const SERVER: &[u8] = include_bytes!("../../crates/tls/testdata/server.der");
    const DAY_S: i64 = 86_400;
    /// Many, but not more than a year has.
    const MANY: u64 = u32::MAX as u64;
    /// When the certificates of these tests end.
    const END_S: i64 = 1_900_000_000;

    fn served(file: &str, kind: KeyKind) -> Served {
        let summary = Summary::of([SERVER].into_iter()).unwrap();
        let summary =
            Summary { key_kind: kind, not_before: END_S - 90 * DAY_S, not_after: END_S, life_s: 90 * DAY_S, ..summary };
        Served { file: file.to_owned(), summary: Some(summary), trouble: None }
    }

    fn tls(certificates: &[Served], now_s: Option<i64>) -> PagesTls<'_> {
        PagesTls { listening: &[], certificates, counts: TlsCounts::default(), now_s, is_slow: true }
    }

    fn codes(certificates: &[Served], now_s: Option<i64>) -> Vec<&'static str> {
        conditions(&tls(certificates, now_s)).into_iter().map(|(code, _)| code).collect()
    }

    #[test]
    fn an_end_is_a_condition_from_fourteen_days_and_another_from_three() {
        let one = [served("/x", KeyKind::P256)];
        for (left_s, code) in [
            (91 * DAY_S, Some("C1")),
            (90 * DAY_S, None),
            (14 * DAY_S, None),
            (14 * DAY_S - 1, Some("C4")),
            (3 * DAY_S, Some("C4")),
            (3 * DAY_S - 1, Some("C2")),
            (0, Some("C2")),
            (-1, Some("C1")),
        ] {
            assert_eq!(codes(&one, Some(END_S - left_s)), Vec::from_iter(code), "{left_s}");
        }
        let mut days = [served("/x", KeyKind::P256)];
        let summary = days[0].summary.as_mut().unwrap();
        (summary.not_before, summary.life_s) = (END_S - 8 * DAY_S, 8 * DAY_S);
        for (left_s, code) in [(2 * DAY_S, None), (2 * DAY_S - 1, Some("C4")), (DAY_S / 2 - 1, Some("C2"))] {
            assert_eq!(codes(&days, Some(END_S - left_s)), Vec::from_iter(code), "{left_s} of 8 days");
        }
        let text = &conditions(&tls(&one, Some(END_S - 5 * DAY_S)))[0].1;
        assert_eq!(text, "certificate 1, /x, expires in 5 days");
    }

    #[test]
    fn a_clock_that_was_never_set_is_the_condition_and_not_a_wrong_alarm() {
        let one = [served("/x", KeyKind::P256)];
        assert_eq!(codes(&one, None), ["C5"]);
        assert_eq!(one[0].summary.as_ref().unwrap().left_s(None), None);
        assert!(status(&tls(&one, None)).ends_with(", may have expired: the clock was never set"));
        let unread = [Served { summary: None, ..served("/x", KeyKind::P256) }];
        let text = "when certificate 1, /x, ends is not known: it can't be read".to_owned();
        assert_eq!(conditions(&tls(&unread, Some(END_S))), [("C5", text)]);
    }

    #[test]
    fn files_that_cannot_be_used_are_a_condition_and_rsa_is_one_where_it_is_slow() {
        let mut two = [served("/x", KeyKind::P256), served("/y", KeyKind::Rsa(2048))];
        let now_s = Some(END_S - 60 * DAY_S);
        assert_eq!(codes(&two, now_s), ["C6"]);
        assert_eq!(codes(&[served("/z", KeyKind::P384)], now_s), ["C6"]);
        assert!(conditions(&PagesTls { is_slow: false, ..tls(&two, now_s) }).is_empty());
        two[0].trouble = Some("key_file /k does not match certificate_file /x; name the key".to_owned());
        let found = conditions(&tls(&two, now_s));
        let text = "key_file /k does not match certificate_file /x; name the key; the previous one stays in use";
        assert_eq!(found[0], ("C3", text.to_owned()));
        assert!(certificate(&tls(&two, now_s), 0).unwrap().contains("[C3]          key_file /k does not match"));
    }

    #[test]
    fn the_status_names_the_end_that_comes_first() {
        let mut three = [served("/x", KeyKind::P256), served("/y", KeyKind::P256), served("/z", KeyKind::P256)];
        let now_s = Some(END_S - 60 * DAY_S);
        assert_eq!(status(&tls(&three, now_s)), "3 certificates at , one expires in 60 days");
        three[1].summary.as_mut().unwrap().not_after -= 40 * DAY_S;
        assert_eq!(status(&tls(&three, now_s)), "3 certificates at , one expires in 20 days");
        three[2].summary.as_mut().unwrap().not_after -= 65 * DAY_S;
        assert_eq!(status(&tls(&three, now_s)), "3 certificates at , one expired 5 days ago");
        three[0].summary = None;
        assert_eq!(status(&tls(&three[..1], now_s)), "1 certificate at ");
    }

    #[test]
    fn the_most_certificates_with_the_longest_texts_fit_the_answers() {
        let mut all: Vec<Served> =
            (0..CERTIFICATES_MAX).map(|_| served(&"/long".repeat(800), KeyKind::Rsa(4096))).collect();
        for served in &mut all {
            served.trouble = Some("x".repeat(400));
            served.summary.as_mut().unwrap().names = "name.example, ".repeat(78);
        }
        for now_s in [None, Some(END_S - 5 * DAY_S)] {
            let tls = tls(&all, now_s);
            let found: usize = conditions(&tls).iter().map(|(_, text)| text.len()).sum();
            assert!(found < 1_200, "{found} bytes of conditions");
            assert!(json(&tls).to_string().len() < 2_600, "{}", json(&tls).to_string().len());
            for index in 0..CERTIFICATES_MAX {
                let rows = certificate(&tls, index).unwrap();
                assert!(rows.len() < 2_600 && rows.lines().all(|line| line.len() <= SCREEN), "{rows}");
            }
            assert_eq!(certificate(&tls, CERTIFICATES_MAX), None);
            let counts = TlsCounts { full: MANY, resumed: MANY, failed: MANY, limited: MANY, ..TlsCounts::default() };
            let head = head(Some(&PagesTls { counts, ..tls }));
            assert!(head.lines().all(|line| line.len() <= SCREEN), "{head}");
        }
    }
}
