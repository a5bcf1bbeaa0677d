//! A relay before a server that falls silent, with both sockets open, as a network does whose packets no longer arrive.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use crate::harness::listener::{Listener, lead_on};
use crate::harness::{Cluster, Tap, until};

/// Leads to a server.
pub(super) struct Relay {
    listener: Listener,
    shared: Arc<Shared>,
}

struct Shared {
    silence: Silence,
    /// Every connection is silent.
    all: AtomicBool,
    /// One was, at some time.
    fell_silent: AtomicBool,
    /// None is any more.
    goes_on: AtomicBool,
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
        let (all, fell_silent, goes_on) = Default::default();
        let shared = Arc::new(Shared { silence, all, fell_silent, goes_on });
        let (server, of_all) = (cluster.socket(), Arc::clone(&shared));
        let listener = Listener::start(move |client| {
            let Ok(server) = UnixStream::connect(&server) else { return };
            let line = Arc::new(Line { shared: Arc::clone(&of_all), left: AtomicUsize::new(usize::MAX) });
            let there = Arc::clone(&line);
            lead_on(
                client,
                server,
                move |bytes, to_server| there.pass(bytes, to_server, Line::watch),
                move |bytes, to_client| line.pass(bytes, to_client, Line::count),
            );
        });
        Relay { listener, shared }
    }

    /// The tap, led through the relay.
    pub(super) fn lead(&self, tap: Tap) -> Tap {
        self.listener.lead(tap)
    }

    pub(super) fn port(&self) -> u16 {
        self.listener.port()
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
        // What is silent ends.
        self.go_on();
    }
}

impl Line {
    /// Passes on what came, `measure`d, once it is not silent.
    fn pass(&self, bytes: &[u8], to: &mut dyn Write, measure: impl Fn(&Line, &[u8]) -> usize) -> io::Result<()> {
        let (now, later) = bytes.split_at(if self.is_silent() { 0 } else { measure(self, bytes) });
        to.write_all(now)?;
        while self.is_silent() {
            self.shared.fell_silent.store(true, SeqCst);
            thread::sleep(Duration::from_millis(10));
        }
        to.write_all(later)
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
        silent && !self.shared.goes_on.load(SeqCst)
    }
}
