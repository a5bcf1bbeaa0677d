//! The tables that histories begin with, and what can be written to them.

use crate::harness::random::Random;

/// `mood` has the labels that the model knows; `small` is a domain.
pub(super) const SETUP: &str = "
    create schema arch;
    create type mood as enum ('sad', 'ok', 'fine');
    create domain small as numeric(6, 1);
    create table keyed (id int primary key, w int, n int, c text);
    create table toasted (k text primary key, w int, n int, body text);
    alter table toasted alter k set storage external, alter body set storage external;
    create table pair (a int, b text, w int, n int, c mood, primary key (b, a));
    create table whole (id int primary key, w int, n int, c numeric);
    alter table whole replica identity full;
    create table coded (url text primary key, code int not null unique, w int, n int);
    alter table coded alter url set storage external;
    alter table coded replica identity using index coded_code_key;
    create table tree (id int, r int, w int, n int, c int, primary key (id, r)) partition by range (r);
    create table tree_0 partition of tree for values from (0) to (100);
    create table tree_1 partition of tree for values from (100) to (200) partition by range (id);
    create table tree_1a partition of tree_1 for values from (0) to (20);
    create table arch.tree_1b partition of tree_1 for values from (20) to (1000);
    insert into keyed select i, 0, i, 'c' || i from generate_series(1, 8) i;
    insert into pair select i, 'b' || i, 0, i, 'ok' from generate_series(1, 8) i;
    insert into whole select i, 0, i, i from generate_series(1, 8) i;
    insert into coded select string_agg(md5(g::text || i), '' order by g), i, 0, i from generate_series(1, 6) i, generate_series(1, 75) g group by i;
    insert into toasted select case when i % 3 = 0 then string_agg(md5(g::text || i), '' order by g) else 'k' || i end, 0, i, repeat('b', 3000)
      from generate_series(1, 8) i, generate_series(1, 75) g group by i;
    insert into tree select i, (i * 37) % 200, 0, i, i from generate_series(1, 12) i;";

pub(super) const STREAMS: [&str; 6] = ["keyed", "toasted", "pair", "whole", "coded", "tree"];

/// Types of columns, each with a literal for a number.
pub(super) const TYPES: [(&str, &str); 12] = [
    ("int", "{}"),
    ("bigint", "{}00000000"),
    ("numeric", "{}.55"),
    ("numeric(8,1)", "{}.5"),
    ("text", "'t{}'"),
    ("varchar(20)", "'v{}'"),
    ("char(9)", "'h{}'"),
    ("boolean", "{} % 2 = 0"),
    ("mood", "(enum_range(null::mood))[1 + {} % 3]"),
    ("int[]", "array[{}, 2]"),
    ("small", "{}.25 % 1000"),
    ("numeric(7,2)[]", "array[{}.257]"),
];

/// A literal of a type.
pub(super) fn literal(ty: usize, n: u64) -> String {
    TYPES[ty].1.replace("{}", &n.to_string())
}

/// A table of the model.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// The one of [`STREAMS`] that it began as.
    pub stream: usize,
    pub schema: String,
    pub name: String,
    /// Columns beside the key, `w` and `n`, with their types; of `toasted`, not its `body`.
    pub columns: Vec<(String, usize)>,
}

impl Table {
    pub(super) fn qualified(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// The columns of the key, with their values for a number.
    fn key(&self, i: u64) -> Vec<(&'static str, String)> {
        let long = format!("(select string_agg(md5(g::text || {i}), '' order by g) from generate_series(1, 75) g)");
        match STREAMS[self.stream] {
            "toasted" => vec![("k", if i.is_multiple_of(3) { long } else { format!("'k{i}'") })],
            "pair" => vec![("a", i.to_string()), ("b", format!("'b{}'", i % 5))],
            "coded" => vec![("url", long), ("code", i.to_string())],
            "tree" => vec![("id", i.to_string()), ("r", (i * 37 % 200).to_string())],
            _ => vec![("id", i.to_string())],
        }
    }

    /// The condition for the row with this number.
    fn of(&self, i: u64) -> String {
        let same = self.key(i).into_iter().map(|(name, value)| format!("{name} = {value}"));
        same.collect::<Vec<_>>().join(" and ")
    }

    /// A change of some rows. `$W` is the number of the run that comes next.
    pub(super) fn change(&self, random: &mut Random) -> String {
        let (i, n, table) = (1 + random.below(30), 10 + random.below(90), self.qualified());
        let some: Vec<&(String, usize)> = self.columns.iter().filter(|_| random.chance(70)).collect();
        let set: String = some.iter().map(|(name, ty)| format!(", {name} = {}", literal(*ty, n))).collect();
        let identified = STREAMS[self.stream] != "coded";
        match random.below(10) {
            0..4 => {
                let mut names: Vec<&str> = self.key(i).iter().map(|(name, _)| *name).collect();
                let mut values: Vec<String> = self.key(i).into_iter().map(|(_, value)| value).collect();
                names.extend(["w", "n"]);
                values.extend(["$W".to_owned(), n.to_string()]);
                for (name, ty) in &some {
                    names.push(name);
                    values.push(literal(*ty, n));
                }
                if STREAMS[self.stream] == "toasted" {
                    names.push("body");
                    values.push(format!("repeat('{n}', 2000)"));
                }
                let (names, values) = (names.join(", "), values.join(", "));
                format!("insert into {table} ({names}) values ({values}) on conflict do nothing;")
            }
            4..7 => format!("update {table} set w = $W, n = {n}{set} where {};", self.of(i % 12)),
            7 => format!("update {table} set w = $W, n = n + 1{set} where n % 3 = {};", n % 3),
            8 if identified => {
                let moved =
                    self.key(i + 30).into_iter().map(|(name, value)| format!(", {name} = {value}")).collect::<String>();
                format!("update {table} set w = $W{moved} where {};", self.of(i % 12))
            }
            9 if identified => format!("delete from {table} where {};", self.of(i % 12)),
            _ => format!("update {table} set w = $W, n = {n} where n > {n};"),
        }
    }
}
