//! Published answers: RFC 8448 (records and keys of a whole connection), RFC 8439; and records made
//! by another implementation, Python's `cryptography` 48 over OpenSSL.
#![cfg(test)]

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use tls::keys::Keys;
use tls::record::{Content, plain_size, size, tag};
use tls::suite::Suite;

use crate::{IV, SUITES, hex, key, keys, opened, sealed};

const AES_13: Suite = SUITES[0];
const CHACHA_13: Suite = SUITES[1];

/// The application traffic secrets of RFC 8448, 3, with the keys and IVs derived there.
const CLIENT: [&str; 3] = [
    "9e40646ce79a7f9dc05af8889bce6552 875afa0b06df0087f792ebb7c17504a5",
    "17422dda596ed5d9acd890e3c63f5051",
    "5b78923dee08579033e523d9",
];
const SERVER: [&str; 3] = [
    "a11af9f05531f856ad47116b45a95032 8204b4f44bfb6b3a4b4f1f3fcb631643",
    "9f02283b6c9c07efc26bb9f2ac92e356",
    "cf782b88dd83549aadf1e984",
];

const TICKET: &str = "040000c90000001efad6aac502000000b22c035d829359ee5ff7af4ec900000000262a6494dc486d2c8a34cb33
    fa90bf1b0070ad3c498883c9367c09a2be785abc55cd226097a3a982117283f82a03a143efd3ff5dd36d64e861be7fd61d2827db279cce
    145077d454a3664d4e6da4d29ee03725a6a4dafcd0fc67d2aea70529513e3da2677fa5906c5b3f7d8f92f228bda40dda721470f9fbf297
    b5aea617646fac5c03272e970727c621a79141ef5f7de6505e5bfbc388e93343694093934ae4d3570008002a000400000400";
const TICKET_RECORD: &str = "17030300de3a6b8f90414a97d6959c3487680de5134a2b240e6cffac116e95d41d6af8f6b580dcf3d11d63c758
    db289a015940252f55713e061dc13e078891a38efbcf5753ad8ef170ad3c7353d16d9da773b9ca7f2b9fa1b6c0d4a3d03f75e09c30ba1e
    62972ac46f75f7b981be63439b2999ce130646151398 91d5e4c5b406f16e3fc181a77ca475840025db2f0a77f81b5ab05b94c01346755f
    69232c86519d86cbeeac87aac347d143f9605d64f650db4d023e70e952ca49fe5137121c74bc2697687e248746d6df353005f3bce18696
    129c8153556b3b6c6779b37bf15985684f";
const CLIENT_DATA_RECORD: &str =
    "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a
    9a20441e2b62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4";
const SERVER_DATA_RECORD: &str =
    "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d90e6dffc602d
    cb501a59a8fcc49c4bf2e5f0a21c0047c2abf332540dd032e167c2955d";
const CLIENT_ALERT_RECORD: &str = "1703030013c9872760655666b74d7ff1153efd6db6d0b0e3";
const SERVER_ALERT_RECORD: &str = "1703030013b58fd67166ebf599d24720cfbe7efa7a8864a9";

fn from_secret(secret: &str) -> Keys {
    Keys::from_secret(AES_13, hex(secret).try_into().unwrap())
}

#[test]
fn rfc_8448_keys() {
    for [secret, key, iv] in [CLIENT, SERVER] {
        let secret = hex(secret).try_into().unwrap();
        let keys = Keys::new(AES_13, &hex(key), hex(iv).try_into().unwrap(), 9, secret).unwrap();
        assert!(keys.fit_secret(AES_13));
    }
}

#[test]
fn rfc_8448_records() {
    let data: Vec<u8> = (0..50).collect();
    let server = [
        (TICKET_RECORD, Content::Handshake, hex(TICKET)),
        (SERVER_DATA_RECORD, Content::ApplicationData, data.clone()),
        (SERVER_ALERT_RECORD, Content::Alert, vec![1, 0]),
    ];
    let client =
        [(CLIENT_DATA_RECORD, Content::ApplicationData, data), (CLIENT_ALERT_RECORD, Content::Alert, vec![1, 0])];
    for ([secret, ..], records) in [(SERVER, &server[..]), (CLIENT, &client[..])] {
        let (mut reading, writing) = (from_secret(secret), from_secret(secret));
        for (ahead, (record, content, plain)) in (0..).zip(records) {
            let record = hex(record);
            assert_eq!(size(&record[..5]), Ok(Some(record.len())));
            assert_eq!(plain_size(AES_13, record.len()), plain.len());
            assert_eq!(opened(AES_13, &mut reading, &record), (*content, plain.clone()));
            assert_eq!(sealed(AES_13, &writing, ahead, *content, plain), record);
            assert!(record.ends_with(&tag(&record)));
        }
    }
}

const SUNSCREEN: &[u8] = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the \
    future, sunscreen would be it.";
const SUNSCREEN_SEALED: &str = "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282faf
    b69da92728b1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc3ff4def0
    8e4b7a9de576d26586cec64b6116";

#[test]
fn rfc_8439_aead() {
    let key: Vec<u8> = (0x80..0xA0).collect();
    let nonce = hex("070000004041424344454647");
    let sealer = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &key).unwrap());
    let mut text = SUNSCREEN.to_vec();
    let nonce_of_ring = Nonce::try_assume_unique_for_key(&nonce).unwrap();
    let aad = Aad::from(hex("50515253c0c1c2c3c4c5c6c7"));
    let made = sealer.seal_in_place_separate_tag(nonce_of_ring, aad, &mut text).unwrap();
    assert_eq!((text, made.as_ref()), (hex(SUNSCREEN_SEALED), &*hex("1ae10b594f09e26a7e902ecbd0600691")));

    // The cipher's stream doesn't depend on the additional data, so a record with that key and
    // nonce has the same ciphertext, and another tag.
    let iv: [u8; 12] = nonce.try_into().unwrap();
    let keys = Keys::new(CHACHA_13, &key, iv, 0, [0; 32]).unwrap();
    let record = sealed(CHACHA_13, &keys, 0, Content::ApplicationData, SUNSCREEN);
    assert_eq!(record[5..5 + SUNSCREEN.len()], hex(SUNSCREEN_SEALED));
}

/// "a record of TLS", with sequence 0x0102030405060708, in the order of `SUITES`.
const FOREIGN: [&str; 4] = [
    "17030300209e7f969974c5ecaed08889c633c22f8a41c775024398d67ccc787f56b44d3c1c",
    "17030300203961edf8d840a493af4487ac1ae818cfc9325d3a4963c647f391201205f955b3",
    "1703030027a5a7a5a3adafada39e7f969974c5ecaed08889c633c22fde778770520c18aa470b493ae88c22a7",
    "170303001f3961edf8d840a493af4487ac1ae818d8efebf27813bb8f7677408da8621de9",
];

#[test]
fn records_of_another_implementation() {
    for (suite, record) in SUITES.into_iter().zip(FOREIGN) {
        let record = hex(record);
        let plain = b"a record of TLS";
        let sequence = 0x0102_0304_0506_0708;
        assert_eq!(sealed(suite, &keys(suite, sequence - 3), 3, Content::ApplicationData, plain), record);
        let mut reading = keys(suite, sequence);
        assert_eq!(opened(suite, &mut reading, &record), (Content::ApplicationData, plain.to_vec()));
        assert_eq!(reading.sequence(), sequence + 1);
        assert_eq!(plain_size(suite, record.len()), plain.len());
    }
}

/// The record of a KeyUpdate under the secret 00 01 … 1f, and under the two after it.
const UPDATES: [(Suite, [&str; 3]); 2] = [
    (
        AES_13,
        [
            "17030300163d08e73fab200457eb55c2c28b9f66b01e078fef0338",
            "1703030016c2346f671924dcaa6ddc73129e5f76a9d6ec322e77b0",
            "1703030016d6eb4158219e0f2bf63b88de277a07a265ed56f70ced",
        ],
    ),
    (
        CHACHA_13,
        [
            "1703030016aaae6bff0763329fac86848c9f8cc70570894c88acb8",
            "17030300160a0b31fa32b7a566dbdfac78c632ed52e51d0f7bee66",
            "17030300162507e8bce7205ea2d3264f9b7811a736c791ef7c3da6",
        ],
    ),
];

#[test]
fn key_updates_of_another_implementation() {
    for (suite, records) in UPDATES {
        let mut keys = Keys::from_secret(suite, core::array::from_fn(|at| at as u8));
        for record in records {
            assert_eq!(sealed(suite, &keys, 0, Content::Handshake, &[24, 0, 0, 1, 0]), hex(record));
            keys.advance(4);
            keys.update(suite);
        }
    }
}

#[test]
fn the_tests_keys_are_those_of_the_answers() {
    assert_eq!((key(AES_13), key(CHACHA_13)), ((0x10..0x20).collect(), (0x10..0x30).collect()));
    assert_eq!(IV.to_vec(), (0xA0..0xAC).collect::<Vec<u8>>());
}
