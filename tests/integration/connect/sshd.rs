//! A private sshd: one process for each connection, as inetd would start it, all gone when this is.

use std::fs::{self, File};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use crate::harness::listener::Listener;
use crate::harness::{Cluster, Tap};

const PROGRAM: &str = "/usr/sbin/sshd";
/// What the key `encrypted` is encrypted with.
pub(super) const PASSPHRASE: &str = "s3cr3t passphrase";

/// Listens on a free port of loopback as long as it lives.
pub(super) struct Sshd {
    dir: tempfile::TempDir,
    user: String,
    listener: Listener,
    connections: Arc<Mutex<Vec<TcpStream>>>,
}

impl Sshd {
    /// Runs as the user that the server runs as. `settings` are lines of sshd_config.
    pub(super) fn start(cluster: &Cluster, settings: &str) -> Sshd {
        assert!(Path::new(PROGRAM).exists(), "no {PROGRAM} found: install it (Debian: openssh-server)");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let owner = fs::metadata(cluster.dir()).expect("the cluster's directory");
        let name = Command::new("id").arg("-nu").arg(owner.uid().to_string()).output().expect("run id");
        let user = String::from_utf8(name.stdout).expect("a user's name").trim().to_owned();
        for (key, kind, passphrase) in [
            ("host", &["ed25519"][..], ""),
            ("ecdsa_host", &["ecdsa"], ""),
            ("user", &["ed25519"], ""),
            ("stranger", &["ed25519"], ""),
            ("ecdsa", &["ecdsa"], ""),
            ("encrypted", &["ed25519"], PASSPHRASE),
            ("rsa", &["rsa"], ""),
            ("rsa_encrypted", &["rsa"], PASSPHRASE),
            ("rsa_pem", &["rsa", "-m", "PEM"], ""),
            ("rsa_pkcs8", &["rsa", "-m", "PKCS8"], ""),
        ] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-N", passphrase, "-C", key, "-f"]).arg(dir.path().join(key)).arg("-t").args(kind);
            assert!(keygen.status().expect("run ssh-keygen").success());
        }
        let public = |key: &str| fs::read_to_string(dir.path().join(format!("{key}.pub"))).expect("read a public key");
        let authorized: String =
            ["user", "ecdsa", "encrypted", "rsa", "rsa_encrypted", "rsa_pem", "rsa_pkcs8"].map(public).concat();
        fs::write(dir.path().join("authorized_keys"), authorized).expect("write authorized_keys");
        let at = |name: &str| dir.path().join(name).display().to_string();
        let config = format!(
            "HostKey {}\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPidFile none\nLogLevel DEBUG1\n{settings}\n",
            at("host"),
            at("ecdsa_host"),
            at("authorized_keys")
        );
        fs::write(dir.path().join("config"), config).expect("write sshd_config");
        fs::write(dir.path().join("log"), "").expect("make a log");
        for path in fs::read_dir(dir.path()).expect("the directory").flatten().map(|entry| entry.path()) {
            chown(path, Some(owner.uid()), Some(owner.gid())).expect("give sshd its files");
        }
        chown(dir.path(), Some(owner.uid()), Some(owner.gid())).expect("give sshd its directory");

        let connections = Arc::new(Mutex::new(Vec::new()));
        let (open, path) = (Arc::clone(&connections), dir.path().to_owned());
        let listener = Listener::start(move |client| {
            let log = File::options().append(true).open(path.join("log")).expect("open the log");
            let socket = || OwnedFd::from(client.try_clone().expect("a socket"));
            let mut sshd = Command::new(PROGRAM);
            sshd.args(["-i", "-e", "-f"]).arg(path.join("config"));
            sshd.stdin(socket()).stdout(socket()).stderr(log);
            if rustix::process::geteuid().is_root() {
                sshd.uid(owner.uid()).gid(owner.gid());
            }
            let mut child = sshd.spawn().expect("run sshd");
            drop(sshd);
            open.lock().expect("a list").push(client.try_clone().expect("a socket"));
            thread::spawn(move || {
                let _ = child.wait();
                // This copy would keep it open.
                let _ = client.shutdown(Shutdown::Both);
            });
        });
        Sshd { dir, user, listener, connections }
    }

    /// The tap, led through it with the key `user`.
    pub(super) fn lead(&self, tap: Tap) -> Tap {
        tap.config("ssh_tunnel.host", "127.0.0.1")
            .config("ssh_tunnel.port", self.port())
            .config("ssh_tunnel.username", &*self.user)
            .config("ssh_tunnel.private_key", self.file("user"))
            .config("ssh_tunnel.host_key", self.text("host.pub"))
    }

    pub(super) fn port(&self) -> u16 {
        self.listener.port()
    }

    pub(super) fn user(&self) -> &str {
        &self.user
    }

    /// One of its files: a key, or with `.pub` its public key.
    pub(super) fn file(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().expect("a UTF-8 path").to_owned()
    }

    pub(super) fn text(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).expect("read a file of sshd's")
    }

    /// How many connections to a database it was asked for.
    pub(super) fn tunnels(&self) -> usize {
        let asked = |line: &&str| line.contains("server_request_direct_");
        self.text("log").lines().filter(asked).count()
    }

    /// Breaks all connections; their processes end.
    pub(super) fn cut(&self) {
        for connection in self.connections.lock().expect("a list").drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.cut();
    }
}
