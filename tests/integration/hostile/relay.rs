//! Somebody between the tap and a server who does things to what the server says.

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::listener::{Listener, lead_on};
use crate::harness::{Cluster, Tap};

/// How long a server that has been meddled with may be silent: both sides may then wait for each other for ever.
const QUIET: Duration = Duration::from_millis(400);

/// What happens to some bytes from the server.
pub(super) struct Fate {
    /// What the tap gets of them, or in their place.
    pub(super) bytes: Vec<u8>,
    /// Everything is closed after that, and no connection is made any more.
    pub(super) cut: bool,
    /// The connection is closed once nothing more comes.
    pub(super) meddled: bool,
}

impl Fate {
    pub(super) fn pass(bytes: &[u8]) -> Fate {
        Fate { bytes: bytes.to_vec(), cut: false, meddled: false }
    }
}

/// Sees all bytes from the server in their order, with how many came before.
type Meddler = Box<dyn FnMut(u64, &[u8]) -> Fate + Send>;

/// Leads to a server.
pub(super) struct Relay {
    listener: Listener,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    meddler: Meddler,
    passed: u64,
    cut: bool,
    open: Vec<TcpStream>,
}

impl Relay {
    pub(super) fn before(cluster: &Cluster, meddler: impl FnMut(u64, &[u8]) -> Fate + Send + 'static) -> Relay {
        let shared = Shared { meddler: Box::new(meddler), passed: 0, cut: false, open: Vec::new() };
        let shared = Arc::new(Mutex::new(shared));
        let (server, state) = (cluster.socket(), Arc::clone(&shared));
        let listener = Listener::start(move |client| {
            if !state.lock().expect("no relay panics").cut {
                // A server that is gone is the tap's to tell.
                let _ = UnixStream::connect(&server).and_then(|server| connect(client, server, &state));
            }
        });
        Relay { listener, shared }
    }

    /// The tap, led through it. It asks for no TLS, so that the server's first word belongs to the login.
    pub(super) fn lead(&self, tap: Tap) -> Tap {
        self.listener.lead(tap).config("sslmode", "disable")
    }

    /// How many bytes the server has said.
    pub(super) fn passed(&self) -> u64 {
        self.shared.lock().expect("no relay panics").passed
    }
}

fn connect(client: TcpStream, server: UnixStream, state: &Arc<Mutex<Shared>>) -> io::Result<()> {
    state.lock().expect("no relay panics").open.push(client.try_clone()?);
    let (state, reading) = (Arc::clone(state), server.try_clone()?);
    lead_on(
        client,
        server,
        |bytes, to_server| to_server.write_all(bytes),
        move |bytes, to_client| meddle(bytes, to_client, &state, &reading),
    );
    Ok(())
}

fn meddle(bytes: &[u8], client: &mut dyn Write, state: &Mutex<Shared>, reading: &UnixStream) -> io::Result<()> {
    let mut shared = state.lock().expect("no relay panics");
    if shared.cut {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    if bytes.is_empty() {
        return Ok(());
    }
    let before = shared.passed;
    shared.passed += bytes.len() as u64;
    let fate = (shared.meddler)(before, bytes);
    shared.cut = fate.cut;
    let sent = client.write_all(&fate.bytes);
    if fate.cut {
        for socket in shared.open.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    drop(shared);
    sent?;
    if fate.meddled {
        reading.set_read_timeout(Some(QUIET))?;
    }
    Ok(())
}
