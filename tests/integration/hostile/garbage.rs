//! Something listens that is no PostgreSQL server, or one that means harm: whatever it says, and however much of it, the
//! tap says so in one line and takes little memory.

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use super::{failed, measured};
use crate::harness::listener::Listener;
use crate::harness::{Output, Tap};

/// What such a server says to everybody who connects: this, and then this for ever.
struct Liar {
    listener: Listener,
}

impl Liar {
    fn start(once: &[u8], for_ever: &[u8]) -> Liar {
        let (once, for_ever) = (once.to_vec(), for_ever.repeat(1 + 65_536 / for_ever.len().max(1)));
        let listener = Listener::start(move |client| {
            let (once, for_ever) = (once.clone(), for_ever.clone());
            thread::spawn(move || {
                let (mut reader, mut writer) = (client.try_clone().expect("a second handle"), client);
                // It waits for the startup message, so that nobody writes to a closed socket.
                let _ = reader.read(&mut [0; 1024]);
                thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
                let mut said = writer.write_all(&once);
                while !for_ever.is_empty() && said.is_ok() {
                    said = writer.write_all(&for_ever);
                }
                let _ = writer.shutdown(std::net::Shutdown::Write);
            });
        });
        Liar { listener }
    }

    /// Connects, which must fail soon, in one line, with little memory.
    #[track_caller]
    fn refused(&self) -> Output {
        // Without TLS, so that the first word is heard as one of the login.
        let tap = self.listener.lead(Tap::bare()).config("sslmode", "disable").config("user", "tap");
        let tap = tap.config("password", "hunter2").config("dbname", "shop").arg("--discover");
        let started = Instant::now();
        let (output, peak) = measured(&tap);
        // Far below what a login may take.
        assert!(started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());
        assert!(peak < 64 * 1024, "{peak} kB");
        assert!(!output.stderr.contains("hunter2"), "{}", output.stderr);
        failed(output)
    }
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    claiming(tag, body.len() as u32 + 4, body)
}

fn claiming(tag: u8, length: u32, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

fn logged_in() -> Vec<u8> {
    let settings = message(b'S', b"server_version\x0015.18\0");
    [message(b'R', &[0; 4]), settings, message(b'K', &[0; 8]), message(b'Z', b"I")].concat()
}

#[test]
fn another_program_is_told_from_a_server() {
    for said in [
        &b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"[..],
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\0\0\0\0\0\0\0\0",
        b"",
    ] {
        let output = Liar::start(said, b"").refused();
        assert!(output.stderr.contains("cannot connect to"), "{}", output.stderr);
    }
    let mut noise = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..10 {
        let bytes: Vec<u8> = (0..4096)
            .map(|_| {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                noise as u8
            })
            .collect();
        Liar::start(&bytes, b"").refused();
    }
}

#[test]
fn a_length_that_cannot_be_is_refused() {
    for (tag, length) in
        [(b'R', 0), (b'R', 3), (b'R', 0x7fff_ffff), (b'E', u32::MAX), (b'E', 0x8000_0000), (b'S', 0x3fff_ffff)]
    {
        let output = Liar::start(&claiming(tag, length, b""), b"x").refused();
        assert!(output.stderr.contains("length"), "{}", output.stderr);
    }
}

#[test]
fn what_has_no_end_before_the_login_is_refused() {
    for (once, for_ever) in [
        // A field; a setting; a notice; a refusal that never ends.
        (claiming(b'E', 0x3fff_ffff, b"SFATAL\0M"), b"x".to_vec()),
        (message(b'R', &[0; 4]), message(b'S', &[b"a\0".as_slice(), &[b'b'; 20_000], b"\0"].concat())),
        (Vec::new(), message(b'N', &[b"SNOTICE\0M".as_slice(), &[b'b'; 20_000], b"\0\0"].concat())),
        (claiming(b'R', 30_000, &[0, 0, 0, 10]), b"SCRAM".to_vec()),
    ] {
        Liar::start(&once, &for_ever).refused();
    }
}

#[test]
fn what_has_no_end_after_the_login_is_refused() {
    for tag in [b'D', b'T', b'E', b'N', b'C'] {
        let said = [logged_in(), claiming(tag, 0x3fff_ffff, b"")].concat();
        let output = Liar::start(&said, b"x").refused();
        assert!(output.stderr.contains("level=ERROR"), "{}", output.stderr);
    }
}

/// Before it has shown who it is, a server may not make the tap compute for hours.
#[test]
fn scram_without_end_is_refused() {
    let mechanisms = message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0");
    // Its nonce has to start with the tap's, which a server that only talks does not know; the number is seen before.
    let challenge = message(b'R', b"\0\0\0\x0br=abc,s=QSXCR+Q6sek8bf92,i=4294967295");
    let output = Liar::start(&[mechanisms, challenge].concat(), b"").refused();
    assert!(output.stderr.contains("iterations"), "{}", output.stderr);
}
