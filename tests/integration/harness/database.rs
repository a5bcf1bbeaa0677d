//! A database of a test's own, and SQL on it through psql: what a person would type, whatever the tap's client does.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Cluster, release, until};

/// How psql shows NULL here; a text that no test holds.
const NULL: &str = "\u{1}null\u{1}";
const FIELD: &str = "\u{1f}";
const RECORD: &str = "\u{1e}";

/// A database, dropped with its slots and connections when the test ends.
pub(crate) struct TestDb {
    name: String,
    cluster: Arc<Cluster>,
}

impl TestDb {
    /// An empty UTF8 database on the shared server. `test` becomes part of its name.
    pub(crate) fn new(test: &str) -> TestDb {
        TestDb::on(&Cluster::shared(), test)
    }

    /// The same on another server.
    pub(crate) fn on(cluster: &Arc<Cluster>, test: &str) -> TestDb {
        TestDb::with(cluster, test, "encoding 'UTF8'")
    }

    /// The same with other options of CREATE DATABASE, such as `encoding 'SQL_ASCII'`.
    pub(crate) fn with(cluster: &Arc<Cluster>, test: &str, options: &str) -> TestDb {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (pid, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // `pipelinewise_<dbname>` is to be a slot's name: lower case, and 63 bytes at most.
        let test: String = test.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(32).collect();
        let name = format!("{}_{pid}_{count}", test.to_ascii_lowercase());
        let db = TestDb { name, cluster: cluster.clone() };
        db.admin(&format!("create database {} template template0 {options}", db.name));
        db
    }

    /// A database that exists already, for example on a standby. Dropped by nobody.
    pub(crate) fn view_of(&self, cluster: &Arc<Cluster>) -> std::mem::ManuallyDrop<TestDb> {
        std::mem::ManuallyDrop::new(TestDb { name: self.name.clone(), cluster: cluster.clone() })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// Runs SQL, each statement in its own transaction unless it says BEGIN, and returns what psql prints.
    #[track_caller]
    pub(crate) fn psql(&self, sql: &str) -> String {
        feed(self.command().args(["-q", "-f", "-"]), sql)
    }

    /// Runs a file. psql variables: `dbname`, and `slot`, the name of the slot that the tap looks for.
    #[track_caller]
    pub(crate) fn psql_file(&self, path: &Path) {
        assert!(path.exists(), "{} does not exist", path.display());
        feed(self.command().arg("-q").arg("-f").arg(path), "");
    }

    /// The rows of a query, as text.
    #[track_caller]
    pub(crate) fn query(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let mut command = self.command();
        command.args(["-qAt", "-F", FIELD, "-R", RECORD, "-P", &format!("null={NULL}"), "-c", sql]);
        let output = feed(&mut command, "");
        let output = output.strip_suffix('\n').unwrap_or(&output);
        if output.is_empty() {
            return Vec::new();
        }
        let value = |text: &str| if text == NULL { None } else { Some(text.to_owned()) };
        output.split(RECORD).map(|row| row.split(FIELD).map(value).collect()).collect()
    }

    /// The one value of a query.
    #[track_caller]
    pub(crate) fn query_one(&self, sql: &str) -> String {
        let rows = self.query(sql);
        match rows.as_slice() {
            [row] if row.len() == 1 => row[0].clone().unwrap_or_else(|| panic!("{sql} gave NULL")),
            _ => panic!("{sql} gave {rows:?} rather than one value"),
        }
    }

    /// Waits until a condition holds.
    #[track_caller]
    pub(crate) fn wait_until(&self, condition: &str) {
        until(condition, || self.query_one(&format!("select ({condition})::text")) == "true");
    }

    /// An open psql, for a transaction that stays open.
    pub(crate) fn session(&self) -> Session {
        Session::open(self.command().arg("-qAt"))
    }

    /// An open psql on a walsender, which nobody else has meanwhile.
    pub(crate) fn walsender(&self) -> Session {
        Session::open(self.cluster.psql(&format!("dbname={} replication=database", self.name)).arg("-qAt"))
    }

    /// The name of the slot that the tap looks for in this database.
    pub(crate) fn slot_name(&self) -> String {
        format!("pipelinewise_{}", self.name)
    }

    /// Creates that slot.
    #[track_caller]
    pub(crate) fn slot(&self, plugin: &str) -> String {
        self.slot_named(&self.slot_name(), plugin)
    }

    /// Creates a slot.
    #[track_caller]
    pub(crate) fn slot_named(&self, name: &str, plugin: &str) -> String {
        assert!(plugin != "wal2json" || self.cluster.has_wal2json(), "this test needs the server plugin wal2json");
        self.query_one(&format!("select slot_name from pg_create_logical_replication_slot('{name}', '{plugin}')"))
    }

    /// Creates the publication that the tap looks for: named as the slot. `what` is, say, `for all tables`.
    #[track_caller]
    pub(crate) fn publication(&self, what: &str) -> String {
        let name = self.slot_name();
        self.psql(&format!("create publication {name} {what}"));
        name
    }

    /// A slot and what its plugin needs beside it, for all tables.
    #[track_caller]
    pub(crate) fn replicate(&self, plugin: &str) -> String {
        if plugin == "pgoutput" {
            self.publication("for all tables");
        }
        self.slot(plugin)
    }

    /// A position of this server as the number that a bookmark holds, for example of `pg_current_wal_lsn()`.
    #[track_caller]
    pub(crate) fn lsn(&self, expression: &str) -> u64 {
        let value = self.query_one(&format!("select ({expression}) - '0/0'::pg_lsn"));
        value.parse().unwrap_or_else(|_| panic!("{expression} gave {value}"))
    }

    /// The confirmed_flush_lsn of a slot.
    #[track_caller]
    pub(crate) fn confirmed_flush(&self, slot: &str) -> u64 {
        self.lsn(&format!("select confirmed_flush_lsn from pg_replication_slots where slot_name = '{slot}'"))
    }

    /// Moves a slot to the end of the log.
    #[track_caller]
    pub(crate) fn advance(&self, slot: &str) {
        let sql = if release() >= 11 {
            format!("select pg_replication_slot_advance('{slot}', pg_current_wal_lsn())")
        } else {
            let options = format!("'proto_version', '1', 'publication_names', '{slot}'");
            format!("select count(*) from pg_logical_slot_get_binary_changes('{slot}', null, null, {options})")
        };
        self.query(&sql);
    }

    /// Takes every slot of the server that is free, so that no copy has one of its own.
    #[track_caller]
    pub(crate) fn take_spare_slots(&self) {
        self.psql(
            "select count(pg_create_physical_replication_slot('taken_' || i)) from generate_series(1,
               current_setting('max_replication_slots')::int - (select count(*)::int from pg_replication_slots)) i;",
        );
    }

    /// Gives them back.
    #[track_caller]
    pub(crate) fn free_spare_slots(&self) {
        self.psql("select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_type = 'physical';");
    }

    /// Fills more than a segment of the log, and checkpoints: on a [`Cluster::forgetful`] server slots lose what they keep.
    #[track_caller]
    pub(crate) fn fill_the_log(&self) {
        self.psql(
            "select pg_logical_emit_message(false, 'filler', repeat('x', 1000000)) from generate_series(1, 20) \\g /dev/null
             select pg_switch_wal() \\g /dev/null
             checkpoint;",
        );
    }

    fn command(&self) -> Command {
        let mut command = self.cluster.psql(&self.name);
        command.args(["-v", "ON_ERROR_STOP=1"]);
        command.arg("-v").arg(format!("dbname={}", self.name)).arg("-v").arg(format!("slot={}", self.slot_name()));
        command
    }

    #[track_caller]
    fn admin(&self, sql: &str) {
        feed(self.cluster.psql("postgres").args(["-q", "-v", "ON_ERROR_STOP=1", "-f", "-"]), sql);
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        // A walsender holds its slot until it is gone, and a database with slots or sessions can't be dropped. Errors don't
        // matter here: the test may have dropped something itself, and the cluster goes soon anyway.
        let sql = format!(
            "do $$ begin
               for i in 1 .. 200 loop
                 perform pg_stat_clear_snapshot();
                 perform pg_terminate_backend(pid) from pg_stat_activity where datname = '{0}';
                 exit when not found;
                 perform pg_sleep(0.01);
               end loop;
             end $$;
             select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = '{0}';
             drop database if exists {0};",
            self.name
        );
        let mut command = self.cluster.psql("postgres");
        command.args(["-q", "-f", "-"]).stdin(Stdio::piped());
        if let Ok(mut child) = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
            if let Some(mut stdin) = child.stdin.take() {
                let _ = stdin.write_all(sql.as_bytes());
            }
            let _ = child.wait();
        }
    }
}

/// Runs psql with this on its stdin and returns its stdout.
#[track_caller]
fn feed(command: &mut Command, input: &str) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("a piped stdin");
    let text = input.to_owned();
    // psql may print before it has read all; and it may end before, which its status tells.
    let writer = std::thread::spawn(move || drop(stdin.write_all(text.as_bytes())));
    let output = child.wait_with_output().expect("wait for psql");
    writer.join().expect("the thread that feeds psql");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "psql failed: {stderr}\nin {command:?}\n{input}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A psql that stays connected.
pub(crate) struct Session {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Session {
    fn open(command: &mut Command) -> Session {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("run psql");
        let stdin = child.stdin.take().expect("a piped stdin");
        let stdout = BufReader::new(child.stdout.take().expect("a piped stdout"));
        Session { child, stdin, stdout }
    }

    /// Runs SQL (semicolons included) and returns what psql prints, without alignment.
    #[track_caller]
    pub(crate) fn run(&mut self, sql: &str) -> String {
        const DONE: &str = "\u{1}done\u{1}";
        writeln!(self.stdin, "{sql}\n\\echo {DONE}").expect("psql runs");
        let mut printed = String::new();
        loop {
            let mut line = String::new();
            let read = self.stdout.read_line(&mut line).expect("read from psql");
            assert!(read > 0, "psql ended in {sql}");
            if line.trim_end() == DONE {
                return printed;
            }
            printed.push_str(&line);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
