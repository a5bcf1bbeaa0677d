//! A server that listens on loopback, with certificates and a pg_hba.conf for every way to log in.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use serde_json::json;

use crate::harness::{Catalog, Cluster, Tap, TestDb, release};

/// Of every role that has one; such characters as a connection string or a log would trip over.
pub(super) const PASSWORD: &str = r#"s3cr3t'pw% \é"#;

const HBA: &str = "
local all postgres trust
local all all scram-sha-256
hostssl all certified all cert
hostssl all encrypted all scram-sha-256
hostnossl all unencrypted all scram-sha-256
host all clear all password
host all md5user all md5
host all scram,unprivileged,limited all scram-sha-256
";

/// The server that the tests of this module share.
pub(super) fn server() -> Arc<Cluster> {
    static SERVER: OnceLock<Arc<Cluster>> = OnceLock::new();
    SERVER.get_or_init(start).clone()
}

fn start() -> Arc<Cluster> {
    let free = (5570..5580).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    let port = free.expect("a free port among 5570 to 5579");
    let settings = "listen_addresses = '127.0.0.1'\nlog_connections = on\nlog_line_prefix = '%u@%d '";
    let cluster = Cluster::start_on(port, settings);
    let tls = cluster.dir().join("tls");
    fs::create_dir(&tls).expect("make a directory for certificates");
    authority(&tls, "ca");
    authority(&tls, "other");
    certificate(&tls, "server", "DNS:localhost", &["-newkey", "rsa:2048"]);
    certificate(&tls, "certified", "DNS:certified", &["-newkey", "rsa:2048"]);
    expired(&tls, "expired", "DNS:localhost");
    signed(&tls, "other", "by_another", "DNS:certified", &["-newkey", "rsa:2048"]);
    // Its signature's hash is not SHA-256: channel binding takes the certificate's own.
    certificate(
        &tls,
        "sha384",
        "DNS:localhost",
        &["-sha384", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp384r1"],
    );
    let owner = fs::metadata(cluster.dir()).expect("the cluster's directory");
    for entry in fs::read_dir(&tls).expect("the directory of certificates").flatten() {
        fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o600)).expect("protect a key");
        chown(entry.path(), Some(owner.uid()), Some(owner.gid())).expect("give the server its key");
    }
    fs::write(cluster.dir().join("data/pg_hba.conf"), HBA).expect("write pg_hba.conf");
    present(&cluster, "server");
    let db = TestDb::on(&cluster, "roles");
    let password = PASSWORD.replace('\'', "''");
    db.psql(&format!(
        "alter system set ssl = on; alter system set ssl_ca_file = '{}';
         set password_encryption = 'md5'; create role md5user login replication password '{password}';
         set password_encryption = 'scram-sha-256';
         create role scram login replication password '{password}'; create role clear login replication password '{password}';
         create role encrypted login replication password '{password}';
         create role unencrypted login replication password '{password}';
         create role certified login replication; create role unprivileged login password '{password}';
         create role limited login password '{password}' connection limit 0;
         select pg_reload_conf();",
        tls.join("ca.crt").display()
    ));
    cluster
}

/// Has the server present this certificate from now on.
pub(super) fn present(cluster: &Arc<Cluster>, name: &str) {
    let tls = cluster.dir().join("tls");
    TestDb::on(cluster, "certificate").psql(&format!(
        "alter system set ssl_cert_file = '{0}.crt'; alter system set ssl_key_file = '{0}.key'; select pg_reload_conf();",
        tls.join(name).display()
    ));
}

/// A file with a certificate or key of the server's.
pub(super) fn pem(name: &str) -> String {
    let path = server().dir().join("tls").join(name);
    path.to_str().expect("a UTF-8 path").to_owned()
}

fn authority(dir: &Path, name: &str) {
    openssl(
        dir,
        &["req", "-new", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "2", "-subj", "/CN=authority"],
        name,
    );
}

fn certificate(dir: &Path, name: &str, host: &str, key: &[&str]) {
    signed(dir, "ca", name, host, key);
}

/// A certificate by this authority.
fn signed(dir: &Path, by: &str, name: &str, host: &str, key: &[&str]) {
    let (subject, extension) = (format!("/CN={name}"), format!("subjectAltName={host}"));
    let (authority, its_key) = (format!("{by}.crt"), format!("{by}.key"));
    let signed = ["-CA", &authority, "-CAkey", &its_key, "-days", "2", "-subj", &subject, "-addext", &extension];
    // Else the configuration's default makes it an authority's, which webpki does not take for a server's.
    let signed = [&signed[..], &["-addext", "basicConstraints=critical,CA:FALSE"]].concat();
    openssl(dir, &[&["req", "-new", "-x509", "-nodes"], key, &signed[..]].concat(), name);
}

/// One that expired yesterday.
fn expired(dir: &Path, name: &str, host: &str) {
    let (subject, request) = (format!("/CN={name}"), format!("{name}.crt"));
    openssl(dir, &["req", "-new", "-nodes", "-newkey", "rsa:2048", "-subj", &subject], name);
    let extensions = format!("{name}.cnf");
    let text = format!("subjectAltName={host}\nbasicConstraints=critical,CA:FALSE\n");
    fs::write(dir.join(&extensions), text).expect("write the extensions");
    let sign = ["x509", "-req", "-in", &request, "-CA", "ca.crt", "-CAkey", "ca.key", "-set_serial", "7"];
    run(dir, Command::new("openssl").args(sign).args(["-days", "-1", "-extfile", &extensions, "-out", &request]));
}

fn openssl(dir: &Path, args: &[&str], name: &str) {
    let file = |kind: &str| PathBuf::from(format!("{name}.{kind}"));
    run(dir, Command::new("openssl").args(args).arg("-keyout").arg(file("key")).arg("-out").arg(file("crt")));
}

fn run(dir: &Path, command: &mut Command) {
    let output = command.current_dir(dir).output().expect("run openssl");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A database with a table to copy and one whose log is read, open to all.
pub(super) fn database(cluster: &Arc<Cluster>, test: &str) -> TestDb {
    let db = TestDb::on(cluster, test);
    db.psql(
        "create table copied (id integer primary key); insert into copied values (1);
         create table streamed (id integer primary key); insert into streamed values (1);
         grant select on all tables in schema public to public",
    );
    db
}

/// A tap that logs in over TCP as this role.
pub(super) fn tap(db: &TestDb, user: &str) -> Tap {
    let tap = Tap::new(db).config("host", "localhost").config("user", user).config("password", PASSWORD);
    tap.config("wal_reader", "stream").env("LOG_LEVEL", "trace")
}

/// Both tables, one copied and one streamed: every kind of connection that the program makes.
pub(super) fn catalog(db: &TestDb) -> Catalog {
    Tap::new(db).discover().select("public-copied", "FULL_TABLE").select("public-streamed", "LOG_BASED")
}

/// Reads both tables, then a change, as this tap logs in. `encrypted` is how every one of its connections must be.
#[track_caller]
pub(super) fn reads(db: &TestDb, encrypted: bool, tap: impl Fn() -> Tap) {
    let catalog = catalog(db);
    db.psql("truncate streamed; insert into streamed values (1)");
    let first = tap().catalog(&catalog).run();
    assert_eq!((first.records("public-copied").len(), first.records("public-streamed").len()), (1, 1));
    db.psql("insert into streamed values (2)");
    let second = tap().catalog(&catalog).state(first.last_state()).run();
    assert_eq!(second.records("public-streamed")[0]["id"], json!(2));

    for output in [&first, &second] {
        assert!(!output.stderr.contains(PASSWORD), "{}", output.stderr);
    }
    let log = db.cluster().log();
    // Before 12 the log names no applications; psql logs in as postgres.
    let named = |line: &str| release() < 12 || line.contains("application_name=tap-postgres-rs");
    let ours = |line: &&str| line.contains(&format!("@{} ", db.name())) && named(line);
    let logins: Vec<&str> = log.lines().filter(|line| line.contains("connection authorized")).filter(ours).collect();
    for login in &logins {
        let socket = login.starts_with("postgres@");
        assert!(socket || login.contains("SSL enabled") == encrypted, "{login}");
    }
    for kind in [" LOG:  connection authorized", " LOG:  replication connection authorized"] {
        assert!(logins.iter().any(|line| line.contains(kind)), "no {kind} in\n{log}");
    }
}
