//! An application whose tables are altered at random, in and between the transactions that write to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::database::Session;
use crate::harness::random::Random;
use crate::harness::{Background, TestDb, release};

/// Columns that stay, and are never NULL.
pub(super) const BASE: [&str; 2] = ["id", "n"];

pub(super) const TABLES: &str = "
    create table keyed (id integer primary key, n integer not null, note text, big text, unique (n, id));
    alter table keyed alter big set storage external;
    create table event (id integer, at integer, n integer not null, note text, primary key (id, at)) partition by range (at);
    create table event_0 partition of event for values from (0) to (100);
    create table event_1 partition of event for values from (100) to (200);
    insert into keyed select i, 0, 'first', case when i % 3 = 0 then repeat(md5(i::text), 100) end from generate_series(1, 300) i;
    insert into event select i, i % 200, 0, 'first' from generate_series(1, 200) i;";

/// What a column of each type is filled with, and the types that it may get, with how.
const TYPES: [(&str, &str, &[Way]); 5] = [
    ("integer", "{}", &[(1, ""), (2, ""), (3, "")]),
    ("bigint", "{}00000000", &[(2, ""), (3, "")]),
    ("numeric", "{}.50", &[(3, "")]),
    ("text", "'t{}'", &[(4, ""), (0, " using null"), (2, " using length({})")]),
    ("varchar(80)", "'v{}'", &[(3, ""), (1, " using null")]),
];

/// A type's place above, and what ALTER TABLE says after it.
type Way = (usize, &'static str);

/// How many transactions there are for a run, so that a slow reader has no more to read than a fast one.
const A_RUN: u64 = 80;

/// Starts what writes and alters until it is told to stop: what it did, the last transaction being over. `runs`: how many runs
/// have begun.
pub(super) fn writer(db: &TestDb, plugin: &'static str, seed: u64, runs: Arc<AtomicU64>) -> Background<Vec<String>> {
    let schema = Schema { extra: Default::default(), leaves: vec![0, 1], count: 1 };
    let mut application = Application { session: db.session(), plugin, random: Random(seed), schema, told: Vec::new() };
    Background::start(move |stop| {
        let mut done = 0;
        while !stop.load(Ordering::Relaxed) {
            if done < runs.load(Ordering::Relaxed) * A_RUN {
                application.transaction();
                done += 1;
            }
            thread::sleep(Duration::from_millis(application.random.below(25)));
        }
        application.told
    })
}

/// What the tables look like.
#[derive(Clone)]
struct Schema {
    /// Columns beside those that stay, of keyed and event: name and type.
    extra: [Vec<(String, usize)>; 2],
    leaves: Vec<u64>,
    /// Names are used once.
    count: u64,
}

struct Application {
    session: Session,
    plugin: &'static str,
    random: Random,
    schema: Schema,
    told: Vec<String>,
}

impl Application {
    fn transaction(&mut self) {
        let before = self.schema.clone();
        let alone = self.random.chance(30);
        if alone {
            return self.step();
        }
        self.run("begin;");
        for _ in 0..1 + self.random.below(7) {
            let (savepoint, saved) = (self.random.chance(15), self.schema.clone());
            if savepoint {
                self.run("savepoint s;");
            }
            self.step();
            if savepoint && self.random.chance(50) {
                self.run("rollback to s;");
                self.schema = saved;
            }
        }
        if self.random.chance(12) {
            self.run("rollback;");
            self.schema = before;
        } else {
            self.run("commit;");
        }
    }

    fn run(&mut self, sql: &str) {
        self.told.push(sql.to_owned());
        self.session.run(sql);
    }

    fn step(&mut self) {
        let sql = if self.random.chance(35) { self.alteration() } else { self.change() };
        self.run(&sql);
    }

    fn alteration(&mut self) -> String {
        let which = self.random.below(2) as usize;
        let table = ["keyed", "event"][which];
        self.schema.count += 1;
        let count = self.schema.count;
        let extra = &mut self.schema.extra[which];
        let at = (!extra.is_empty()).then(|| self.random.below(extra.len() as u64) as usize);
        match (self.random.below(12), at) {
            (0..3, Some(at)) if extra.len() > 3 => {
                let (name, _) = extra.remove(at);
                format!("alter table {table} drop column {name};")
            }
            (0..3, _) => {
                let ty = self.random.below(TYPES.len() as u64) as usize;
                extra.push((format!("c{count}"), ty));
                format!("alter table {table} add c{count} {};", TYPES[ty].0)
            }
            (3..5, Some(at)) => {
                let old = std::mem::replace(&mut extra[at].0, format!("c{count}"));
                format!("alter table {table} rename {old} to c{count};")
            }
            (5..8, Some(at)) => {
                let (name, ty) = &mut extra[at];
                let ways = TYPES[*ty].2;
                let (new, how) = ways[self.random.below(ways.len() as u64) as usize];
                *ty = new;
                format!("alter table {table} alter {name} type {}{};", TYPES[new].0, how.replace("{}", name))
            }
            (8..10, _) if which == 0 => {
                let identity = ["default", "full", "using index keyed_n_id_key"][self.random.below(3) as usize];
                format!("alter table keyed replica identity {identity};")
            }
            (8..9, _) => {
                let leaf = self.leaf();
                let identity = ["default", "full"][self.random.below(2) as usize];
                format!("alter table event_{leaf} replica identity {identity};")
            }
            (9..10, _) if self.schema.leaves.len() > 3 => self.without_a_leaf(),
            _ => self.another_leaf(count),
        }
    }

    fn leaf(&mut self) -> u64 {
        self.schema.leaves[self.random.below(self.schema.leaves.len() as u64) as usize]
    }

    /// Made for itself, in another order and with a column that is gone.
    fn another_leaf(&mut self, number: u64) -> String {
        self.schema.leaves.push(number);
        let extra: String =
            self.schema.extra[1].iter().rev().map(|(name, ty)| format!("{name} {}, ", TYPES[*ty].0)).collect();
        format!(
            "create table event_{number} (gone text, {extra}note text, n integer not null, at integer not null, id integer not null);
             alter table event_{number} drop column gone;
             alter table event attach partition event_{number} for values from ({}) to ({});",
            number * 100,
            number * 100 + 100
        )
    }

    /// Where the log names leaves, nothing tells whose the last changes of one were that is gone when they are read.
    /// Before 15 a walsender that names roots does not notice what was detached.
    fn without_a_leaf(&mut self) -> String {
        if self.plugin == "wal2json" || release() < 15 {
            let number = 1_000_000 + self.schema.count;
            return format!(
                "create table event_{number} partition of event for values from ({number}00) to ({number}99);
                 alter table event detach partition event_{number}; insert into event_{number} (id, at, n) values (1, 1, 1);
                 drop table event_{number};"
            );
        }
        let at = self.random.below(self.schema.leaves.len() as u64) as usize;
        let leaf = self.schema.leaves.swap_remove(at);
        format!(
            "delete from event where at / 100 = {leaf}; alter table event detach partition event_{leaf};
             insert into event_{leaf} (id, at, n) values (-1, -1, -1); drop table event_{leaf};"
        )
    }

    fn change(&mut self) -> String {
        let which = self.random.below(2) as usize;
        let (id, n) = (self.random.below(400), self.random.below(1000));
        let extra = self.schema.extra[which].clone();
        let filled: Vec<&(String, usize)> = extra.iter().filter(|_| self.random.chance(60)).collect();
        let value = |(_, ty): &&(String, usize)| TYPES[*ty].1.replace("{}", &n.to_string());
        let names: String = filled.iter().map(|(name, _)| format!(", {name}")).collect();
        let values: String = filled.iter().map(|column| format!(", {}", value(column))).collect();
        let set: String = filled.iter().map(|column| format!(", {} = {}", column.0, value(column))).collect();
        let at = self.leaf() * 100 + self.random.below(100);
        let kind = self.random.below(10);
        match (which, kind) {
            (0, 0..3) => format!(
                "insert into keyed (id, n, note, big{names}) values ({id}, {n}, 'new', repeat(md5('{n}'), {}){values}) on conflict (id) do nothing;",
                n / 8
            ),
            (0, 3..6) => format!("update keyed set n = {n}{set} where id between {id} and {id} + 15;"),
            (0, 6) => format!("update keyed set note = null, big = repeat(md5('{n}'), 90){set} where id = {id};"),
            (0, 7) => format!(
                "update keyed set id = {0}{set} where id = {id} and not exists (select from keyed where id = {0});",
                self.random.below(400)
            ),
            (0, _) => format!("delete from keyed where id between {id} and {id} + 4;"),
            (1.., 0..4) => format!(
                "insert into event (id, at, n, note{names}) values ({id}, {at}, {n}, 'new'{values}) on conflict do nothing;"
            ),
            (1.., 4..7) => format!("update event set n = {n}{set} where id between {id} and {id} + 15;"),
            (1.., 7..9) => format!(
                "update event set at = {at}, note = 'moved'{set} where id = {id} and not exists (select from event where id = {id} and at = {at})
                 and 1 = (select count(*) from event where id = {id});"
            ),
            _ => format!("delete from event where id between {id} and {id} + 3;"),
        }
    }
}
