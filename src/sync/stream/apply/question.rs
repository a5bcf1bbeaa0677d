//! One query for rows of a stream's table: what leads to them in, their values out.
//!
//! ```sql
//! SELECT k.n, 'public.t'::regclass::oid, t.id IS NOT NULL, s.size, CASE WHEN s.size <= 16384 THEN t.body END
//!   FROM (VALUES (0, '1'::int4), (1, '2')) k(n, k0) LEFT JOIN ONLY public.t t ON t.id = k.k0 CROSS JOIN LATERAL (SELECT …) s(size)
//! ```
//!
//! The table is named; that it has the oid which is meant says the answer itself, since a query holds its table's name from its
//! FROM on. How large a row is, is asked with it: a large one is read by itself.

use super::shape::unique_index;
use crate::error::{Error, Result};
use crate::pg::copy::{Field, fields};
use crate::pg::error::sqlstate;
use crate::pg::order::Comparison;
use crate::pg::quote;
use crate::pg::sqlstate::{UNDEFINED_TABLE, is_data_exception};
use crate::pg::table::Column;
use crate::pg::wire::Session;
use crate::sync::output::{Key, Lead};
use crate::sync::plan::StreamPlan;

/// A row of up to this size in bytes of text comes with its size.
const SMALL: u64 = 16 * 1024;
/// Where `pg_column_size` says no more than this, a value is not asked for its size: it can't be much, even compressed.
const TINY: u64 = 100;

/// What is asked of a stream's table.
pub(crate) struct Question<'a> {
    pub plan: &'a StreamPlan,
    /// Which columns lead to the rows.
    pub lead: Lead,
    /// The columns of the plan that are asked for.
    pub columns: &'a [usize],
    /// Whether large rows are to come with their values.
    pub large: bool,
}

/// What the table has under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A row: the values of the columns asked for, as a line of COPY has them.
    Row(Vec<u8>),
    /// A row of so many bytes.
    Large(u64),
    /// No row.
    None,
    /// The key can't be read as the types of its columns.
    NoKey,
}

/// Why rows can't be looked up.
pub(crate) enum Unanswered {
    /// The table is gone.
    NoTable,
    /// What the server said.
    Error(Error),
}

impl Question<'_> {
    /// Asks for the rows with these keys; the answers are in their order.
    pub(crate) async fn ask(&self, session: &mut Session, keys: &[&Key]) -> Result<Vec<Answer>, Unanswered> {
        let mut answers = vec![Answer::None; keys.len()];
        let mut name = quote::qualified(&self.plan.table.schema, &self.plan.table.name);
        let mut pieces = vec![(0, keys)];
        while let Some((from, piece)) = pieces.pop() {
            match self.ask_by_name(session, &name, piece).await {
                Ok(found) => answers[from..from + piece.len()].clone_from_slice(&found),
                Err(Unanswered::NoTable) => {
                    // It may have another name by now.
                    let known = std::mem::replace(&mut name, self.present_name(session).await?);
                    if known == name {
                        return Err(Unanswered::NoTable);
                    }
                    pieces.push((from, piece));
                }
                // One of the keys can't be read.
                Err(Unanswered::Error(error)) if sqlstate(&error).is_some_and(is_data_exception) => match piece {
                    [_] => answers[from] = Answer::NoKey,
                    _ => {
                        let (some, others) = piece.split_at(piece.len() / 2);
                        pieces.extend([(from, some), (from + some.len(), others)]);
                    }
                },
                Err(error) => return Err(error),
            }
        }
        Ok(answers)
    }

    /// Returns the name that the table has now.
    async fn present_name(&self, session: &mut Session) -> Result<String, Unanswered> {
        let sql = format!(
            "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = {}",
            self.plan.table.oid
        );
        session.query_value(&sql).await.map_err(Unanswered::Error)?.ok_or(Unanswered::NoTable)
    }

    async fn ask_by_name(&self, session: &mut Session, name: &str, keys: &[&Key]) -> Result<Vec<Answer>, Unanswered> {
        let query = format!("COPY ({}) TO STDOUT", self.select(name, keys)?);
        let failed = |error: Error| match sqlstate(&error) {
            Some(UNDEFINED_TABLE) => Unanswered::NoTable,
            _ => Unanswered::Error(error),
        };
        let malformed = || Unanswered::Error(Error::run("the server's answer to a look-up of rows is malformed"));
        let mut answers = vec![Answer::None; keys.len()];
        let mut copied = session.copy_out(&query).await.map_err(failed)?;
        let mut is_other = false;
        while let Some(line) = copied.next().await.map_err(failed)? {
            let mut values = fields(line);
            let mut number = || match values.next() {
                Some(Field::Plain(text)) => std::str::from_utf8(text).ok()?.parse::<u64>().ok(),
                _ => None,
            };
            let (at, oid) = (number().ok_or_else(malformed)?, number().ok_or_else(malformed)?);
            let (found, size) = (number().ok_or_else(malformed)?, number().ok_or_else(malformed)?);
            is_other |= oid != u64::from(self.plan.table.oid);
            let answer = usize::try_from(at).ok().and_then(|at| answers.get_mut(at)).ok_or_else(malformed)?;
            *answer = match found {
                0 => Answer::None,
                _ if size > SMALL && !self.large => Answer::Large(size),
                _ => {
                    // Behind the first four, of which none has a tab in it.
                    let from = memchr::memchr_iter(b'\t', line).nth(3).map_or(line.len(), |tab| tab + 1);
                    Answer::Row(line[from..].to_vec())
                }
            };
        }
        if is_other { Err(Unanswered::NoTable) } else { Ok(answers) }
    }

    /// Returns the SELECT of the rows with these keys. Keys are compared as their index does: the log may spell one as it was,
    /// `1.10` for what is `1.1` now.
    fn select(&self, name: &str, keys: &[&Key]) -> Result<String, Unanswered> {
        let lead = self.lead_columns().ok_or(Unanswered::NoTable)?;
        let mut values = String::new();
        for (number, key) in keys.iter().enumerate() {
            values.push_str(if number == 0 { "(" } else { ", (" });
            values.push_str(&number.to_string());
            for (value, column) in key.iter().zip(&lead) {
                values.push_str(", ");
                values.push_str(&quote::literal(&String::from_utf8_lossy(value)));
                // The other rows follow the first.
                if number == 0 {
                    let (ty, _) = column.ty.base(column.typmod);
                    values.push_str("::");
                    values.push_str(&quote::qualified(&ty.schema, &ty.name));
                }
            }
            values.push(')');
        }
        let names: String = (0..lead.len()).map(|at| format!(", k{at}")).collect();
        let same: Vec<String> = lead
            .iter()
            .enumerate()
            .map(|(at, column)| {
                let (mine, theirs) = (format!("t.{}", quote::ident(&column.name)), format!("k.k{at}"));
                match column.ty.order() {
                    Some(order) => order.compare(&mine, Comparison::Equal, &theirs),
                    None => format!("{mine} OPERATOR(pg_catalog.=) {theirs}"),
                }
            })
            .collect();
        let only = if self.plan.has_only_own_rows() { "ONLY " } else { "" };
        let (mut sizes, mut selected) = (Vec::new(), String::new());
        for column in self.columns.iter().map(|&column| &self.plan.columns[column].name) {
            let value = format!("t.{}", quote::ident(column));
            let size = self.plan.table.column(column).and_then(|column| size(column, &value));
            selected.push_str(", ");
            match &size {
                Some(_) if !self.large => selected.push_str(&format!("CASE WHEN s.size <= {SMALL} THEN {value} END")),
                _ => selected.push_str(&value),
            }
            sizes.extend(size.filter(|_| !self.large));
        }
        let sizes = if sizes.is_empty() { "0".to_owned() } else { sizes.join(" + ") };
        let oid = format!("{}::pg_catalog.regclass::pg_catalog.oid", quote::literal(name));
        Ok(format!(
            "SELECT k.n, {oid}, (t.{} IS NOT NULL)::pg_catalog.int4, s.size{selected} FROM (VALUES {values}) k(n{names}) \
             LEFT JOIN {only}{name} t ON {} CROSS JOIN LATERAL (SELECT {sizes}) s(size)",
            quote::ident(&lead.first().ok_or(Unanswered::NoTable)?.name),
            same.join(" AND ")
        ))
    }

    /// Returns the columns that lead to a row; `None` if one is not there any more.
    fn lead_columns(&self) -> Option<Vec<&Column>> {
        let names = match self.lead {
            Lead::Key => self.plan.key_properties.as_slice(),
            Lead::Identity => unique_index(self.plan)?,
        };
        names.iter().map(|name| self.plan.table.column(name)).collect()
    }
}

/// Returns what SQL says of how long a column's text is; `None` for what is never long.
fn size(column: &Column, value: &str) -> Option<String> {
    if column.ty.has_fixed_length() {
        return None;
    }
    let (ty, _) = column.ty.base(column.typmod);
    // Of these it is known without reading a value that is stored elsewhere.
    let stored = ["text", "varchar", "bpchar", "json", "bytea"].iter().any(|name| ty.is_builtin(name));
    let size = match ty.name.as_str() {
        "bytea" if stored => format!("2 * pg_catalog.octet_length({value})"),
        _ if stored => format!("pg_catalog.octet_length({value}::pg_catalog.text)"),
        _ => format!(
            "CASE WHEN pg_catalog.pg_column_size({value}) <= {TINY} THEN {TINY} \
             ELSE pg_catalog.octet_length(pg_catalog.format('%s', {value})) END"
        ),
    };
    Some(format!("coalesce({size}, 0)::pg_catalog.int8"))
}
