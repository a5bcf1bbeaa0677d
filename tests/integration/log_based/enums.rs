//! Enums that get another value while the log is read.

use super::{Source, assert_fits, assert_holds, column, follow, with_both_plugins};

with_both_plugins!(a_value_added_between_runs, a_value_added_while_the_tap_reads);

const ITEM: &str = "create type mood as enum ('sad', 'ok');
    create domain feeling as mood;
    create table item (id integer primary key, m mood not null, list mood[], f feeling); insert into item values (1, 'ok', '{sad}', 'ok');";

fn a_value_added_between_runs(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let first = source.tap().run();
    let output = source.run_after(
        "insert into item values (2, 'sad'); alter type mood add value 'happy' before 'ok';
         insert into item values (3, 'happy', '{happy,sad}', 'happy'); update item set m = 'happy' where id = 1;
         alter type mood rename value 'ok' to 'fine'; insert into item values (4, 'fine'); update item set f = 'fine' where id < 3;",
        first.last_state(),
    );
    let mut moods = column(&output, "item", "m");
    moods[4..].sort_by_key(ToString::to_string);
    assert_eq!(moods, ["sad", "happy", "happy", "fine", "happy", "sad"]);
    assert_fits(&output.messages);
    assert_holds(&source.db, "item", &[&first.messages, &output.messages]);
}

fn a_value_added_while_the_tap_reads(plugin: &str) {
    let source = Source::new(plugin, ITEM, &["item"]);
    let first = source.tap().run();
    let output = follow(&source, "item", first.last_state(), |running| {
        running.after("insert into item values (2, 'sad');", 2);
        running
            .after("alter type mood add value 'happy'; insert into item values (3, 'happy', '{happy}', 'happy');", 3);
        running.after("alter table item alter m type text; insert into item values (4, 'anything');", 4);
        running.after("create type other as enum ('sad', 'ok', 'happy', 'anything'); alter table item alter m type other using m::other, drop f;
            drop domain feeling; insert into item values (5, 'happy', '{sad}');", 5);
    });
    assert_eq!(column(&output, "item", "m"), ["sad", "happy", "anything", "happy"]);
    assert_fits(&output.messages);
}
