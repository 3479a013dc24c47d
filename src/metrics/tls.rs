//! The metrics of TLS for pages: handshakes, parts of records, certificates.
//!
//! Pure, as `metrics.rs`. The number of series depends on the number of certificates, which has a
//! limit; a certificate is a number, since paths and names are an operator's own.

use super::text::{Kind, Text};
use crate::console::{PagesTls, TlsCounts};

/// Renders them; all are zero, without a certificate, if TLS is off.
pub fn render(out: &mut Text, tls: Option<&PagesTls<'_>>) {
    let counts = tls.map_or_else(TlsCounts::default, |tls| tls.counts);
    out.labelled(
        "sharelinkd_tls_handshakes_total",
        Kind::Counter,
        "TLS handshakes of pages' connections that were completed: full ones have a signature, resumed ones a ticket.",
        "kind",
        [("full", counts.full), ("resumed", counts.resumed)],
    );
    out.counter("sharelinkd_tls_handshakes_failed_total", "TLS handshakes that failed.", counts.failed);
    out.counter(
        "sharelinkd_tls_handshakes_limited_total",
        "TLS handshakes refused by the rate limit of their address.",
        counts.limited,
    );
    out.gauge(
        "sharelinkd_tls_half_records",
        "Parts of TLS records kept until the rest comes, or until their page's next turn.",
        counts.half_records,
    );
    out.counter(
        "sharelinkd_tls_half_records_cut_total",
        "TLS connections cut off because others needed the place of their part of a record.",
        counts.halves_cut,
    );
    out.counter(
        "sharelinkd_tls_sealed_in_vain_bytes_total",
        "Bytes of TLS records that were sealed beyond those that sockets took: what a full socket did not take is sealed again.",
        counts.sealed_in_vain,
    );
    out.labelled(
        "sharelinkd_tls_reloads_total",
        Kind::Counter,
        "Times that the certificates changed (good), and that changed files could not be used (failed); then the previous ones stay.",
        "result",
        [("good", counts.reloads), ("failed", counts.reloads_failed)],
    );
    out.family(
        "sharelinkd_tls_certificate_expiry_seconds",
        Kind::Gauge,
        "Seconds until the first certificate of a chain expires, negative if it has; certificate is its number in the configuration. None while the clock was never set, or for one that can't be read.",
    );
    for (number, served) in (1..).zip(tls.map_or(&[][..], |tls| tls.certificates)) {
        let left_s = served.summary.as_ref().and_then(|summary| summary.left_s(tls?.now_s));
        if let Some(left_s) = left_s {
            out.row(&[("certificate", &format!("{number}"))], left_s);
        }
    }
}
