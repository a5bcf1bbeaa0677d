//! Plays a history and judges what came of it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::steps::Step;
use super::tables::{SETUP, STREAMS};
use crate::harness::target::{Target, source_rows};
use crate::harness::{Catalog, Cluster, Message, Tap, TestDb, check_protocol};
use crate::log_based::assert_fits;

/// How often a run is repeated that says so.
const REPEATS: usize = 6;
/// How long a history may be shortened.
const PATIENCE: Duration = Duration::from_secs(90);

#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub plugin: &'static str,
    pub reader: &'static str,
}

/// Why a history fails, if it does.
pub(super) fn failure(cluster: &Arc<Cluster>, way: Way, history: &[Step]) -> Option<String> {
    let played = catch_unwind(AssertUnwindSafe(|| Player::new(cluster, way, history).play(history)));
    match played {
        Ok(Ok(())) => None,
        Ok(Err(why)) => Some(why),
        Err(panic) => Some(
            panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_default(),
        ),
    }
}

/// Takes out of a history what it fails without.
pub(super) fn shortest(
    cluster: &Arc<Cluster>,
    way: Way,
    mut history: Vec<Step>,
    mut why: String,
) -> (Vec<Step>, String) {
    let began = Instant::now();
    let mut size = history.len().div_ceil(2);
    while size > 0 && began.elapsed() < PATIENCE {
        let mut at = 0;
        while at < history.len() && began.elapsed() < PATIENCE {
            let mut shorter = history.clone();
            shorter.drain(at..(at + size).min(history.len()));
            match failure(cluster, way, &shorter) {
                Some(still) => (history, why) = (shorter, still),
                None => at += size,
            }
        }
        size /= 2;
    }
    (history, why)
}

struct Player {
    db: TestDb,
    way: Way,
    /// What the publication is made with.
    published: String,
    catalog: Catalog,
    target: Target,
    state: Value,
    /// The number of the run that comes next: rows have that of when they were written last.
    run: u64,
    /// What runs have said since the last that was judged.
    said: String,
    /// Whether a run has read since then while things happened.
    live: bool,
}

impl Player {
    fn new(cluster: &Arc<Cluster>, way: Way, history: &[Step]) -> Player {
        let db = TestDb::on(cluster, "histories");
        db.psql(SETUP);
        let published = history.iter().find_map(|step| match step {
            Step::Published(what) => Some(what.clone()),
            _ => None,
        });
        let published = published.unwrap_or_else(|| "for all tables".to_owned());
        if way.plugin == "pgoutput" {
            db.publication(&published);
        }
        db.slot(way.plugin);
        let catalog = STREAMS
            .iter()
            .fold(Tap::new(&db).discover(), |catalog, stream| catalog.select(&format!("public-{stream}"), "LOG_BASED"));
        let (target, said) = (Target::default(), String::new());
        Player { db, way, published, catalog, target, state: json!({}), run: 0, said, live: false }
    }

    fn play(mut self, history: &[Step]) -> Result<(), String> {
        self.run()?;
        let mut session = self.db.session();
        // What is prepared holds its locks for as long as nobody ends it.
        session.run("\\unset ON_ERROR_STOP\n\\set VERBOSITY sqlstate\n\\o /dev/null\nset lock_timeout = '500ms';");
        for step in history {
            match step {
                Step::Sql(sql) => {
                    self.sql(&mut session, sql);
                }
                Step::Run => self.run()?,
                Step::Published(_) => {}
                Step::Live { steps, ends, left } => {
                    let running = self.tap().config("break_at_end_lsn", *ends).spawn();
                    for sql in steps {
                        thread::sleep(Duration::from_millis(if *ends { 15 } else { 60 }));
                        self.sql(&mut session, sql);
                    }
                    thread::sleep(Duration::from_millis(*left));
                    running.signal(Signal::TERM);
                    let output = running.finish();
                    self.take(&output.stderr, &output.messages);
                    self.live = true;
                }
            }
        }
        session.run("rollback;");
        drop(session);
        self.run()
    }

    fn sql(&self, session: &mut crate::harness::database::Session, sql: &str) {
        let sql = sql.replace("$W", &self.run.to_string()).replace("$P", &self.db.slot_name());
        session.run(&sql.replace("$D", &self.published));
        session.run("rollback;");
    }

    fn tap(&self) -> Tap {
        let tap = Tap::new(&self.db).config("wal_reader", self.way.reader).config("create_replication_slot", true);
        // What a target holds is the same with it.
        tap.config("compact_changes", self.run % 2 == 1).catalog(&self.catalog).state(&self.state)
    }

    fn take(&mut self, stderr: &str, messages: &[Message]) {
        self.said.extend(stderr.lines().filter(|line| !line.contains("level=INFO")).flat_map(|line| [line, "\n"]));
        check_protocol(messages);
        assert_fits(messages);
        if let Some(confirmed) = self.target.apply_confirmed(messages) {
            self.state = confirmed;
        }
    }

    /// Reads until nothing asks for another run, and judges.
    fn run(&mut self) -> Result<(), String> {
        for repeat in 0.. {
            let output = self.tap().output().parsed();
            self.take(&output.stderr, &output.messages);
            match output.status.code() {
                Some(0) => break,
                // The advice where the publication was not there for a while.
                Some(1) if repeat < REPEATS && output.stderr.contains("on_slot_lost to copy_again") => {
                    let slot = self.db.slot_name();
                    self.db.wait_until(&format!(
                        "not exists (select from pg_replication_slots where slot_name = '{slot}' and active)"
                    ));
                    self.db.psql(&format!("select pg_drop_replication_slot('{slot}')"));
                    self.commit_prepared();
                    let tap = self.tap().config("on_slot_lost", "copy_again");
                    let output = tap.output().parsed();
                    self.take(&output.stderr, &output.messages);
                }
                // A copy waits for what is prepared.
                Some(1) if repeat < REPEATS && output.stderr.contains("still writing") => self.commit_prepared(),
                Some(1) if repeat < REPEATS && output.stderr.contains("run again") => {}
                Some(1) if repeat < REPEATS => break,
                _ => return Err(format!("{}: {}", output.status, output.stderr)),
            }
        }
        let mut again = Vec::new();
        for stream in STREAMS {
            if self.judge(stream)? {
                again.push(stream);
            }
        }
        self.said.clear();
        self.live = false;
        self.run += 1;
        // A copy waits for what is prepared.
        if !again.is_empty() {
            self.commit_prepared();
        }
        // The advice.
        for stream in again {
            if let Some(bookmarks) = self.state["bookmarks"].as_object_mut() {
                bookmarks.remove(&format!("public-{stream}"));
            }
        }
        Ok(())
    }

    fn commit_prepared(&self) {
        self.end_prepared("commit");
    }

    fn end_prepared(&self, how: &str) {
        let prepared = self.db.query("select gid from pg_prepared_xacts where database = current_database()");
        for gid in prepared.into_iter().flatten().flatten() {
            self.db.psql(&format!("{how} prepared '{gid}'"));
        }
    }

    /// Whether a stream is to be copied again, because a run said that it differs. Fails where it differs and nothing was said.
    fn judge(&self, stream: &str) -> Result<bool, String> {
        let id = format!("public-{stream}");
        let lines: Vec<&str> = self.said.lines().filter(|line| line.contains(&id)).collect();
        let says = |level: &str, text: &str| lines.iter().any(|line| line.contains(level) && line.contains(text));
        let error = lines.iter().any(|line| line.contains("level=ERROR") || line.contains("level=CRITICAL"));
        let exists = self.db.query_one(&format!("select to_regclass('public.{stream}') is not null"));
        if exists == "f" {
            return if error {
                Ok(false)
            } else {
                Err(format!("{id}: nothing says that it is not there: {}", self.said))
            };
        }
        // What the target has of columns that are gone is no matter.
        let columns = self.db.query(&format!(
            "select attname from pg_attribute where attrelid = 'public.{stream}'::regclass and attnum > 0 and not attisdropped"
        ));
        let columns: Vec<String> = columns.into_iter().flatten().flatten().collect();
        let (mut target, source) = (self.held(stream), self.source(stream));
        for row in target.values_mut().filter_map(Value::as_object_mut) {
            row.retain(|name, _| columns.contains(name));
        }
        if target == source {
            return Ok(false);
        }
        if error
            || says("WARNING", "was truncated")
            || says("WARNING", "other files than before")
            || says("WARNING", "attached as a partition")
            || says("WARNING", "what that publishes, may have been altered")
        {
            return Ok(true);
        }
        if says("WARNING", "were detached or dropped") {
            target.retain(|key, _| source.contains_key(key));
            if target == source {
                return Ok(true);
            }
        }
        let keys = |rows: &Rows| rows.keys().cloned().collect::<Vec<_>>();
        let written = |row: &Value| row["w"].as_u64() == Some(self.run);
        let old = |key: &String| !written(&source[key]) || self.live;
        let only_old =
            keys(&target) == keys(&source) && source.iter().all(|(key, row)| target.get(key) == Some(row) || old(key));
        if only_old && says("WARNING", "added or altered") {
            return Ok(true);
        }
        let differences: Vec<String> = keys(&target)
            .into_iter()
            .chain(keys(&source))
            .filter(|key| target.get(key) != source.get(key))
            .map(|key| format!("target {} source {}", shown(target.get(&key)), shown(source.get(&key))))
            .take(6)
            .collect();
        Err(format!("{id} differs in silence, in run {}: {differences:#?}\n{}", self.run, self.said))
    }

    fn held(&self, stream: &str) -> Rows {
        by_key(stream, self.target.rows(&format!("public-{stream}")))
    }

    fn source(&self, stream: &str) -> Rows {
        by_key(stream, source_rows(&self.db, &format!("public.{stream}")))
    }
}

impl Drop for Player {
    /// What is prepared outlives its session, and would keep slots of the server from being made.
    fn drop(&mut self) {
        self.end_prepared("rollback");
    }
}

/// Rows by their keys.
type Rows = BTreeMap<String, Value>;

fn by_key(stream: &str, rows: Vec<String>) -> Rows {
    let key: &[&str] = match stream {
        "toasted" => &["k"],
        "pair" => &["a", "b"],
        "coded" => &["url"],
        "tree" => &["id", "r"],
        _ => &["id"],
    };
    rows.into_iter()
        .map(|row| {
            let row: Value = serde_json::from_str(&row).expect("a row is JSON");
            (key.iter().map(|column| row[column].to_string()).collect::<Vec<_>>().join(","), row)
        })
        .collect()
}

fn shown(row: Option<&Value>) -> String {
    row.map_or("none".to_owned(), |row| {
        let short = |value: &Value| value.to_string().chars().take(40).collect::<String>();
        let columns = row.as_object().into_iter().flatten().map(|(name, value)| format!("{name}: {}", short(value)));
        columns.collect::<Vec<_>>().join(", ")
    })
}
