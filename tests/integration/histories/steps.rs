//! Histories, made at random. A statement that fails does not matter: it changes nothing.

use super::tables::{STREAMS, TYPES, Table, literal};
use crate::harness::random::Random;
use crate::harness::release;

/// What happens.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Statements of one session, which may be a transaction.
    Sql(String),
    /// A run.
    Run,
    /// A run that reads while these happen; it ends by itself, or is told to so many milliseconds after.
    Live { steps: Vec<String>, ends: bool, left: u64 },
    /// What the publication is made with, in [`Step::Sql`] `$D` of the publication `$P`; this stands first.
    Published(String),
}

/// The history of a seed.
pub(super) fn history(seed: u64) -> Vec<Step> {
    let mut maker = Maker::new(seed);
    let mut steps = vec![Step::Published(maker.publication())];
    for _ in 0..2 + maker.random.below(3) {
        for _ in 0..2 + maker.random.below(7) {
            steps.push(Step::Sql(maker.block()));
        }
        if maker.random.chance(30) {
            let live = (0..2 + maker.random.below(4)).map(|_| maker.block()).collect();
            let ends = maker.random.chance(40);
            steps.push(Step::Live { steps: live, ends, left: maker.random.below(500) });
        }
        steps.push(Step::Run);
    }
    steps
}

struct Maker {
    random: Random,
    tables: Vec<Table>,
    labels: Vec<String>,
    /// Leaves of `tree` for `r` from so many hundred on.
    leaves: Vec<(String, u64)>,
    /// Names are used once.
    count: u64,
    /// What `count` was when the block began.
    began: u64,
    prepared: Vec<String>,
}

impl Maker {
    fn new(seed: u64) -> Maker {
        let columns = |stream| match STREAMS[stream] {
            "keyed" => vec![("c".to_owned(), 4)],
            "pair" => vec![("c".to_owned(), 8)],
            "whole" => vec![("c".to_owned(), 2)],
            "tree" => vec![("c".to_owned(), 0)],
            _ => Vec::new(),
        };
        let table = |stream: usize| Table {
            stream,
            schema: "public".to_owned(),
            name: STREAMS[stream].to_owned(),
            columns: columns(stream),
        };
        Maker {
            random: Random(seed),
            tables: (0..STREAMS.len()).map(table).collect(),
            labels: ["sad", "ok", "fine"].map(str::to_owned).into(),
            leaves: vec![("public.tree_0".to_owned(), 0)],
            count: 0,
            began: 0,
            prepared: Vec::new(),
        }
    }

    fn name(&mut self, of: &str) -> String {
        self.count += 1;
        format!("{of}{}", self.count)
    }

    /// A statement, or a transaction of some.
    fn block(&mut self) -> String {
        self.began = self.count;
        if let Some(name) = self.prepared.pop().filter(|_| self.random.chance(60)) {
            let end = if self.random.chance(80) { "commit" } else { "rollback" };
            return format!("{end} prepared '{name}';");
        }
        match self.random.below(30) {
            0..16 => self.statement(),
            16..29 => {
                let (before, tables, leaves) = (self.labels.clone(), self.tables.clone(), self.leaves.clone());
                let statements: Vec<String> = (0..2 + self.random.below(4))
                    .map(|_| {
                        let statement = self.statement();
                        if self.random.chance(10) {
                            format!("savepoint s; {statement} rollback to s;")
                        } else {
                            statement
                        }
                    })
                    .collect();
                let end = if self.random.chance(90) { "commit" } else { "rollback" };
                if end == "rollback" {
                    (self.labels, self.tables, self.leaves) = (before, tables, leaves);
                }
                format!("begin; {} {end};", statements.join(" "))
            }
            _ => {
                let (table, name) = (self.table(), self.name("prepared"));
                let (one, other) = (self.change(table), self.change(table));
                self.prepared.push(name.clone());
                format!("begin; {one} {other} prepare transaction '{name}';")
            }
        }
    }

    /// What a publication is of.
    fn publication(&mut self) -> String {
        let tables = STREAMS.join(", ");
        let of = match self.random.below(4) {
            0 if release() >= 15 => "tables in schema public, arch",
            0 | 1 => "all tables",
            _ => "table ",
        };
        let of = if of.ends_with(' ') { format!("{of}{tables}") } else { of.to_owned() };
        let via_root = self.random.chance(75);
        format!("for {of} with (publish_via_partition_root = {via_root})")
    }

    fn table(&mut self) -> usize {
        self.random.below(self.tables.len() as u64) as usize
    }

    fn change(&mut self, table: usize) -> String {
        self.tables[table].change(&mut self.random)
    }

    fn statement(&mut self) -> String {
        let table = self.table();
        match self.random.below(100) {
            0..52 => self.change(table),
            52..55 => self.publish(table),
            55..72 => self.column(table),
            72..76 => self.label(),
            76..88 => self.rename(table),
            88..94 => self.leaf(),
            94..96 => self.key(table),
            _ => self.other(table),
        }
    }

    /// Something about a column.
    fn column(&mut self, at: usize) -> String {
        let ty = self.random.below(TYPES.len() as u64) as usize;
        let (n, new) = (self.random.below(100), self.name("c"));
        let table = self.tables[at].qualified();
        let columns = &mut self.tables[at].columns;
        let which = (!columns.is_empty()).then(|| self.random.below(columns.len() as u64) as usize);
        let Some(which) = which.filter(|_| self.random.chance(80)) else {
            columns.push((new.clone(), ty));
            let default = if self.random.chance(50) { format!(" default {}", literal(ty, n)) } else { String::new() };
            return format!("alter table {table} add {new} {}{default};", TYPES[ty].0);
        };
        let old = columns[which].0.clone();
        match self.random.below(8) {
            0 => {
                columns.remove(which);
                format!("alter table {table} drop {old};")
            }
            1 => {
                columns[which].1 = ty;
                format!("alter table {table} drop {old}; alter table {table} add {old} {};", TYPES[ty].0)
            }
            2 => {
                columns[which].0.clone_from(&new);
                format!("alter table {table} rename {old} to {new};")
            }
            3 if columns.len() > 1 => {
                let other = (which + 1) % columns.len();
                let name = columns[other].0.clone();
                (columns[which].1, columns[other].1) = (columns[other].1, columns[which].1);
                format!(
                    "alter table {table} rename {old} to {new}; alter table {table} rename {name} to {old};
                     alter table {table} rename {new} to {name};"
                )
            }
            4 => format!(
                "alter table {table} rename {old} to {new}; update {table} set w = $W, {new} = {} where n % 4 = {}; alter table {table} rename {new} to {old};",
                literal(columns[which].1, n),
                n % 4
            ),
            _ => {
                columns[which].1 = ty;
                let using = match self.random.below(3) {
                    0 => String::new(),
                    1 => format!(" using {old}::text::{}", TYPES[ty].0),
                    _ => format!(" using {}", literal(ty, n)),
                };
                format!("alter table {table} alter {old} type {}{using};", TYPES[ty].0)
            }
        }
    }

    fn label(&mut self) -> String {
        let new = self.name("label");
        if self.random.chance(40) {
            self.labels.push(new.clone());
            return format!("alter type mood add value '{new}';");
        }
        let at = self.random.below(self.labels.len() as u64) as usize;
        let old = std::mem::replace(&mut self.labels[at], new.clone());
        format!("alter type mood rename value '{old}' to '{new}';")
    }

    /// Something about the name of a table or schema, for good or for a while.
    fn rename(&mut self, at: usize) -> String {
        let new = self.name("t");
        let (table, name) = (self.tables[at].qualified(), self.tables[at].name.clone());
        let schema = self.tables[at].schema.clone();
        let mut away = self.tables[at].clone();
        away.name.clone_from(&new);
        let meanwhile = [away.change(&mut self.random), away.change(&mut self.random)].join(" ");
        match self.random.below(6) {
            0 => format!("alter table {table} rename to {new}; {meanwhile} alter table {schema}.{new} rename to {name};"),
            1 => {
                let lent = self.tables[at].change(&mut self.random);
                let mine = self.tables[at].change(&mut self.random);
                format!(
                    "alter table {table} rename to {new}; create table {table} (like {schema}.{new} including all);
                     {lent} {mine} {meanwhile} drop table {table}; alter table {schema}.{new} rename to {name};"
                )
            }
            2 => {
                away.name.clone_from(&name);
                away.schema = if schema == "arch" { "public" } else { "arch" }.to_owned();
                let there = away.change(&mut self.random);
                format!("alter table {table} set schema {}; {there} alter table {} set schema {schema};", away.schema, away.qualified())
            }
            3 => {
                away.name.clone_from(&name);
                away.schema.clone_from(&new);
                let there = away.change(&mut self.random);
                format!("alter schema {schema} rename to {new}; {there} alter schema {new} rename to {schema};")
            }
            4 if STREAMS[self.tables[at].stream] == "keyed" => format!(
                "alter table {table} rename to {new}; create table {table} (id int primary key, w int, n int, c text);
                 insert into {table} values ({}, $W, 1, 'another');",
                1 + self.random.below(9)
            ),
            _ => format!(
                "create table {schema}.{new} (id int primary key, w int, n int, a int, b text, k text, c text);
                 insert into {schema}.{new} values (3, $W, 3, 3, 'b3', 'k3', 'of nobody'); update {schema}.{new} set n = 4; drop table {schema}.{new};"
            ),
        }
    }

    /// Something about the partitions of `tree`.
    fn leaf(&mut self) -> String {
        let tree = self.tables[STREAMS.len() - 1].clone();
        let root = tree.qualified();
        self.count += 1;
        let (number, new) = (2 + self.count, self.name("leaf"));
        let row =
            format!("insert into {root} (id, r, w, n) values ({}, {number}50, $W, 1);", 1 + self.random.below(50));
        let extra: String = tree.columns.iter().rev().map(|(name, ty)| format!("{name} {}, ", TYPES[*ty].0)).collect();
        let at = self.random.below(self.leaves.len() as u64) as usize;
        match self.random.below(10) {
            8 if self.leaves.len() > 1 => {
                let (leaf, _) = self.leaves.swap_remove(at);
                format!("{row} drop table {leaf};")
            }
            9 if self.leaves.len() > 1 => {
                let (leaf, from) = self.leaves.swap_remove(at);
                format!(
                    "alter table {root} detach partition {leaf}; insert into {leaf} (id, r, w, n) values (89, {from}89, $W, 1);"
                )
            }
            0 | 1 => {
                let schema = ["public", "arch"][self.random.below(2) as usize];
                self.leaves.push((format!("{schema}.{new}"), number));
                format!(
                    "create table {schema}.{new} partition of {root} for values from ({number}00) to ({number}99); {row}"
                )
            }
            2 => {
                self.leaves.push((format!("public.{new}"), number));
                let filled = if self.random.chance(50) {
                    format!("insert into public.{new} (id, r, w, n) values (77, {number}10, $W, 7);")
                } else {
                    String::new()
                };
                format!(
                    "create table public.{new} (gone text, {extra}n int, w int, r int not null, id int not null); alter table public.{new} drop gone;
                     {filled} alter table {root} attach partition public.{new} for values from ({number}00) to ({number}99); {row}"
                )
            }
            3 => {
                let (leaf, from) = self.leaves[at].clone();
                self.leaves[at].0 = format!("{}.{new}", leaf.split('.').next().unwrap_or("public"));
                format!(
                    "alter table {leaf} rename to {new}; insert into {root} (id, r, w, n) values (61, {from}31, $W, 1);"
                )
            }
            4 => {
                let (leaf, from) = self.leaves[at].clone();
                let (schema, name) = leaf.split_once('.').unwrap_or(("public", "tree_0"));
                let to = if schema == "arch" { "public" } else { "arch" };
                self.leaves[at].0 = format!("{to}.{name}");
                format!(
                    "alter table {leaf} set schema {to}; insert into {root} (id, r, w, n) values (62, {from}32, $W, 1);"
                )
            }
            5 => {
                // The name of a table that was never a partition.
                self.leaves.push((format!("public.{new}"), number));
                format!(
                    "create table public.{new} (id int, r int, w int, n int, primary key (id, r)); insert into public.{new} values (5, {number}50, $W, 5), (1, 37, $W, 5);
                     drop table public.{new}; create table public.{new} partition of {root} for values from ({number}00) to ({number}99); {row}"
                )
            }
            // One that this transaction made would be emptied in its file, which shows nowhere (docs/reliability.md).
            6 if self.leaves[at].1 <= self.began + 2 => {
                let (leaf, _) = self.leaves[at].clone();
                format!("truncate {leaf};")
            }
            6 => row,
            _ => {
                let (leaf, from) = self.leaves[at].clone();
                format!("delete from {leaf}; alter table {root} detach partition {leaf}; insert into {leaf} (id, r, w, n) values (88, {from}88, $W, 1);
                         delete from {leaf}; alter table {root} attach partition {leaf} for values from ({from}00) to ({from}99);")
            }
        }
    }

    /// Something about the publication, for good or for a while. Without one, or with one of another kind, it fails.
    fn publish(&mut self, at: usize) -> String {
        let (table, schema) = (self.tables[at].qualified(), self.tables[at].schema.clone());
        let meanwhile = [self.change(at), self.change(at)].join(" ");
        match self.random.below(10) {
            0..4 => {
                format!("alter publication $P drop table {table}; {meanwhile} alter publication $P add table {table};")
            }
            4 => format!(
                "alter publication $P set (publish = 'insert'); {meanwhile} alter publication $P set (publish = 'insert, update, delete, truncate');"
            ),
            5 => format!(
                "alter publication $P drop tables in schema {schema}; {meanwhile} alter publication $P add tables in schema {schema};"
            ),
            6 => format!(
                "create schema apart; alter table {table} set schema apart; {} alter table apart.{} set schema {schema}; drop schema apart;",
                meanwhile.replace(&table, &format!("apart.{}", self.tables[at].name)),
                self.tables[at].name
            ),
            7 => format!("alter publication $P rename to away; {meanwhile} alter publication away rename to $P;"),
            8 => format!("drop publication $P; {meanwhile} create publication $P $D;"),
            _ => format!("alter publication $P set (publish_via_partition_root = {});", self.random.chance(50)),
        }
    }

    /// Another key, or another type of it.
    fn key(&mut self, at: usize) -> String {
        let table = self.tables[at].qualified();
        match STREAMS[self.tables[at].stream] {
            "keyed" => format!(
                "alter table {table} alter id type {};",
                ["bigint", "int", "int using id + 100"][self.random.below(3) as usize]
            ),
            "whole" => {
                format!("alter table {table} drop constraint whole_pkey; alter table {table} add primary key (id);")
            }
            "pair" => format!(
                "alter table {table} alter b type {};",
                ["varchar(40)", "text", "text using b || 'x'"][self.random.below(3) as usize]
            ),
            "toasted" => format!("alter table {table} alter k type text using k || 'k';"),
            _ => self.change(at),
        }
    }

    fn other(&mut self, at: usize) -> String {
        let (table, change) = (self.tables[at].qualified(), self.change(at));
        match self.random.below(6) {
            0 => format!("alter table {table} set unlogged; {change} alter table {table} set logged;"),
            1 => format!("truncate {table}; {change}"),
            2 => format!("vacuum full {table};"),
            3 => {
                format!("alter table {table} replica identity {};", ["full", "default"][self.random.below(2) as usize])
            }
            4 => format!(
                "alter table {table} add constraint some_check check (w is not null); alter table {table} drop constraint some_check;"
            ),
            _ => format!("create index on {table} (n); {change}"),
        }
    }
}
