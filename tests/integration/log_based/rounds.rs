//! Whatever happens to a source, the target has its rows after the next run.

use serde_json::{Value, json};

use super::{Source, select, with_both_plugins};
use crate::harness::Tap;
use crate::harness::messages::Record;
use crate::harness::target::Target;

with_both_plugins!(a_target_converges, a_keyless_table_is_a_history);

const KEYED: [&str; 3] = ["item", "pair", "tracked"];

/// `random_changes(n)` makes n changes, some of them in savepoints that are rolled back, in a few transactions.
const TABLES: &str = "
    create table item (id integer primary key, note text, amount numeric, at timestamptz, tags text[], doc jsonb, big text);
    create table pair (a integer, b text, n integer, primary key (a, b));
    create table tracked (id integer primary key, note text, big text);
    alter table tracked replica identity full;
    create table keyless (n integer, note text, big text);
    alter table keyless replica identity full;
    create table history (seq bigserial primary key, gone boolean, n integer, note text, big text);
    alter table item alter big set storage external;
    alter table tracked alter big set storage external;
    alter table keyless alter big set storage external;
    create function track() returns trigger language plpgsql as $$
    begin
        if tg_op = 'DELETE' then
            insert into history (gone, n, note, big) values (true, old.n, old.note, old.big);
        else
            insert into history (gone, n, note, big) values (false, new.n, new.note, new.big);
        end if;
        return null;
    end $$;
    create trigger track after insert or update or delete on keyless for each row execute procedure track();
    create function big() returns text language sql volatile
        as $$ select case when random() < 0.5 then repeat(md5(random()::text), 200) end $$;
    create function some_id() returns integer language sql volatile as $$ select (random() * 60)::integer $$;
    create function change() returns void language plpgsql as $$
    declare k integer := some_id();
    begin
        case (random() * 15)::integer
        when 0 then update item set id = some_id() + 100 where id = k;
        when 1 then delete from item where id = k;
        when 2 then update item set amount = random()::numeric * 1e20, doc = jsonb_build_object('k', k) where id = k;
        when 3 then update pair set b = b || k, n = k where a = k;
        when 4 then delete from pair where a = k;
        when 5 then insert into pair values (k, md5(random()::text), k);
        when 6 then update tracked set id = some_id() + 100, note = 'moved' where id = k;
        when 7 then delete from tracked where id = k;
        when 8 then insert into tracked values (k, 'é' || k, big()) on conflict (id) do update set note = 'again';
        when 9 then update keyless set note = note || '!' where n = k;
        when 10 then delete from keyless where n = k;
        else insert into keyless values (k, 'n', big());
        end case;
        insert into item values (some_id(), 'row', 1.50, now(), array['a', null, 'b'], '{\"a\": 1.10}', big())
            on conflict (id) do update set note = 'again', at = clock_timestamp();
    exception when unique_violation then
        -- The changes before it in the subtransaction are in the log all the same.
        null;
    end $$;";

/// So many random changes, in transactions of five or so.
fn random_changes(seed: f64, count: u32) -> String {
    format!(
        "begin; select setseed({seed}) \\g /dev/null
         select s from generate_series(1, {count}) i,
             lateral (values ('select change()'), (case when random() + 0 * i < 0.2 then 'commit; begin' end)) v(s)
             where s is not null \\gexec
         commit;"
    )
}

fn assert_converged(source: &Source, target: &Target) {
    let catalog = KEYED.iter().fold(Tap::new(&source.db).discover(), |catalog, table| {
        catalog.select(&format!("public-{table}"), "FULL_TABLE")
    });
    let full = Tap::new(&source.db).catalog(&catalog).run();
    let mut expected = Target::default();
    expected.apply(&full.messages);
    for table in KEYED {
        let stream = format!("public-{table}");
        let rows = expected.rows(&stream);
        assert!(rows.len() > 5, "a test of too few rows of {table}");
        assert_eq!(target.rows(&stream), rows, "{table}");
    }
}

fn a_target_converges(plugin: &str) {
    let source = Source::new(plugin, TABLES, &KEYED);
    source.db.psql(&random_changes(0.3, 300));
    let mut target = Target::default();
    let mut state = json!({});
    // Each way to read the log goes on from the states of the other.
    for (round, reader) in (0..).zip(["stream", "bulk", "bulk", "stream", "auto", "bulk"]) {
        let tap = source.tap().state(&state).config("wal_reader", reader).config("compact_changes", round % 2 == 1);
        let storage = json!({"root": format!("file://{}", tap.dir().join("batches").display())});
        let tap = if round % 3 == 1 {
            tap.config("batch_config", json!({"storage": storage, "batch_size": 50}))
        } else {
            tap
        };
        let output = tap.run();
        target.apply(&output.messages);
        assert_converged(&source, &target);
        state = output.last_state().clone();
        source.db.psql(&random_changes(0.07 + 0.1 * f64::from(round), 300));
    }
    // A target that missed a STATE gets the same again, and is none the worse.
    let output = source.run(&state);
    target.apply(&output.messages);
    target.apply(&source.run(&state).messages);
    assert_converged(&source, &target);
}

/// A table without a key is appended to: its records are the copy, then each change once, in the order of the log.
fn a_keyless_table_is_a_history(plugin: &str) {
    let mut source = Source::new(plugin, TABLES, &["keyless"]);
    source.db.psql(&random_changes(0.5, 300));
    // What a trigger saw before the copy is not seen again.
    let copied = source.tap().run();
    let count = source.db.query_one("select count(*) from keyless");
    assert_eq!(copied.records("public-keyless").len().to_string(), count);

    let mut state = copied.last_state().clone();
    source.catalog = select(source.catalog.clone(), &["history"]);
    state = source.run(&state).last_state().clone();
    for (round, reader) in (1..).zip(["bulk", "stream", "bulk"]) {
        source.db.psql(&random_changes(0.1 * f64::from(round), 300));
        let output = source.tap().state(&state).config("wal_reader", reader).run();
        let told = |stream: &str| -> Vec<Value> {
            output.record_messages().filter(|record| record.stream == stream).map(event).collect()
        };
        let (keyless, history) = (told("public-keyless"), told("public-history"));
        assert!(history.len() > 20, "a test of too few changes");
        assert_eq!(keyless, history, "round {round}");
        state = output.last_state().clone();
    }
}

/// A change of the keyless table, told by itself or by its history.
fn event(record: &Record) -> Value {
    let record = &record.record;
    let gone = record.get("gone").cloned().unwrap_or_else(|| json!(!record["_sdc_deleted_at"].is_null()));
    json!([gone, record["n"], record["note"], record["big"]])
}
