//! A port of loopback, for what stands between the tap and a server, or in a server's place.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;

use super::Tap;

/// Listens on a free port as long as it lives.
pub(crate) struct Listener {
    port: u16,
    over: Arc<AtomicBool>,
}

impl Listener {
    /// Hands on whoever connects; the next waits until `accept` returns.
    pub(crate) fn start(mut accept: impl FnMut(TcpStream) + Send + 'static) -> Listener {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
        let port = listener.local_addr().expect("the listener's address").port();
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if ended.load(SeqCst) {
                    return;
                }
                client.set_nodelay(true).expect("set an option of a socket");
                accept(client);
            }
        });
        Listener { port, over }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The tap, led to it.
    pub(crate) fn lead(&self, tap: Tap) -> Tap {
        tap.config("host", "127.0.0.1").config("port", self.port)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
        // So that it accepts no other.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

/// Leads a connection on to a server until either ends: what a side says goes to the other by its function, which is called
/// once more, without bytes, at the end.
pub(crate) fn lead_on(
    client: TcpStream,
    server: UnixStream,
    there: impl FnMut(&[u8], &mut dyn Write) -> io::Result<()> + Send + 'static,
    back: impl FnMut(&[u8], &mut dyn Write) -> io::Result<()> + Send + 'static,
) {
    let (to_client, to_server) = (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
    thread::spawn(move || {
        pass(client, &to_server, there);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    thread::spawn(move || {
        pass(&server, &to_client, back);
        let _ = to_client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    });
}

fn pass(mut from: impl Read, mut to: impl Write, mut by: impl FnMut(&[u8], &mut dyn Write) -> io::Result<()>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = match from.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read.unwrap_or(0),
        };
        if by(&buffer[..read], &mut to).is_err() || read == 0 {
            return;
        }
    }
}
