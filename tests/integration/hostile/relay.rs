//! Somebody between the tap and a server who does things to what the server says.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

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

/// A socket in a directory of its own that leads to a server.
pub(super) struct Relay {
    dir: tempfile::TempDir,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    meddler: Meddler,
    passed: u64,
    cut: bool,
    open: Vec<UnixStream>,
}

impl Relay {
    /// To the server with this socket; the relay's own has the same name.
    pub(super) fn start(server: &Path, meddler: impl FnMut(u64, &[u8]) -> Fate + Send + 'static) -> Relay {
        let dir = tempfile::Builder::new().prefix("tap-relay.").tempdir_in("/tmp").expect("a directory in /tmp");
        let listener = UnixListener::bind(dir.path().join(server.file_name().expect("a socket's name")));
        let listener = listener.expect("a socket in a directory of its own");
        let shared = Shared { meddler: Box::new(meddler), passed: 0, cut: false, open: Vec::new() };
        let shared = Arc::new(Mutex::new(shared));
        let (server, state) = (server.to_owned(), shared.clone());
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                if Arc::strong_count(&state) == 1 {
                    return;
                }
                if !state.lock().expect("no relay panics").cut {
                    // A server that is gone is the tap's to tell.
                    let _ = connect(client, &server, &state);
                }
            }
        });
        Relay { dir, shared }
    }

    /// What a config takes for `host`.
    pub(super) fn host(&self) -> &str {
        self.dir.path().to_str().expect("a UTF-8 path")
    }

    /// How many bytes the server has said.
    pub(super) fn passed(&self) -> u64 {
        self.shared.lock().expect("no relay panics").passed
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let mut sockets = std::fs::read_dir(self.dir.path()).into_iter().flatten().flatten();
        let socket: Option<PathBuf> = sockets.next().map(|entry| entry.path());
        // Our hold on the state goes first; the listener then ends with the next connection.
        let (replacement, _) = (Arc::new(Mutex::new(closed())), ());
        drop(std::mem::replace(&mut self.shared, replacement));
        let _ = socket.map(UnixStream::connect);
    }
}

fn closed() -> Shared {
    Shared { meddler: Box::new(|_, bytes| Fate::pass(bytes)), passed: 0, cut: true, open: Vec::new() }
}

fn connect(client: UnixStream, server: &Path, state: &Arc<Mutex<Shared>>) -> std::io::Result<()> {
    let server = UnixStream::connect(server)?;
    state.lock().expect("no relay panics").open.extend([client.try_clone()?, server.try_clone()?]);
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let state = state.clone();
    thread::spawn(move || {
        let _ = from_server(&server, &client, &state);
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    });
    Ok(())
}

fn from_server(mut server: &UnixStream, mut client: &UnixStream, state: &Mutex<Shared>) -> std::io::Result<()> {
    let mut bytes = [0; 8192];
    loop {
        let read = match server.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let mut shared = state.lock().expect("no relay panics");
        if shared.cut {
            return Ok(());
        }
        let before = shared.passed;
        shared.passed += read as u64;
        let fate = (shared.meddler)(before, &bytes[..read]);
        shared.cut = fate.cut;
        let sent = client.write_all(&fate.bytes);
        if fate.cut {
            for socket in shared.open.drain(..) {
                let _ = socket.shutdown(Shutdown::Both);
            }
            return Ok(());
        }
        drop(shared);
        sent?;
        if fate.meddled {
            server.set_read_timeout(Some(QUIET))?;
        }
    }
}
