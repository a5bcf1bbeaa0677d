//! libpq's environment, and settings that are secret or hide something.

use serde_json::json;

use super::failures::fails;
use super::server::{database, pem, reads, server, tap};
use crate::harness::{Cluster, Tap, TestDb};

/// What the environment says counts where the config says nothing, and not where it does.
#[test]
fn counts_where_the_config_says_nothing() {
    let (disable, require) = (Some("disable"), Some("require"));
    for (config, environment, encrypted) in [
        (json!({}), Some("verify-full"), true),
        (json!({}), disable, false),
        (json!({"sslmode": "disable"}), require, false),
        (json!({"ssl": "true"}), disable, true),
        (json!({"ssl": "false"}), require, true),
    ] {
        let db = database(&server(), "environment_mode");
        db.replicate("pgoutput");
        reads(&db, encrypted, || {
            let tap = tap(&db, "scram").configs(&config).env("PGSSLROOTCERT", &pem("ca.crt"));
            environment.iter().fold(tap, |tap, mode| tap.env("PGSSLMODE", mode))
        });
    }
    let db = database(&server(), "environment_tls");
    db.replicate("pgoutput");
    let other = || tap(&db, "scram").env("PGSSLMODE", "verify-ca").env("PGSSLROOTCERT", &pem("other.crt"));
    fails(&other(), 1, &["certificate"]);
    fails(&tap(&db, "scram").env("PGSSLMODE", "sometimes"), 2, &["the environment", "PGSSLMODE"]);
    fails(&tap(&db, "scram").env("PGREQUIREAUTH", "scram-sha-256"), 2, &["PGREQUIREAUTH"]);
    fails(&tap(&db, "scram").env("PGSERVICE", "shop"), 2, &["PGSERVICE"]);
    // Where libpq looks for the authority that it verifies servers by.
    let home = |authority: &str| {
        let tap = tap(&db, "scram").config("sslmode", "require");
        std::fs::create_dir(tap.dir().join(".postgresql")).expect("make a directory");
        std::fs::copy(pem(authority), tap.dir().join(".postgresql/root.crt")).expect("copy a certificate");
        tap
    };
    reads(&db, true, || home("ca.crt"));
    fails(&home("other.crt"), 1, &["certificate"]);
}

/// A server without TLS is not read in the clear where the environment asks for TLS.
#[test]
fn tls_that_the_server_has_not() {
    let port =
        (5580..5590).find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port");
    let db = TestDb::on(&Cluster::start_on(port, "listen_addresses = '127.0.0.1'"), "environment_clear");
    db.psql("create table t (id integer primary key)");
    let tap = || Tap::new(&db).config("host", "127.0.0.1").config("default_replication_method", "FULL_TABLE");
    tap().run();
    fails(&tap().env("PGSSLMODE", "require"), 1, &["TLS"]);
    tap().env("PGSSLMODE", "require").config("sslmode", "prefer").run();
    // Host, port, user and database of a config that has none of them.
    let bare = |tap: Tap| tap.config("default_replication_method", "FULL_TABLE");
    let (port, name) = (port.to_string(), db.name().to_owned());
    let all = [("PGHOST", "127.0.0.1"), ("PGPORT", &port), ("PGUSER", "postgres"), ("PGDATABASE", &name)];
    bare(all.iter().fold(Tap::bare(), |tap, (variable, value)| tap.env(variable, value))).run();
}

/// The text of a key never shows, in whatever form it was pasted; a path that leads nowhere does.
#[test]
fn keys_in_another_form() {
    let db = TestDb::new("environment_keys");
    let with = |text: &str, level: &str| {
        let tap = || Tap::new(&db).config("host", "127.0.0.1").env("LOG_LEVEL", level).arg("--discover");
        let tls = tap().config("sslmode", "require").config("sslcert", pem("ca.crt")).config("sslkey", text);
        let tunnel = json!({"host": "127.0.0.1", "username": "x", "private_key": text});
        [(tls, "sslkey"), (tap().config("ssh_tunnel", tunnel), "ssh_tunnel.private_key")]
    };
    let key = "MIIEexampleexampleexampleexampleexampleexampleexampleexample";
    for text in
        [key.to_owned(), format!("{key}\n{key}/{key}+{key}=="), format!("b3Bl/{key}"), "hunterMIIEexam".to_owned()]
    {
        for level in ["info", "debug"] {
            for (tap, setting) in with(&text, level) {
                let output = tap.output().expect_code(2);
                assert!(output.stderr.contains(setting), "{}", output.stderr);
                assert!(!output.stderr.contains("MIIEexam") && !output.stderr.contains("b3Bl"), "{}", output.stderr);
            }
        }
    }
    for path in ["/nowhere/tap.key", "nowhere.pem", "./secrets/key"] {
        for (tap, setting) in with(path, "info") {
            fails(&tap, 2, &[setting, path]);
        }
    }
}

/// What would hide data in another tap is refused, rather than left out.
#[test]
fn stream_maps() {
    let db = TestDb::new("environment_maps");
    db.psql("create table t (id integer primary key, email text)");
    let tap = || Tap::new(&db).config("default_replication_method", "FULL_TABLE");
    fails(
        &tap().config("stream_maps", json!({"public-t": {"email": null}})),
        2,
        &["stream_maps", "changes no records"],
    );
    tap().config("stream_maps", json!({})).config("flattening_enabled", false).run();
}
