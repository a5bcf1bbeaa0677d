//! The server as a whole: whether it is there, what it is, and its settings.

use super::{ITEM, check, failure_mended, line, lines, mended, sql, tap};
use crate::harness::{Cluster, Role, Tap, TestDb, needs, release};

#[test]
fn nothing_is_asked_of_a_server_that_is_not_there() {
    let db = TestDb::new("check_nowhere");
    let output = check(&Tap::new(&db).config("dbname", "nowhere").arg("--test")).expect_code(1);
    line(&output, "failure", &["cannot connect", "nowhere", "dbname"]);
    assert_eq!((output.stdout.as_str(), lines(&output, "ok", &[]).len()), ("", 0));
}

#[test]
fn wal_level() {
    let cluster = Cluster::start("wal_level = replica");
    let db = TestDb::on(&cluster, "check_level");
    db.psql(ITEM);
    let tap = tap(&db, &[("item", "LOG_BASED")]).config("create_replication_slot", true);
    let output = check(&tap);
    db.psql(sql(line(&output, "failure", &["wal_level is replica", "restart the server", "rds.logical_replication"])));
    assert_eq!(lines(&output, "failure", &[]).len(), 1, "{}", output.stderr);
    // The other requirements are told all the same.
    line(&output, "ok", &["the role may replicate"]);
    cluster.stop("SIGINT");
    cluster.start_again();
    line(&check(&tap).expect_code(0), "ok", &["wal_level is logical"]);
}

/// Both settings are told of in one run, and both mended by one restart.
#[test]
fn no_slot_and_no_walsender_is_left() {
    let cluster = Cluster::start("max_replication_slots = 1\nmax_wal_senders = 0");
    let db = TestDb::on(&cluster, "check_full");
    db.psql(ITEM);
    db.query_one("select slot_name from pg_create_physical_replication_slot('taken')");
    let tap = || tap(&db, &[("item", "LOG_BASED")]).config("create_replication_slot", true);
    let streamed = tap().config("wal_reader", "stream");
    let output = check(&streamed);
    let slots = sql(line(&output, "failure", &["max_replication_slots: none of 1 is left", "restart"]));
    let senders = sql(line(&output, "failure", &["max_wal_senders: none of 0 is left", "restart"]));
    assert_eq!(lines(&output, "failure", &[]).len(), 2, "{}", output.stderr);
    // A bulk read does without a walsender.
    if needs(11, "a bulk read") {
        let output = check(&tap().config("wal_reader", "auto"));
        line(&output, "warning", &["max_wal_senders", "in bulk"]);
        assert_eq!(lines(&output, "failure", &[]).len(), 1, "{}", output.stderr);
    }
    db.psql(&format!("{slots} {senders}"));
    cluster.stop("SIGINT");
    cluster.start_again();
    let output = check(&streamed).expect_code(0);
    line(&output, "ok", &["max_replication_slots: 4 of 5 are left"]);
    line(&output, "ok", &["max_wal_senders: 4 of 4 are left"]);
    // A slot that is there is enough, if not for copies.
    let slot = db.replicate("pgoutput");
    db.psql("select count(pg_create_physical_replication_slot('taken' || n)) from generate_series(1, 3) n");
    let output = check(&streamed).expect_code(0);
    line(&output, "warning", &["max_replication_slots: none of 5 is left", "a copy"]);
    line(&output, "ok", &[&slot, "behind"]);
}

#[test]
fn an_unbounded_slot() {
    if !needs(13, "max_slot_wal_keep_size") {
        return;
    }
    let cluster = Cluster::start("");
    let db = TestDb::on(&cluster, "check_unbounded");
    db.psql(ITEM);
    db.replicate("pgoutput");
    let tap = tap(&db, &[("item", "LOG_BASED")]);
    mended(&db, &tap, "warning", &["max_slot_wal_keep_size is unlimited", "disk"]);
    line(&check(&tap), "ok", &["max_slot_wal_keep_size is 50GB"]);
}

#[test]
fn a_standby() {
    let cluster = Cluster::start("");
    let db = TestDb::on(&cluster, "check_standby");
    db.psql(ITEM);
    let standby = cluster.standby();
    let view = db.view_of(&standby);
    line(&check(&tap(&view, &[("item", "FULL_TABLE")])).expect_code(0), "ok", &["PostgreSQL", "a standby"]);
    let log_based = tap(&view, &[("item", "LOG_BASED")]).config("create_replication_slot", true);
    let output = check(&log_based).expect_code(1);
    if release() < 16 {
        line(&output, "failure", &["a standby older than PostgreSQL 16", "use_secondary"]);
    }
    let publish = sql(line(&output, "failure", &["publication", "the server is a standby", "on the primary"]));
    db.psql(publish);

    // Tables from the standby, the log from the primary: both are checked.
    db.slot("pgoutput");
    let secondary = standby.dir().to_str().expect("a UTF-8 path");
    let both = tap(&db, &[("item", "LOG_BASED")])
        .config("use_secondary", true)
        .config("secondary_host", secondary)
        .config("secondary_port", standby.port());
    let output = check(&both).expect_code(0);
    line(&output, "ok", &["PostgreSQL", "a standby"]);
    line(&output, "ok", &["PostgreSQL", "a primary"]);
}

/// Recent minor releases load only plugins that this setting names.
#[test]
fn output_plugin_libraries() {
    let known = TestDb::new("check_known");
    if known.query_one("select count(*) from pg_settings where name = 'output_plugin_libraries'") == "0" {
        return;
    }
    let cluster = Cluster::start("");
    let db = TestDb::on(&cluster, "check_libraries");
    db.psql(ITEM);
    db.replicate("pgoutput");
    db.psql("alter system set output_plugin_libraries = test_decoding; select pg_reload_conf();");
    // A role that may not see the setting hears of it when the plugin is tried.
    let role = Role::reader(&db, "replication");
    let seen_by = |user: &str| tap(&db, &[("item", "LOG_BASED")]).config("user", user);
    line(&check(&seen_by(&role.name)), "failure", &["output_plugin_libraries", "pgoutput", "ALTER SYSTEM"]);
    failure_mended(&db, &seen_by("postgres"), &["output_plugin_libraries", "pgoutput"]);
    check(&seen_by(&role.name)).expect_code(0);
}
