//! An application that writes at random: transactions of several connections at once, savepoints, COPY, two-phase
//! commits, a replication origin, logical messages.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::database::Session;
use crate::harness::random::Random;
use crate::harness::{Background, TestDb};

/// What makes `keyed` a partitioned table.
pub(super) const PARTITIONED: &str = "
    alter table keyed rename to keyed_rows; alter index keyed_pkey rename to keyed_rows_pkey;
    create table keyed (id integer primary key, n integer, note text, big text) partition by hash (id);
    alter table keyed alter big set storage external;
    create table keyed_0 partition of keyed for values with (modulus 3, remainder 0);
    create table keyed_1 partition of keyed for values with (modulus 3, remainder 1);
    create table keyed_2 partition of keyed for values with (modulus 3, remainder 2);
    insert into keyed select * from keyed_rows; drop table keyed_rows;";

/// `keyed` is changed in every way, `keyless` only grows, nobody selects `other`.
pub(super) const TABLES: &str = "
    create table keyed (id integer primary key, n integer, note text, big text);
    alter table keyed alter big set storage external;
    create table keyless (n integer, note text);
    alter table keyless replica identity full;
    create table other (id bigserial primary key, note text);
    insert into keyed select i, 0, 'first', case when i % 3 = 0 then repeat(md5(i::text), 100) end
        from generate_series(1, 1500) i;
    insert into keyless select i % 10, 'first' from generate_series(1, 3000) i;
    select pg_replication_origin_create(current_database() || '_elsewhere');";

/// An origin is the whole cluster's, and takes a place among the slots.
pub(super) const DROP_ORIGIN: &str = "select pg_replication_origin_drop(current_database() || '_elsewhere')";

/// 200,000 rows that arrive, and some that do not. More than the server decodes in memory, or the tap keeps back.
pub(super) const HUGE_TRANSACTION: &str = "
    begin;
    insert into keyless select i % 100, 'huge' from generate_series(1, 120000) i;
    savepoint s;
    insert into keyless select i % 100, 'never' from generate_series(1, 30000) i;
    rollback to s;
    insert into keyless select i % 100, 'huge, too' from generate_series(1, 80000) i;
    commit;";

/// Every connection has the keys of its own remainder, so that none waits for another.
const CONNECTIONS: usize = 3;
const KEYS: u64 = 700;

/// Starts what writes until it is told to stop; every transaction is over then.
pub(super) fn writer(db: &TestDb, seed: u64) -> Background<()> {
    let connections = (0..CONNECTIONS).map(|number| Connection::new(db, number)).collect();
    Background::start(move |stop| write(connections, Random(seed), stop))
}

fn write(mut connections: Vec<Connection>, mut random: Random, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let which = random.below(CONNECTIONS as u64) as usize;
        connections[which].step(&mut random);
        if random.chance(2) && connections.iter().all(Connection::is_idle) {
            connections[which].maintain(&mut random);
        }
        thread::sleep(Duration::from_micros(random.below(4000)));
    }
    for connection in &mut connections {
        connection.end("commit");
        connection.end_prepared("commit prepared");
    }
}

/// A connection, its transaction open or not.
struct Connection {
    session: Session,
    number: usize,
    open: bool,
    /// Transactions that wait for the second phase of their commit.
    prepared: Vec<String>,
    count: u64,
}

impl Connection {
    fn new(db: &TestDb, number: usize) -> Connection {
        let mut session = db.session();
        // A position may then lie in a record that is not flushed yet.
        if number == 0 {
            session.run("set synchronous_commit = off;");
        }
        // As if it applied what another server replicates to this one.
        if number == 1 {
            session.run("select pg_replication_origin_session_setup(current_database() || '_elsewhere');");
        }
        Connection { session, number, open: false, prepared: Vec::new(), count: 0 }
    }

    fn is_idle(&self) -> bool {
        !self.open && self.prepared.is_empty()
    }

    /// Has rows lie in other pages, or pages be used again.
    fn maintain(&mut self, random: &mut Random) {
        let how = ["vacuum", "vacuum", "vacuum full", "cluster"][random.below(4) as usize];
        let index = if how == "cluster" { " using keyed_pkey" } else { "" };
        // A run that reads the table does not wait for it forever.
        self.session.run(&format!(
            "\\set ON_ERROR_STOP off\nset lock_timeout = '500ms'; {how} keyed{index}; reset lock_timeout;\n\\set ON_ERROR_STOP on"
        ));
    }

    fn step(&mut self, random: &mut Random) {
        if !self.open {
            match random.below(10) {
                0 => self.end_prepared(if random.chance(70) { "commit prepared" } else { "rollback prepared" }),
                1..3 => self.change(random),
                // What a prepared transaction has locked stays so.
                _ if self.prepared.is_empty() => {
                    self.session.run("begin;");
                    self.open = true;
                }
                _ => {}
            }
            return;
        }
        match random.below(20) {
            0..9 => self.change(random),
            9..12 => {
                self.session.run("savepoint s;");
                self.change(random);
                self.session.run(if random.chance(60) { "rollback to s;" } else { "release s;" });
            }
            12 => self.end("rollback"),
            13 => {
                self.count += 1;
                let name = format!("'{}_{}'", self.number, self.count);
                self.end(&format!("prepare transaction {name}"));
                self.prepared.push(name);
            }
            _ => self.end("commit"),
        }
    }

    fn end(&mut self, how: &str) {
        if std::mem::take(&mut self.open) {
            self.session.run(&format!("{how};"));
        }
    }

    fn end_prepared(&mut self, how: &str) {
        for name in std::mem::take(&mut self.prepared) {
            self.session.run(&format!("{how} {name};"));
        }
    }

    fn change(&mut self, random: &mut Random) {
        if !self.open && !self.prepared.is_empty() {
            return;
        }
        let (own, all) = (self.number as u64, CONNECTIONS as u64);
        let mut key = || random.below(KEYS) * all + own;
        let (a, b, upto) = (key(), key(), key());
        let n = random.below(1000);
        let sql = match random.below(24) {
            0..3 => format!(
                "insert into keyed values ({a}, {n}, 'new', repeat(md5('{n}'), {})) on conflict (id)
                 do update set n = excluded.n, note = 'again';",
                random.below(150)
            ),
            3..7 => format!("update keyed set n = {n} where id between {a} and {a} + 60 and id % {all} = {own};"),
            7..9 => format!("update keyed set big = repeat(md5('{n}'), 90), n = {n} where id = {a};"),
            9..11 => format!("delete from keyed where id between {a} and {a} + 20 and id % {all} = {own};"),
            11..14 => format!(
                "update keyed set id = {b}, note = 'moved' where id = {a} and not exists (select from keyed where id = {b});"
            ),
            14..17 => format!("insert into keyless select i % 4, 'n{n}' from generate_series(1, {}) i;", 1 + n % 30),
            17..19 => {
                let rows: String = (0..1 + n % 200).map(|i| format!("{}\tcopied\n", i % 7)).collect();
                format!("copy keyless from stdin;\n{rows}\\.")
            }
            19 => format!(
                "insert into keyed select i, {n}, 'many', null from generate_series({own}, {upto}, {all}) i
                 on conflict (id) do update set note = 'many', n = {n};"
            ),
            20 if n < 200 => {
                format!("insert into keyless select i % 9, 'large' from generate_series(1, {}) i;", n * 25)
            }
            21 if n < 300 => format!("update keyed set n = {n} where id % {all} = {own};"),
            22 => format!("select pg_logical_emit_message({}, 'somebody', 'else');", n.is_multiple_of(2)),
            _ => format!("insert into other (note) select 'n' from generate_series(1, {n});"),
        };
        self.session.run(&sql);
    }
}
