//! OpenSSL as the peer: `openssl s_client` over a socket reads what we seal, writes what we open,
//! and updates its keys. Needs the command `openssl`, 3.0 or later.
#![cfg(test)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::time::Duration;

use tls::alert::Alert;
use tls::keys::Keys;
use tls::record::{Content, size};
use tls::suite::{Aead, RECORD_SIZE_MAX, Suite, Version};

use crate::peers::{server, taken};
use crate::{SUITES, opened, sealed, text};

/// What a hung peer costs before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

struct Peer {
    process: Child,
    output: ChildStdout,
    remarks: BufReader<ChildStderr>,
    stream: TcpStream,
    reading: Keys,
    writing: Keys,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn connected(suite: Suite) -> Peer {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let options: &[&str] = match (suite.version, suite.aead) {
        (Version::Tls13, Aead::Aes128Gcm) => &["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"],
        (Version::Tls13, Aead::ChaCha20Poly1305) => &["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"],
        (Version::Tls12, Aead::Aes128Gcm) => &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"],
        (Version::Tls12, Aead::ChaCha20Poly1305) => &["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"],
    };
    let mut process = Command::new("openssl")
        .args(["s_client", "-brief", "-connect", &listener.local_addr().unwrap().to_string()])
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command openssl");
    let output = process.stdout.take().unwrap();
    let remarks = BufReader::new(process.stderr.take().unwrap());
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut server, secrets) = server(suite);
    while server.is_handshaking() || server.wants_write() {
        server.complete_io(&mut stream).unwrap();
    }
    let (reading, writing) = taken(suite, server.dangerous_extract_secrets().unwrap(), &secrets);
    Peer { process, output, remarks, stream, reading, writing }
}

impl Peer {
    /// We send.
    fn send(&mut self, suite: Suite, content: Content, plain: &[u8]) {
        let record = sealed(suite, &self.writing, 0, content, plain);
        self.writing.advance(1);
        self.stream.write_all(&record).unwrap();
    }

    /// We send, and the peer prints it.
    fn down(&mut self, suite: Suite, plain: &[u8]) {
        self.send(suite, Content::ApplicationData, plain);
        let mut printed = vec![0; plain.len()];
        self.output.read_exact(&mut printed).unwrap();
        assert!(printed == plain, "{suite:?} {}", plain.len());
    }

    /// Types a line at the peer.
    fn type_in(&mut self, line: &[u8]) {
        let input = self.process.stdin.as_mut().unwrap();
        input.write_all(line).unwrap();
        input.flush().unwrap();
    }

    /// One record from the peer.
    fn receive(&mut self, suite: Suite) -> (Content, Vec<u8>) {
        let mut record = vec![0; RECORD_SIZE_MAX];
        self.stream.read_exact(&mut record[..5]).unwrap();
        let size = size(&record[..5]).unwrap().unwrap();
        self.stream.read_exact(&mut record[5..size]).unwrap();
        opened(suite, &mut self.reading, &record[..size])
    }

    /// The peer sends a line; we read it.
    fn up(&mut self, suite: Suite, line: &[u8]) {
        self.type_in(line);
        let mut got = Vec::new();
        while got.len() < line.len() {
            let (content, plain) = self.receive(suite);
            assert_eq!(content, Content::ApplicationData);
            got.extend(plain);
        }
        assert!(got == line, "{suite:?}");
    }
}

#[test]
fn openssl_reads_what_we_seal_and_we_open_what_it_writes() {
    for suite in SUITES {
        let mut peer = connected(suite);
        for size in [1, 200, 4_064, 16_384] {
            peer.down(suite, &text(size));
            peer.up(suite, format!("a line of {size}\n").as_bytes());
        }
        peer.send(suite, Content::Alert, &Alert::CloseNotify.encode());
        // It closes in turn.
        let answer = peer.receive(suite);
        assert_eq!(answer, (Content::Alert, Alert::CloseNotify.encode().to_vec()));
        assert!(peer.process.wait().unwrap().success());
    }
}

#[test]
fn openssl_updates_its_keys_and_takes_our_updates() {
    for suite in &SUITES[..2] {
        let mut peer = connected(*suite);
        for round in 0..3_u8 {
            peer.down(*suite, b"before");
            // `k` updates, `K` asks us to do so too. It goes out with the next read or write.
            let (command, asks) = if round % 2 == 0 { (b"k\n", 0) } else { (b"K\n", 1) };
            peer.type_in(command);
            let remark = peer.remarks.by_ref().lines().map(Result::unwrap).find(|line| line == "KEYUPDATE");
            assert!(remark.is_some(), "the peer has ended");
            peer.down(*suite, b"and its update");
            assert_eq!(peer.receive(*suite), (Content::Handshake, vec![24, 0, 0, 1, asks]));
            peer.reading.update(*suite);
            peer.up(*suite, b"under its new keys\n");
            // Ours, which asks for an answer in each second round.
            peer.send(*suite, Content::Handshake, &[24, 0, 0, 1, asks]);
            peer.writing.update(*suite);
            peer.down(*suite, b"under our new keys");
            if asks == 1 {
                // Its answer goes out with its next write.
                peer.type_in(b"behind its answer\n");
                assert_eq!(peer.receive(*suite), (Content::Handshake, vec![24, 0, 0, 1, 0]));
                peer.reading.update(*suite);
                assert_eq!(peer.receive(*suite), (Content::ApplicationData, b"behind its answer\n".to_vec()));
            }
        }
    }
}
