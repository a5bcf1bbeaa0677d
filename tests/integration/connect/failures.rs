//! What fails, and what it says: one line with where, why and what to do, and never a secret.

use serde_json::json;

use super::server::{self, PASSWORD, database, server, tap};
use crate::harness::{Cluster, Tap, needs};

/// A run that must end with this code, and with one ERROR line that holds all of these texts.
#[track_caller]
pub(super) fn fails(tap: &Tap, code: i32, texts: &[&str]) {
    let output = tap.output().expect_code(code);
    let errors: Vec<&str> = output.stderr.lines().filter(|line| line.contains("level=ERROR")).collect();
    let [error] = errors.as_slice() else { panic!("not one error:\n{}", output.stderr) };
    assert!(texts.iter().all(|text| error.contains(text)), "{texts:?} not all in {error}");
    for secret in [PASSWORD, "not-the-password"] {
        assert!(!output.stderr.contains(secret), "{}", output.stderr);
    }
}

#[test]
fn a_refused_login_says_why_and_what_to_do() {
    let db = database(&server(), "connect_refused");
    let at = format!("localhost:{}/{}", server().port(), db.name());
    for user in ["scram", "md5user", "clear"] {
        fails(&tap(&db, user).config("password", "not-the-password"), 1, &[&at, "authentication failed", user]);
        fails(&tap(&db, user).without("password"), 1, &[&at, "PGPASSWORD"]);
        fails(&tap(&db, user).config("password", ""), 1, &[&at, "PGPASSWORD"]);
    }
    fails(&tap(&db, "scram").config("dbname", "nowhere"), 1, &["nowhere", "does not exist", "dbname"]);
    fails(&tap(&db, "nobody"), 1, &["nobody", "pg_hba.conf"]);
    fails(&tap(&db, "encrypted").config("sslmode", "disable"), 1, &["pg_hba.conf", "sslmode"]);
    fails(&tap(&db, "unencrypted").config("sslmode", "require"), 1, &["pg_hba.conf"]);
    fails(&tap(&db, "limited"), 1, &["too many connections"]);
}

#[test]
fn a_server_that_is_not_there_says_where_it_was_looked_for() {
    let db = database(&server(), "connect_nowhere");
    fails(&tap(&db, "scram").config("host", "no-such-host.invalid"), 1, &["no-such-host.invalid", "`host`"]);
    fails(&tap(&db, "scram").config("host", "127.0.0.1").config("port", 1), 1, &["127.0.0.1:1/", "refused", "`port`"]);
    fails(&tap(&db, "scram").config("host", "/nonexistent"), 1, &["/nonexistent/.s.PGSQL.", "`host`"]);
}

#[test]
fn a_server_without_tls() {
    let plain = Cluster::start("");
    let db = database(&plain, "connect_plain");
    let directory = plain.dir().to_str().expect("a UTF-8 path").to_owned();
    // A socket has no TLS, whatever sslmode says, as with libpq.
    let output = Tap::new(&db).config("sslmode", "verify-full").config("host", directory).arg("--discover").output();
    output.expect_code(0);
}

#[test]
fn replication_needs_the_right_to_it() {
    let db = database(&server(), "connect_unprivileged");
    db.replicate("pgoutput");
    let tap = || tap(&db, "unprivileged").catalog(&server::catalog(&db));
    fails(&tap(), 1, &["ALTER ROLE", "REPLICATION"]);
    fails(&tap().config("wal_reader", "bulk"), 1, &["REPLICATION"]);
}

#[test]
fn wal_level_replica_is_told_or_fallen_back_from() {
    let cluster = Cluster::start("wal_level = replica");
    let db = database(&cluster, "connect_replica");
    fails(&Tap::new(&db).catalog(&server::catalog(&db)), 1, &["wal_level", "logical"]);
    fails(&Tap::new(&db).catalog(&server::catalog(&db)).config("create_replication_slot", true), 1, &["wal_level"]);

    let output = Tap::new(&db).config("create_replication_slot", true).run();
    for stream in ["public-copied", "public-streamed"] {
        assert_eq!(output.bookmark(stream)["last_replication_method"], "FULL_TABLE");
        assert_eq!(output.records(stream).len(), 1);
        let why = |line: &str| line.contains(stream) && line.contains("FULL_TABLE") && line.contains("wal_level");
        assert!(output.stderr.lines().any(why), "{}", output.stderr);
    }
}

#[test]
fn no_walsender_is_free() {
    let cluster = Cluster::start("max_wal_senders = 0");
    let db = database(&cluster, "connect_walsenders");
    db.replicate("pgoutput");
    let tap = Tap::new(&db).catalog(&server::catalog(&db));
    if !needs(11, "a bulk read") {
        return fails(&tap, 1, &["max_wal_senders"]);
    }
    // A copy can do without its slot, and a bulk read without a walsender.
    assert_eq!(tap.run().records("public-streamed").len(), 1);
    fails(&tap.config("wal_reader", "stream"), 1, &["max_wal_senders"]);
}

#[test]
fn no_level_of_logging_shows_a_secret() {
    let db = database(&server(), "connect_secrets");
    db.replicate("pgoutput");
    for level in ["debug", "trace", "DEBUG"] {
        for tap in [
            tap(&db, "scram").catalog(&server::catalog(&db)),
            tap(&db, "scram").config("password", json!(PASSWORD)).config("user", "md5user"),
            tap(&db, "scram").config("dbname", "nowhere"),
            tap(&db, "scram").without("password").env("PGPASSWORD", PASSWORD),
            tap(&db, "scram").config("port", "many"),
            tap(&db, "scram").arg("--discover"),
            tap(&db, "scram")
                .env("RUST_BACKTRACE", "full")
                .env("RUST_LOG", "trace")
                .env("TAP_POSTGRES_LOG_LEVEL", level),
        ] {
            let output = tap.env("LOG_LEVEL", level).output();
            let shown = format!("{}{}", output.stdout, output.stderr);
            assert!(!shown.contains("s3cr3t"), "{shown}");
        }
    }
    // Of a config that can't be read, too, and where a secret is of the wrong type.
    let broken = tap(&db, "scram");
    let path = broken.file("broken.json", r#"{"password": "s3cr3t" "host": 1}"#);
    let output = broken.arg("--config").arg(path).output().expect_code(2);
    assert!(!output.stderr.contains("s3cr3t"), "{}", output.stderr);
    let output = tap(&db, "scram").config("password", json!(["s3cr3t"])).output().expect_code(2);
    assert!(!output.stderr.contains("s3cr3t"), "{}", output.stderr);
}
