//! The fuzz target for the handshake's feed: records of strangers, and a client whose bytes change.

use std::sync::{Arc, OnceLock};

use rustls::client::ClientConfig;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConnection, sign::CertifiedKey};
use sharelinkd::config::MinVersion;
use sharelinkd::config::certificates::Pair;
use sharelinkd::daemon::tls::handshake::{Acceptor, Next, hello};
use tls::channel::{Channel, Input, Source};
use tls::record;

use super::anyone;

/// What the server sends in one step, at most.
const OUT_SIZE_MAX: usize = 16 * 1024;

/// An even first byte: the others are records of a stranger. An odd one: a real client shakes
/// hands, and each three bytes change one of what it sends; without any, hands are shaken.
pub fn handshake(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    if kind % 2 == 0 {
        stranger(data);
    } else {
        client(data, kind & 2 > 0);
    }
}

fn stranger(mut data: &[u8]) {
    let mut handshake = acceptor().begin().expect("a handshake begins");
    let mut out = Vec::new();
    while let Ok(Some(size)) = record::size(data)
        && let Some((bytes, behind)) = data.split_at_checked(size)
    {
        assert_eq!(hello(bytes).is_some(), bytes.get(5) == Some(&1));
        out.clear();
        handshake = match handshake.step(bytes, &mut out) {
            Ok(Next::Record(handshake)) => handshake,
            Ok(Next::Done(..)) => panic!("hands were shaken with nobody"),
            Err(failed) => return assert!(!failed.to_string().is_empty()),
        };
        assert!(out.len() <= OUT_SIZE_MAX, "{} bytes for a stranger", out.len());
        data = behind;
    }
}

fn client(data: &[u8], is_old: bool) {
    let config = Arc::clone(&clients()[usize::from(is_old)]);
    let mut client =
        ClientConnection::new(config, ServerName::try_from("localhost").expect("a name")).expect("a client");
    let mut handshake = acceptor().begin().expect("a handshake begins");
    let (mut sent, mut changes) = (0, data.chunks_exact(3));
    let mut change = changes.next();
    for _ in 0..4 {
        let mut flight = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut flight).expect("a vector takes all");
        }
        for byte in &mut flight {
            if let Some(&[low, high, with]) = change
                && sent == usize::from(u16::from_le_bytes([low, high])) % 4096
            {
                *byte ^= with;
                change = changes.next();
            }
            sent += 1;
        }
        let mut rest = &flight[..];
        while let Ok(Some(size)) = record::size(rest)
            && let Some((bytes, behind)) = rest.split_at_checked(size)
        {
            let mut out = Vec::new();
            let next = handshake.step(bytes, &mut out);
            let mut read = &out[..];
            while !read.is_empty() && client.read_tls(&mut read).is_ok() {}
            let is_well = client.process_new_packets().is_ok();
            handshake = match next {
                Ok(Next::Record(handshake)) => handshake,
                Ok(Next::Done(secured, _)) => {
                    // Whoever finished has the same keys; anything else would have failed.
                    return if is_well {
                        talk(&mut client, &mut secured.channel.borrow_mut())
                    } else {
                        assert!(!data.is_empty())
                    };
                }
                Err(_) => return assert!(!data.is_empty(), "nothing was changed, and no hands were shaken"),
            };
            rest = behind;
        }
    }
    assert!(!data.is_empty(), "nothing was changed, and no hands were shaken");
}

/// Each end reads what the other writes.
fn talk(client: &mut ClientConnection, channel: &mut Channel) {
    use std::io::{Read, Write};
    let mut sealed = [0; 256];
    let size = channel.seal(0, Source::Outgoing, &[b"from the server"], &mut sealed).expect("it is sealed");
    let mut rest = &sealed[..size];
    while !rest.is_empty() {
        client.read_tls(&mut rest).expect("a slice is read");
    }
    client.process_new_packets().expect("the client opens it");
    let mut read = [0; 64];
    let size = client.reader().read(&mut read).expect("it has something to read");
    assert_eq!(&read[..size], b"from the server");
    client.writer().write_all(b"from the client").expect("the client writes");
    let mut wire = Vec::new();
    client.write_tls(&mut wire).expect("a vector takes all");
    let Ok(Input::Data(plain)) = channel.open(&mut wire) else { panic!("the client's record is not opened") };
    assert_eq!(&wire[plain], b"from the client");
}

fn acceptor() -> &'static Acceptor {
    static ACCEPTOR: OnceLock<Acceptor> = OnceLock::new();
    ACCEPTOR.get_or_init(|| {
        let chain = vec![CertificateDer::from(&include_bytes!("../../crates/tls/testdata/server.der")[..])];
        let key = &include_bytes!("../../crates/tls/testdata/server.key.der")[..];
        let key = any_supported_type(&PrivateKeyDer::try_from(key).expect("a key")).expect("a key that can sign");
        let pair = Pair { certified: Arc::new(CertifiedKey::new(chain, key)) };
        Acceptor::new(&[pair], MinVersion::V12, None).expect("an acceptor")
    })
}

/// Clients of TLS 1.3 and 1.2.
fn clients() -> &'static [Arc<ClientConfig>; 2] {
    static CLIENTS: OnceLock<[Arc<ClientConfig>; 2]> = OnceLock::new();
    CLIENTS.get_or_init(|| {
        [&rustls::version::TLS13, &rustls::version::TLS12].map(|version| Arc::new(anyone::client_of(&[version])))
    })
}
