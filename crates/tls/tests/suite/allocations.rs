//! Sealing, opening, updating and the choice by name allocate nothing.
#![cfg(test)]

use std::hint::black_box;

use allocation_counter::measure;
use tls::certificate::Certificate;
use tls::keys::Keys;
use tls::names::choose;
use tls::record::{Content, open, seal};
use tls::suite::{RECORD_SIZE_MAX, Version};

use crate::{SIZES, SUITES, keys, text};

#[test]
fn no_record_costs_an_allocation() {
    let mut out = vec![0; RECORD_SIZE_MAX];
    for suite in SUITES {
        for size in SIZES {
            let plain = text(size);
            let (front, back) = plain.split_at(size / 3);
            let counted = measure(|| {
                let (writing, mut reading) = (keys_without_a_vector(suite), keys_without_a_vector(suite));
                let made = seal(suite, &writing, 0, Content::ApplicationData, &[front, back], &mut out).unwrap();
                let opened = open(suite, &mut reading, &mut out[..made]);
                assert_eq!(opened, Ok((Content::ApplicationData, suite.prefix_size()..suite.prefix_size() + size)));
                assert!(open(suite, &mut reading, &mut out[..made]).is_err(), "spoilt");
                reading.update(suite);
                black_box(reading);
            });
            assert_eq!(counted.count_total, 0, "{suite:?} {size}");
        }
    }
    // The counter counts.
    assert_ne!(measure(|| drop(black_box(keys(SUITES[0], 0)))).count_total, 0);
}

fn keys_without_a_vector(suite: tls::suite::Suite) -> Keys {
    match suite.version {
        Version::Tls13 => Keys::from_secret(suite, [7; 32]),
        Version::Tls12 => Keys::new(suite, &[7; 32][..suite.key_size()], [1; 12], 1, [0; 32]).unwrap(),
    }
}

#[test]
fn no_certificate_costs_an_allocation() {
    let bytes = include_bytes!("../../testdata/odd.der");
    let counted = measure(|| {
        let certificate = Certificate::parse(bytes).unwrap();
        assert_eq!(certificate.names().count(), 5);
        assert_eq!(choose([["other.example"], ["*.odd.example"]].into_iter(), "a.odd.example"), 1);
    });
    assert_eq!(counted.count_total, 0);
}
