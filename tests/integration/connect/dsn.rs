//! A connection string or URI in place of the single keys.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::failures::fails;
use super::server::{PASSWORD, database, pem, reads, server, tap};
use crate::harness::{Tap, TestDb, needs};

/// A tap that has its connection from this alone.
fn by(key: &str, dsn: &str) -> Tap {
    Tap::bare().config(key, dsn).config("wal_reader", "stream").env("LOG_LEVEL", "trace")
}

fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

fn uri(db: &TestDb, user: &str, rest: &str) -> String {
    format!("postgresql://{user}:{}@localhost:{}/{}{rest}", encode(PASSWORD), db.cluster().port(), db.name())
}

fn keywords(db: &TestDb, user: &str, rest: &str) -> String {
    let password = PASSWORD.replace('\\', r"\\").replace('\'', r"\'");
    format!("host=localhost port={} dbname={} user={user} password='{password}' {rest}", db.cluster().port(), db.name())
}

#[test]
fn both_forms_reach_the_server() {
    let cluster = server();
    let db = database(&cluster, "dsn_forms");
    db.replicate("pgoutput");
    let ca = pem("ca.crt");
    reads(&db, true, || by("dsn", &uri(&db, "scram", "")));
    reads(&db, true, || by("dsn", &uri(&db, "md5user", &format!("?sslmode=verify-full&sslrootcert={}", encode(&ca)))));
    reads(&db, true, || by("dsn", &keywords(&db, "scram", &format!("sslmode=verify-full sslrootcert='{ca}'"))));
    let db = database(&cluster, "dsn_plain");
    db.replicate("pgoutput");
    reads(&db, false, || by("dsn", &keywords(&db, "clear", "sslmode=disable connect_timeout=5")));
}

#[test]
fn a_socket() {
    let cluster = server();
    let db = database(&cluster, "dsn_socket");
    db.replicate("pgoutput");
    let (dir, port, name) = (cluster.dir().to_str().expect("a UTF-8 path"), cluster.port(), db.name());
    reads(&db, false, || by("dsn", &format!("host={dir} port={port} dbname={name} user=postgres")));
    reads(&db, false, || by("dsn", &format!("postgresql://postgres@{}:{port}/{name}", encode(dir))));
    reads(&db, false, || by("dsn", &format!("postgresql:///{name}?user=postgres&host={dir}&port={port}")));
}

#[test]
fn sqlalchemys_form() {
    let db = database(&server(), "dsn_sqlalchemy");
    db.replicate("pgoutput");
    let url = uri(&db, "scram", "").replace("postgresql://", "postgresql+psycopg2://");
    // What stands beside it counts for nothing, as in the tap that it is from.
    reads(&db, true, || by("sqlalchemy_url", &url).config("port", 1).config("host", "nowhere.invalid"));
}

#[test]
fn a_single_key_beats_it() {
    let db = database(&server(), "dsn_single");
    db.replicate("pgoutput");
    let dsn = format!("postgresql://nobody:not-the-password@localhost:1/{}?sslmode=disable", db.name());
    let single = || by("dsn", &dsn).config("port", db.cluster().port()).config("user", "encrypted");
    reads(&db, true, || single().config("password", PASSWORD).config("ssl", "true"));
    fails(&single().config("password", PASSWORD), 1, &["pg_hba.conf", "sslmode"]);
    fails(&single().config("ssl", "true"), 1, &["authentication failed"]);
}

#[test]
fn passwords_from_elsewhere() {
    let db = database(&server(), "dsn_elsewhere");
    db.replicate("pgoutput");
    let (port, name) = (server().port(), db.name());
    let dsn = format!("postgresql://scram@localhost:{port}/{name}");
    fails(&by("dsn", &dsn), 1, &["PGPASSWORD"]);
    reads(&db, true, || by("dsn", &dsn).env("PGPASSWORD", PASSWORD));
    let escaped = PASSWORD.replace('\\', r"\\").replace(':', r"\:");
    reads(&db, true, || {
        let tap = by("dsn", &dsn);
        let path = tap.file(".pgpass", &format!("localhost:{port}:{name}:scram:{escaped}\n"));
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("set a file's mode");
        tap
    });
}

#[test]
fn what_is_wrong_is_told_without_it() {
    let db = database(&server(), "dsn_wrong");
    let secret = format!("postgresql://scram:{PASSWORD}@localhost");
    let key = r#"key "dsn""#;
    for (dsn, texts) in [
        (format!("{secret}/"), [r#"required key "dbname" is missing"#, ""]),
        ("host=localhost".to_owned(), [r#""user", "dbname" are missing"#, ""]),
        (format!("{secret}/d?passfile={PASSWORD}"), [key, r#""passfile" is not supported"#]),
        (format!("{secret}/d?sslmode={PASSWORD}"), [key, "sslmode"]),
        (format!("{secret}:{PASSWORD}/d"), [key, "port"]),
        (format!("user=scram password={PASSWORD}"), [key, "postgresql://"]),
        (PASSWORD.to_owned(), [key, "postgresql://"]),
    ] {
        fails(&by("dsn", &dsn), 2, &texts);
    }
    let output = by("dsn", &keywords(&db, "scram", "")).arg("--discover").output().expect_code(0);
    assert!(!output.stderr.contains("s3cr3t") && !output.stdout.contains("s3cr3t"), "{}", output.stderr);
}

#[test]
fn channel_binding_can_be_required() {
    if !needs(11, "channel binding") {
        return;
    }
    let db = database(&server(), "dsn_binding");
    db.replicate("pgoutput");
    reads(&db, true, || by("dsn", &uri(&db, "scram", "?sslmode=require&channel_binding=require")));
    for (user, sslmode) in [("scram", "disable"), ("md5user", "require")] {
        let required = || tap(&db, user).config("sslmode", sslmode).config("channel_binding", "require");
        fails(&required(), 1, &["channel binding"]);
        // Of several hosts one is chosen by a session of another kind.
        fails(&required().config("host", "localhost,127.0.0.1"), 1, &["`channel_binding` is require"]);
        required().config("channel_binding", "prefer").arg("--discover").output().expect_code(0);
    }
}
