//! A relay before a server that falls silent, with both sockets open, as a network does whose packets no longer arrive.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use crate::harness::{Cluster, Tap, until};

/// Listens on a free port of loopback as long as it lives.
pub(super) struct Relay {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    server: PathBuf,
    silence: Silence,
    /// Every connection is silent.
    all: AtomicBool,
    /// One was, at some time.
    fell_silent: AtomicBool,
    /// None is any more.
    goes_on: AtomicBool,
    over: AtomicBool,
}

/// When a connection falls silent: as soon as so many bytes of the server's have come since the client sent this text.
#[derive(Clone, Copy)]
pub(super) struct Silence {
    pub(super) after: &'static str,
    pub(super) bytes: usize,
}

/// Not before it is told to.
pub(super) const NEVER: Silence = Silence { after: "no client sends this", bytes: 0 };

/// One connection.
struct Line {
    shared: Arc<Shared>,
    /// What the server may still send, once the text was seen.
    left: AtomicUsize,
}

impl Relay {
    pub(super) fn before(cluster: &Cluster, silence: Silence) -> Relay {
        let server = cluster.dir().join(format!(".s.PGSQL.{}", cluster.port()));
        let (all, fell_silent, goes_on, over) = Default::default();
        let shared = Arc::new(Shared { server, silence, all, fell_silent, goes_on, over });
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
        let port = listener.local_addr().expect("the relay's address").port();
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if accepting.over.load(SeqCst) {
                    return;
                }
                relay(client, &accepting);
            }
        });
        Relay { port, shared }
    }

    /// The tap, led through the relay.
    pub(super) fn lead(&self, tap: Tap) -> Tap {
        tap.config("host", "127.0.0.1").config("port", self.port)
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Falls silent on every connection.
    pub(super) fn fall_silent(&self) {
        self.shared.all.store(true, SeqCst);
    }

    /// Waits until a connection has fallen silent.
    #[track_caller]
    pub(super) fn until_silent(&self) {
        until("a connection falls silent", || self.shared.fell_silent.load(SeqCst));
    }

    /// Goes on where it fell silent.
    pub(super) fn go_on(&self) {
        self.shared.goes_on.store(true, SeqCst);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.over.store(true, SeqCst);
        // So that it accepts no other.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

fn relay(client: TcpStream, shared: &Arc<Shared>) {
    let Ok(server) = UnixStream::connect(&shared.server) else { return };
    client.set_nodelay(true).expect("set an option of a socket");
    let (to_client, to_server) = (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
    let line = Arc::new(Line { shared: Arc::clone(shared), left: AtomicUsize::new(usize::MAX) });
    let there = Arc::clone(&line);
    thread::spawn(move || {
        there.pass(client, &to_server, Line::watch);
        let _ = to_server.shutdown(Shutdown::Both);
    });
    thread::spawn(move || {
        line.pass(server, &to_client, Line::count);
        let _ = to_client.shutdown(Shutdown::Both);
    });
}

impl Line {
    /// Passes on what comes, `measure`d, until it ends.
    fn pass(&self, mut from: impl Read, mut to: impl Write, measure: impl Fn(&Line, &[u8]) -> usize) {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = from.read(&mut buffer).unwrap_or(0);
            let bytes = &buffer[..read];
            let (now, later) = bytes.split_at(if self.is_silent() { 0 } else { measure(self, bytes) });
            if to.write_all(now).is_err() {
                return;
            }
            while self.is_silent() {
                self.shared.fell_silent.store(true, SeqCst);
                thread::sleep(Duration::from_millis(10));
            }
            if read == 0 || to.write_all(later).is_err() {
                return;
            }
        }
    }

    /// Looks for the text in what the client sends.
    fn watch(&self, bytes: &[u8]) -> usize {
        let text = self.shared.silence.after.as_bytes();
        if bytes.windows(text.len()).any(|window| window == text) {
            self.left.store(self.shared.silence.bytes, SeqCst);
        }
        bytes.len()
    }

    /// Counts what the server may still send.
    fn count(&self, bytes: &[u8]) -> usize {
        let left = self.left.load(SeqCst);
        let passed = bytes.len().min(left);
        if left != usize::MAX {
            self.left.store(left - passed, SeqCst);
        }
        passed
    }

    fn is_silent(&self) -> bool {
        let silent = self.left.load(SeqCst) == 0 || self.shared.all.load(SeqCst);
        silent && !self.shared.goes_on.load(SeqCst) && !self.shared.over.load(SeqCst)
    }
}
