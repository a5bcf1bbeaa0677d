//! Several hosts, one of which is read from.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use super::failures::fails;
use super::server::{self, PASSWORD, database, reads, server, tap};
use crate::harness::{Cluster, Output, Tap, TestDb};

const LOGGED: &str = "log_connections = on\nlog_line_prefix = '%u@%d '";

/// The tap on these servers' sockets.
fn on(db: &TestDb, clusters: &[&Arc<Cluster>]) -> Tap {
    let dirs: Vec<&str> = clusters.iter().map(|cluster| cluster.dir().to_str().expect("a UTF-8 path")).collect();
    Tap::new(db).config("host", dirs.join(","))
}

/// How often the tap has asked this server to let it in to this database.
fn logins(cluster: &Cluster, db: &TestDb) -> usize {
    let ours = |line: &&str| line.contains(&format!("@{} ", db.name())) && line.contains("connection authorized");
    cluster.log().lines().filter(ours).count()
}

#[track_caller]
fn read_from(output: &Output, cluster: &Cluster) {
    let chosen = format!("reading from {}/", cluster.dir().display());
    assert_eq!(output.logged(&chosen), 1, "{}", output.stderr);
}

#[test]
fn one_that_is_not_there_is_passed_over() {
    let db = database(&server(), "hosts_absent");
    db.replicate("pgoutput");
    let port = server().port();
    reads(&db, true, || tap(&db, "scram").config("host", "127.0.0.1,localhost").config("port", format!("1,{port}")));
    reads(&db, true, || tap(&db, "scram").config("host", "no-such-host.invalid,localhost"));
    reads(&db, true, || tap(&db, "scram").config("host", "/nonexistent,localhost,127.0.0.1"));
    let dsn = format!("postgresql://scram@127.0.0.1:1,localhost:{port}/{}?target_session_attrs=read-write", db.name());
    reads(&db, true, || Tap::bare().config("dsn", &*dsn).config("password", PASSWORD).config("wal_reader", "stream"));
}

#[test]
fn one_that_refuses_the_login_is_not() {
    let db = database(&server(), "hosts_refused");
    let tap = || tap(&db, "scram").config("host", "localhost,127.0.0.1");
    fails(&tap().config("password", "not-the-password"), 1, &["localhost:", "authentication failed"]);
    fails(&tap().config("dbname", "hosts_nowhere"), 1, &["localhost:", "hosts_nowhere"]);
    let refusals = server().log().lines().filter(|line| line.contains("\"hosts_nowhere\" does not exist")).count();
    assert_eq!(refusals, 1);
}

#[test]
fn the_password_is_looked_up_by_the_host_that_is_there() {
    let db = database(&server(), "hosts_passwords");
    db.replicate("pgoutput");
    let port = server().port();
    let escaped = PASSWORD.replace('\\', r"\\").replace(':', r"\:");
    reads(&db, true, || {
        let tap = tap(&db, "scram").without("password").config("host", "127.0.0.1,localhost");
        let lines = format!("127.0.0.1:*:*:*:wrong\nlocalhost:1:*:*:wrong\nlocalhost:{port}:*:scram:{escaped}\n");
        let path = tap.file(".pgpass", &lines);
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("set a file's mode");
        tap.config("port", format!("1,{port}"))
    });
    reads(&db, true, || {
        let tap = tap(&db, "scram").without("password").env("PGPASSWORD", PASSWORD);
        tap.config("host", "127.0.0.1,localhost").config("port", format!("1,{port}"))
    });
}

/// The slot is there and nowhere else.
#[test]
fn every_connection_goes_where_the_first_one_went() {
    let (first, second) = (Cluster::start(LOGGED), Cluster::start(LOGGED));
    let db = database(&second, "hosts_pinned");
    db.replicate("pgoutput");
    first.stop("SIGINT");
    let catalog = server::catalog(&db);
    let tap = || on(&db, &[&first, &second]).config("wal_reader", "stream").catalog(&catalog);
    let mut locker = db.session();
    locker.run("begin; lock table copied in access exclusive mode;");
    let running = tap().spawn();
    db.wait_until(
        "exists (select from pg_stat_activity where datname = current_database() \
         and application_name = 'tap-postgres-rs' and wait_event_type = 'Lock')",
    );
    first.start_again();
    let before = logins(&second, &db);
    locker.run("commit;");
    let output = running.finish().expect_code(0);
    read_from(&output, &second);
    assert!(logins(&second, &db) > before, "no further connection in\n{}", second.log());
    // Asking for a database that is not there would have failed, besides.
    assert_eq!(logins(&first, &db), 0);
}

#[test]
fn the_kind_of_server_that_is_wanted() {
    let primary = Cluster::start(LOGGED);
    let db = database(&primary, "hosts_kinds");
    db.replicate("pgoutput");
    let standby = primary.standby();
    let replica = db.view_of(&standby);
    let copy = Tap::new(&db).discover().select("public-copied", "FULL_TABLE");
    replica.wait_until(
        "pg_last_wal_replay_lsn() is not null and exists (select from pg_class where relname = 'streamed')",
    );
    let run = |wanted: &str, first: &Arc<Cluster>, second: &Arc<Cluster>| {
        let output = on(&db, &[first, second]).config("target_session_attrs", wanted).catalog(&copy).run();
        assert_eq!(output.records("public-copied").len(), 1);
        output
    };
    for wanted in ["primary", "read-write"] {
        read_from(&run(wanted, &standby, &primary), &primary);
    }
    for wanted in ["standby", "read-only", "prefer-standby"] {
        read_from(&run(wanted, &primary, &standby), &standby);
    }
    for (first, second) in [(&primary, &standby), (&standby, &primary)] {
        read_from(&run("any", first, second), first);
    }
    // Every connection of LOG_BASED, too; the standby is asked once what it is.
    let before = logins(&standby, &db);
    let catalog = server::catalog(&db);
    let all =
        on(&db, &[&standby, &primary]).config("target_session_attrs", "read-write").config("wal_reader", "stream");
    read_from(&all.catalog(&catalog).run(), &primary);
    assert_eq!(logins(&standby, &db), before + 1);
    // A standby where there is one.
    standby.stop("SIGINT");
    read_from(&run("prefer-standby", &standby, &primary), &primary);
    db.psql(&format!("alter database {} set default_transaction_read_only = on", db.name()));
    read_from(&run("read-only", &standby, &primary), &primary);
}

/// What is not there may come back, what is a standby become a primary: the whole list is tried again.
#[test]
fn the_list_is_tried_again() {
    let (first, second) = (Cluster::start(LOGGED), Cluster::start(LOGGED));
    let db = database(&second, "hosts_again");
    let catalog = Tap::new(&db).discover().select("public-copied", "FULL_TABLE");
    let standby = second.standby();
    let replica = db.view_of(&standby);
    first.stop("SIGINT");
    second.stop("SIGINT");
    let tap = || on(&db, &[&first, &second]).catalog(&catalog);
    fails(&tap(), 1, &["none of the hosts", &*first.dir().to_string_lossy(), &*second.dir().to_string_lossy()]);
    let running = tap().spawn();
    running.wait_for_log("trying again");
    second.start_again();
    read_from(&running.finish().expect_code(0), &second);
    second.stop("SIGINT");

    let promoted = || on(&replica, &[&first, &standby]).config("target_session_attrs", "primary").catalog(&catalog);
    let running = promoted().spawn();
    running.wait_for_log("is not a primary");
    standby.promote();
    read_from(&running.finish().expect_code(0), &standby);
    second.start_again();
}

#[test]
fn wrong_lists_are_told() {
    let db = database(&server(), "hosts_wrong");
    fails(&tap(&db, "scram").config("port", "1,2,3"), 2, &["\"port\"", "3 ports for 1 hosts"]);
    fails(&tap(&db, "scram").config("target_session_attrs", "master"), 2, &["target_session_attrs", "prefer-standby"]);
    let wanted = tap(&db, "scram").config("target_session_attrs", "standby");
    fails(&wanted, 1, &["localhost:", "is not a standby", "target_session_attrs"]);
}
