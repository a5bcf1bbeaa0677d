//! Tables that are dropped and made again, or take each other's names: the stream is the table that has its name.

use super::{Source, assert_fits, assert_holds, bookmark, follow, numbers, with_both_plugins};

with_both_plugins!(
    dropped_and_made_again_between_runs,
    dropped_and_made_again_while_the_tap_reads,
    two_tables_swap_names_between_runs,
    two_tables_swap_names_while_the_tap_reads,
    dropped_while_the_tap_reads,
);

const ITEM: &str = "create table item (id integer primary key, note text); insert into item values (1, 'a'), (2, 'b');
    create table other (id integer primary key, note text);";

const ANEW: &str = "insert into item values (3, 'c'); drop table item;
    create table item (id integer primary key, other text, n integer); insert into item values (1, 'x', 1), (9, 'y', 9);";

fn dropped_and_made_again_between_runs(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item", "other"]);
    let first = source.tap().run();
    let second = source.run_after(&format!("{ANEW} insert into other values (1);"), first.last_state());
    assert_eq!(numbers(&second, "other", "id"), [1]);
    assert_fits(&second.messages);
    assert!(second.logged("made again") == 1, "{}", second.stderr);
    // ACTIVATE_VERSION rids the target of what the dropped table held.
    assert_holds(&source.db, "item", &[&first.messages, &second.messages]);
    let third = source.run_after("update item set n = 2 where id = 1", second.last_state());
    assert_holds(&source.db, "item", &[&first.messages, &second.messages, &third.messages]);
}

fn dropped_and_made_again_while_the_tap_reads(plugin: &str) {
    for anew in [
        ANEW,
        "insert into item values (3, 'c'); drop table item; create table item (like other including all); insert into item values (9, 'y');",
    ] {
        let source = Source::new(plugin, ITEM, &["item", "other"]);
        let first = source.tap().run();
        let second = follow(&source, "other", first.last_state(), |running| {
            running.after("insert into item values (4, 'd'); insert into other values (1);", 1);
            running.after(&format!("{anew} insert into other values (2);"), 2);
            running.after("insert into item (id) values (10); update item set id = 11 where id = 9; insert into other values (3);", 3);
        });
        assert_fits(&second.messages);
        assert_eq!(numbers(&second, "other", "id"), [1, 2, 3]);
        let third = source.run(second.last_state());
        assert_fits(&third.messages);
        assert_holds(&source.db, "item", &[&first.messages, &second.messages, &third.messages]);
        assert_holds(&source.db, "other", &[&first.messages, &second.messages, &third.messages]);
    }
}

const SWAP: &str = "create table fresh (id integer primary key, note text, extra integer); insert into fresh values (1, 'new', 1), (7, 'new', 7);
    begin; alter table item rename to item_old; alter table fresh rename to item; commit;
    insert into item values (8, 'eight', 8); insert into item_old values (80, 'nobody wants it');";

fn two_tables_swap_names_between_runs(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let first = source.tap().run();
    let second = source.run_after(&format!("update item set note = 'late' where id = 2; {SWAP}"), first.last_state());
    assert_fits(&second.messages);
    assert_holds(&source.db, "item", &[&first.messages, &second.messages]);
    // And back: the bookmark is of the other table.
    let third = source.run_after(
        "begin; alter table item rename to fresh; alter table item_old rename to item; commit; insert into item values (81, 'c');",
        second.last_state(),
    );
    assert_holds(&source.db, "item", &[&first.messages, &second.messages, &third.messages]);
}

fn two_tables_swap_names_while_the_tap_reads(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item", "other"]);
    let first = source.tap().run();
    let second = follow(&source, "other", first.last_state(), |running| {
        running.after("insert into item values (4, 'd'); insert into other values (1);", 1);
        running.after(&format!("{SWAP} insert into other values (2);"), 2);
        running.after("update item set extra = 5; delete from item_old where id = 1; insert into other values (3);", 3);
    });
    assert_fits(&second.messages);
    let mut state = second.last_state().clone();
    assert!(bookmark(&mut state, "item").contains_key("table_oid"));
    let third = source.run(&state);
    assert_holds(&source.db, "item", &[&first.messages, &second.messages, &third.messages]);
}

/// The others go on; the next run says that it is missing.
fn dropped_while_the_tap_reads(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item", "other"]);
    let state = source.copied();
    let output = follow(&source, "other", &state, |running| {
        running.after("insert into item values (4, 'd'); insert into other values (1);", 1);
        running.after("begin; insert into item values (5, 'e'); alter table item add x integer; insert into item values (6, 'f', 6);
            drop table item; commit; insert into other values (2);", 2);
        running.after("insert into other values (3);", 3);
    });
    assert_fits(&output.messages);
    assert_eq!(numbers(&output, "other", "id"), [1, 2, 3]);
    let failed = source.tap().state(output.last_state()).run_failing(1);
    assert!(failed.stderr.contains("public-item"), "{}", failed.stderr);
}
