//! Logging in: every method and sslmode, through every kind of connection, and what a failure says.

mod dsn;
mod environment;
mod failures;
mod hosts;
mod pooler;
mod relay;
mod server;
mod sshd;
mod tunnel;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::harness::{Tap, needs};
use server::{PASSWORD, database, pem, present, reads, server, tap};

#[test]
fn passwords_in_every_form() {
    let cluster = server();
    for user in ["scram", "md5user", "clear"] {
        for (sslmode, encrypted) in [("disable", false), ("prefer", true), ("require", true)] {
            let db = database(&cluster, &format!("connect_{user}"));
            db.replicate("pgoutput");
            reads(&db, encrypted, || tap(&db, user).config("sslmode", sslmode));
        }
    }
    // A role that has no password needs none.
    let db = database(&cluster, "connect_socket");
    db.replicate("pgoutput");
    let directory = cluster.dir().to_str().expect("a UTF-8 path");
    reads(&db, false, || tap(&db, "scram").config("host", directory).config("sslmode", "verify-full"));
    reads(&db, false, || tap(&db, "postgres").config("host", directory).without("password"));
}

/// `--test` says what was agreed on.
#[test]
fn a_test_tells_of_tls() {
    let db = database(&server(), "connect_tested");
    for (user, sslmode, said) in [
        ("encrypted", "prefer", "level=INFO message=ok: the connection is encrypted: TLS 1.3"),
        ("encrypted", "require", "level=INFO message=ok: the connection is encrypted: TLS 1.3"),
        ("unencrypted", "prefer", "level=WARNING message=warning: the connection is not encrypted, because"),
        ("unencrypted", "disable", "level=INFO message=ok: the connection is not encrypted"),
    ] {
        let output = tap(&db, user).config("sslmode", sslmode).config("default_replication_method", "FULL_TABLE");
        let output = output.arg("--test").output().expect_code(0).parsed();
        assert_eq!((output.logged(said), output.logged("PostgreSQL")), (1, 1), "{}", output.stderr);
        assert!(!output.stderr.contains(PASSWORD), "{}", output.stderr);
        assert_eq!(output.record_messages().count(), 2);
    }
}

#[test]
fn the_references_ssl_key() {
    let db = database(&server(), "connect_ssl");
    db.replicate("pgoutput");
    reads(&db, true, || tap(&db, "encrypted").config("ssl", "true"));
    let db = database(&server(), "connect_sslmode");
    db.replicate("pgoutput");
    reads(&db, false, || tap(&db, "unencrypted").config("ssl", "true").config("sslmode", "disable"));
}

#[test]
fn prefer_takes_what_the_server_allows() {
    for (user, encrypted) in [("encrypted", true), ("unencrypted", false)] {
        let db = database(&server(), "connect_prefer");
        db.replicate("pgoutput");
        reads(&db, encrypted, || tap(&db, user));
    }
}

#[test]
fn certificates_are_verified() {
    let db = database(&server(), "connect_verify");
    db.replicate("pgoutput");
    for sslmode in ["require", "verify-ca", "verify-full"] {
        reads(&db, true, || tap(&db, "scram").config("sslmode", sslmode).config("sslrootcert", pem("ca.crt")));
    }
    // verify-ca does not look at the name; MeltanoLabs' keys and PEM text do the same.
    let text = fs::read_to_string(pem("ca.crt")).expect("read the authority's certificate");
    reads(&db, true, || {
        tap(&db, "scram")
            .config("host", "127.0.0.1")
            .config("ssl_mode", "verify-ca")
            .config("ssl_certificate_authority", text.as_str())
    });

    for (host, sslmode, root, said) in [
        ("127.0.0.1", "verify-full", "ca.crt", "subjectAltName"),
        ("localhost", "verify-full", "other.crt", "sslrootcert"),
        ("localhost", "verify-ca", "other.crt", "sslrootcert"),
        ("localhost", "require", "other.crt", "sslrootcert"),
    ] {
        let tap = tap(&db, "scram").config("host", host).config("sslmode", sslmode).config("sslrootcert", pem(root));
        failures::fails(&tap, 1, &[said]);
    }
    for (key, file) in [("sslrootcert", "/nonexistent"), ("sslrootcert", &pem("ca.key"))] {
        failures::fails(&tap(&db, "scram").config("sslmode", "verify-ca").config(key, file), 2, &[key]);
    }
}

#[test]
fn client_certificates() {
    let db = database(&server(), "connect_client");
    db.replicate("pgoutput");
    let certified = || tap(&db, "certified").without("password").config("sslmode", "require");
    reads(&db, true, || certified().config("sslcert", pem("certified.crt")).config("sslkey", pem("certified.key")));
    let text = |name: &str| fs::read_to_string(pem(name)).expect("read a certificate or key");
    let with_text = || {
        certified()
            .config("ssl_client_certificate", text("certified.crt"))
            .config("ssl_client_private_key", text("certified.key"))
    };
    reads(&db, true, with_text);
    // Nor does the key that stands in the config show up in the log.
    let output = with_text().config("dbname", "nowhere").output();
    for line in text("certified.key").lines() {
        assert!(!output.stderr.contains(line), "{}", output.stderr);
    }

    failures::fails(&certified(), 1, &["sslcert"]);
    failures::fails(&certified().config("sslcert", pem("certified.crt")), 2, &["sslkey"]);
    // Signed by the right authority, but for another role.
    let other = certified().config("sslcert", pem("server.crt")).config("sslkey", pem("server.key"));
    failures::fails(&other, 1, &["certified"]);
    // For the right role, but by an authority that the server does not know.
    let other = certified().config("sslcert", pem("by_another.crt"));
    failures::fails(&other.config("sslkey", pem("by_another.key")), 1, &["sslcert", "ssl_ca_file"]);
    let expired = certified().config("sslcert", pem("expired.crt")).config("sslkey", pem("expired.key"));
    failures::fails(&expired, 1, &["sslcert", "run out"]);
}

#[test]
fn an_expired_certificate() {
    let cluster = server();
    let db = database(&cluster, "connect_expired");
    let relay = relay::start(cluster.port(), &pem("expired.crt"), &pem("expired.key"));
    let tap = |sslmode: &str, user: &str| tap(&db, user).config("sslmode", sslmode).config("port", relay.port());
    for sslmode in ["require", "verify-ca", "verify-full"] {
        let tap = tap(sslmode, "md5user").config("sslrootcert", pem("ca.crt"));
        failures::fails(&tap, 1, &["expired", "renewed"]);
    }
    // Without an authority nobody asks; libpq does not either.
    tap("require", "md5user").arg("--discover").output().expect_code(0);
}

/// Somebody in the middle who takes the binding away from what the server offers is noticed by the server; even one who
/// has its key, so that the connections before come through.
#[test]
fn channel_binding_cannot_be_taken_away() {
    let cluster = server();
    let db = database(&cluster, "connect_downgrade");
    let catalog = server::catalog(&db).select("public-streamed", "FULL_TABLE");
    for (certificate, after) in [("sha384", 0), ("server", 1)] {
        let (certificate, key) = (pem(&format!("{certificate}.crt")), pem(&format!("{certificate}.key")));
        let relay = relay::start_downgrading(cluster.port(), &certificate, &key, after);
        let tap = tap(&db, "scram").config("sslmode", "require").config("port", relay.port()).catalog(&catalog);
        failures::fails(&tap, 1, &["channel binding", "something between here and the server"]);
    }
}

#[test]
fn passwords_from_elsewhere() {
    let db = database(&server(), "connect_elsewhere");
    db.replicate("pgoutput");
    let without = || tap(&db, "scram").without("password");
    reads(&db, true, || without().env("PGPASSWORD", PASSWORD));
    reads(&db, true, || tap(&db, "scram").env("PGPASSWORD", "of another"));

    let escaped = PASSWORD.replace('\\', r"\\").replace(':', r"\:");
    let port = server().port();
    let lines = format!("# ours\nlocalhost:{port}:another:scram:wrong\nlocalhost:*:{}:scram:{escaped}\n", db.name());
    let with_file = |tap: Tap, name: &str, mode: u32| {
        let path = tap.file(name, &lines);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set a file's mode");
        (path.to_str().expect("a UTF-8 path").to_owned(), tap)
    };
    reads(&db, true, || with_file(without(), ".pgpass", 0o600).1);
    reads(&db, true, || {
        let (path, tap) = with_file(without(), "passwords", 0o600);
        tap.env("PGPASSFILE", &path)
    });
    // libpq ignores one that others can read.
    failures::fails(&with_file(without(), ".pgpass", 0o644).1, 1, &["password"]);
}

#[test]
fn channel_binding() {
    if !needs(11, "channel binding") {
        return;
    }
    let cluster = server();
    let db = database(&cluster, "connect_binding");
    db.replicate("pgoutput");
    // Somebody who decrypts and encrypts again has another certificate, which the server notices.
    let relay = relay::start(cluster.port(), &pem("sha384.crt"), &pem("sha384.key"));
    let relayed = |user: &str| tap(&db, user).config("sslmode", "require").config("port", relay.port());
    failures::fails(&relayed("scram"), 1, &["channel binding"]);
    // Other methods can't.
    relayed("md5user").arg("--discover").output().expect_code(0);

    present(&cluster, "sha384");
    reads(&db, true, || tap(&db, "scram").config("sslmode", "verify-full").config("sslrootcert", pem("ca.crt")));
    present(&cluster, "server");
}

#[test]
fn the_secondary_is_logged_in_to_as_the_primary() {
    let db = database(&server(), "connect_secondary");
    let config =
        json!({"use_secondary": true, "secondary_host": "localhost", "secondary_port": server().port(), "port": 1});
    let output =
        tap(&db, "scram").configs(&config).catalog(&server::catalog(&db).select("public-streamed", "FULL_TABLE")).run();
    assert_eq!(output.records("public-copied").len(), 1);
}
