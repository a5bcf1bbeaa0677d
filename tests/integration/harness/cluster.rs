//! A private PostgreSQL server on a unix socket, gone within seconds of the end of this process, however it ends.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::{env, fs};

use super::release;

/// What every cluster is set to. Crash safety is not wanted, the order of commits and flushes is.
const SETTINGS: &str = "
listen_addresses = ''
wal_level = logical
max_replication_slots = 200
max_wal_senders = 200
max_connections = 300
max_prepared_transactions = 20
fsync = off
full_page_writes = off
autovacuum = off
checkpoint_timeout = 1h
max_wal_size = 8GB
shared_buffers = 64MB
# Its files lie in the data directory, so that a kill leaves nothing in /dev/shm.
dynamic_shared_memory_type = mmap
timezone = 'UTC'
log_timezone = 'UTC'
# Parallel plans would let an unordered SELECT return rows in another order than they were inserted in.
max_parallel_workers_per_gather = 0
";

/// A running server. Lives in a directory of its own under /tmp, which also holds its socket.
pub(crate) struct Cluster {
    bin: PathBuf,
    dir: PathBuf,
    port: u16,
    supervisor: Mutex<Supervisor>,
}

/// The shell that owns the server; closing its stdin ends both.
struct Supervisor {
    child: Child,
    commands: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
}

impl Cluster {
    /// The server that all tests share, started by the first that asks.
    pub(crate) fn shared() -> Arc<Cluster> {
        static SHARED: OnceLock<Arc<Cluster>> = OnceLock::new();
        SHARED.get_or_init(|| Cluster::start("")).clone()
    }

    /// A server of the test's own, for what would disturb others: server-wide settings, restarts, transactions left
    /// open (creating a slot waits for every transaction of its cluster). `settings` is appended to postgresql.conf.
    pub(crate) fn start(settings: &str) -> Arc<Cluster> {
        Cluster::start_on(5432, settings)
    }

    /// The same with a port of its own: for tests that set `listen_addresses`. Without that no port is taken; the number
    /// is part of the socket's name.
    pub(crate) fn start_on(port: u16, settings: &str) -> Arc<Cluster> {
        let cluster = Cluster::supervised(port);
        cluster.command("initdb");
        cluster.append("data/postgresql.conf", SETTINGS);
        cluster.append("data/postgresql.conf", settings);
        cluster.command("start");
        Arc::new(cluster)
    }

    /// A server (13 and later) on which a slot that keeps more than this is lost soon: see [`TestDb::fill_the_log`].
    ///
    /// [`TestDb::fill_the_log`]: super::TestDb::fill_the_log
    pub(crate) fn forgetful(keep: &str) -> Arc<Cluster> {
        Cluster::start(&format!("max_slot_wal_keep_size = '{keep}'\nmin_wal_size = '32MB'\nmax_wal_size = '32MB'"))
    }

    /// A hot standby of this server.
    pub(crate) fn standby(&self) -> Arc<Cluster> {
        let cluster = self.stopped_standby("");
        cluster.start_again();
        cluster
    }

    /// The same with settings of its own, to be started by [`Cluster::start_again`] or [`Cluster::launch`].
    pub(crate) fn stopped_standby(&self, settings: &str) -> Arc<Cluster> {
        let cluster = Cluster::supervised(self.port);
        cluster.command(&format!("basebackup {}", self.dir.display()));
        cluster.append("data/postgresql.conf", settings);
        Arc::new(cluster)
    }

    fn supervised(port: u16) -> Cluster {
        let bin = server_binaries();
        // Not env::temp_dir(): a socket's path is limited to some hundred bytes.
        let dir = tempfile::Builder::new().prefix("tap-pg.").tempdir_in("/tmp").expect("a directory in /tmp").keep();
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(include_str!("supervisor.sh")).arg("supervisor").arg(&bin).arg(&dir);
        command.arg(port.to_string());
        // A group of its own: signals from the terminal are for the tests alone.
        command.process_group(0).current_dir(&dir).env("LC_ALL", "C").env("HOME", &dir);
        without_pg_variables(&mut command);
        if rustix::process::geteuid().is_root() {
            // The server refuses to run as root.
            let (uid, gid) = unprivileged_user();
            chown(&dir, Some(uid), Some(gid)).expect("give the directory to the server's user");
            command.uid(uid).gid(gid);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start the server's supervisor: {error}"));
        let commands = child.stdin.take();
        let replies = BufReader::new(child.stdout.take().expect("a piped stdout"));
        Cluster { bin, dir, port, supervisor: Mutex::new(Supervisor { child, commands, replies }) }
    }

    /// Has the supervisor do something and waits until it is done.
    fn command(&self, command: &str) {
        // A test that failed here poisons the lock; the next shall see its own failure.
        let mut supervisor = self.supervisor.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let commands = supervisor.commands.as_mut().expect("stdin is open until the drop");
        writeln!(commands, "{command}").expect("the supervisor runs");
        let mut reply = String::new();
        supervisor.replies.read_line(&mut reply).expect("a reply of the supervisor");
        assert_eq!(reply.trim_end(), "ok", "{command} in {}; its log:\n{}", self.dir.display(), self.log());
    }

    /// Shuts the server down: SIGTERM waits for sessions, SIGINT (fast) ends them, SIGQUIT (immediate) crashes.
    pub(crate) fn stop(&self, signal: &str) {
        self.command(&format!("stop {}", signal.trim_start_matches("SIG")));
    }

    /// Starts the server again after [`Cluster::stop`].
    pub(crate) fn start_again(&self) {
        self.command("start");
    }

    /// The same as pg_upgrade starts a server.
    pub(crate) fn start_for_upgrade(&self) {
        self.command("start -b");
    }

    /// The same without waiting until it takes connections.
    pub(crate) fn launch(&self) {
        self.command("launch");
    }

    /// Sets the id of the next transaction of a server that is stopped and whose rows are all frozen. False if this server came
    /// without the program for it.
    #[must_use]
    pub(crate) fn set_next_xid(&self, epoch: u32, xid: u32) -> bool {
        let possible = self.bin.join("pg_resetwal").exists();
        if possible {
            // A segment has the states of 2^20 transactions.
            self.command(&format!("next_xid {epoch} {xid} {:04X}", xid >> 20));
        } else {
            // Not captured, as what a test prints is.
            let _ = writeln!(std::io::stderr(), "skipped a test: the server came without pg_resetwal");
        }
        possible
    }

    /// Makes a standby a primary; does not wait until it is one.
    pub(crate) fn promote(&self) {
        self.command("promote");
    }

    /// Appends to a file of the cluster, such as `data/pg_hba.conf`.
    pub(crate) fn append(&self, file: &str, text: &str) {
        let path = self.dir.join(file);
        let mut file = fs::OpenOptions::new().append(true).create(true).open(&path).expect("open a cluster's file");
        writeln!(file, "{text}").expect("write to a cluster's file");
    }

    /// The directory with `data`, `log` and the socket; what a config takes for `host`.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join(format!(".s.PGSQL.{}", self.port))
    }

    /// Its port, or the number in its socket's name.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Settings of a standby's recovery, which had a file of their own before 12; for the next start.
    pub(crate) fn set_recovery(&self, settings: &str) {
        self.append(if release() < 12 { "data/recovery.conf" } else { "data/postgresql.conf" }, settings);
    }

    /// What the server has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// A client or server program of the server's release, or where that came without it a client of another, on this
    /// cluster as far as libpq decides.
    pub(crate) fn program(&self, name: &str) -> Command {
        let own = self.bin.join(name);
        let mut command = Command::new(if own.exists() { own } else { client(name) });
        without_pg_variables(&mut command);
        command.env("PGHOST", &self.dir).env("PGPORT", self.port.to_string());
        command.env("PGUSER", "postgres").env("PGCLIENTENCODING", "UTF8");
        command
    }

    /// psql on a database, or with a connection string.
    pub(crate) fn psql(&self, database: &str) -> Command {
        let mut command = self.program("psql");
        command.args(["-X", "-d", database]);
        command
    }

    /// Whether this server can load wal2json.
    pub(crate) fn has_wal2json(&self) -> bool {
        has_wal2json(&self.bin)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let supervisor = self.supervisor.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        drop(supervisor.commands.take());
        // It ends by itself; waiting only spares the process table a zombie.
        let _ = supervisor.child.wait();
    }
}

/// Settings of the developer's shell shall not reach the server, psql or the tap.
pub(crate) fn without_pg_variables(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
}

/// Where initdb and postgres are: TAP_TEST_PG_BIN, else the newest installed release, with wal2json if any has it.
pub(super) fn server_binaries() -> PathBuf {
    if let Some(bin) = env::var_os("TAP_TEST_PG_BIN") {
        let bin = PathBuf::from(bin);
        assert!(bin.join("initdb").exists(), "TAP_TEST_PG_BIN={} has no initdb", bin.display());
        return bin;
    }
    let mut found = installed();
    found.retain(|(_, bin)| bin.join("initdb").exists() && bin.join("postgres").exists());
    found.sort_by_key(|(version, bin)| std::cmp::Reverse((has_wal2json(bin), *version)));
    let Some((_, bin)) = found.into_iter().next() else {
        panic!(
            "no PostgreSQL server found: install one (Debian: postgresql, postgresql-15-wal2json) or set TAP_TEST_PG_BIN"
        )
    };
    bin
}

/// The directories that may hold PostgreSQL's programs, with the release where the name tells it.
fn installed() -> Vec<(u32, PathBuf)> {
    let mut found = Vec::new();
    for parent in ["/usr/lib/postgresql", "/usr/local/lib/postgresql", "/opt/postgresql"] {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let version: u32 = entry.file_name().to_string_lossy().parse().unwrap_or(0);
            found.push((version, entry.path().join("bin")));
        }
    }
    let path = env::var_os("PATH").unwrap_or_default();
    found.extend(env::split_paths(&path).chain([PathBuf::from("/usr/local/pgsql/bin")]).map(|bin| (0, bin)));
    found
}

/// A client program of whatever release is installed, the newest: any of them can talk to an older server, and psql 15 to
/// the later ones that are tested.
fn client(name: &str) -> PathBuf {
    let found = installed().into_iter().filter(|(_, bin)| bin.join(name).exists()).max_by_key(|(version, _)| *version);
    found.map_or_else(|| panic!("no {name} found: install it (Debian: postgresql-client)"), |(_, bin)| bin.join(name))
}

/// The output plugins to test with: both, unless TAP_TEST_PG_BIN names a server that can't load wal2json.
pub(crate) fn plugins() -> &'static [&'static str] {
    static PLUGINS: OnceLock<&[&str]> = OnceLock::new();
    PLUGINS.get_or_init(|| {
        if env::var_os("TAP_TEST_PG_BIN").is_none() || has_wal2json(&server_binaries()) {
            return &["pgoutput", "wal2json"];
        }
        // Not captured, as what a test prints is.
        let _ = writeln!(std::io::stderr(), "the server has no wal2json: everything is tested with pgoutput only");
        &["pgoutput"]
    })
}

fn has_wal2json(bin: &Path) -> bool {
    let Ok(output) = Command::new(bin.join("pg_config")).arg("--pkglibdir").output() else { return false };
    Path::new(String::from_utf8_lossy(&output.stdout).trim()).join("wal2json.so").exists()
}

/// The user and group that the server runs as when the tests run as root.
fn unprivileged_user() -> (u32, u32) {
    let passwd = fs::read_to_string("/etc/passwd").expect("read /etc/passwd");
    let find = |name: &str| {
        let fields: Vec<&str> = passwd.lines().map(|line| line.split(':').collect()).find(|f: &Vec<_>| f[0] == name)?;
        Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
    };
    find("postgres").or_else(|| find("nobody")).expect("a user postgres or nobody in /etc/passwd")
}
