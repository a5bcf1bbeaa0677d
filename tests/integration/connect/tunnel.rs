//! Through an SSH server, a real one.

use std::time::Duration;

use serde_json::json;

use super::failures::fails;
use super::server::{self, PASSWORD, database, pem, reads, server, tap};
use super::sshd::{PASSPHRASE, Sshd};
use crate::harness::peak::watch;
use crate::harness::tap::gather;
use crate::harness::{Catalog, Cluster, Tap, TestDb};

/// How often the tap has asked the server to let it in.
fn logins(db: &TestDb) -> usize {
    let asked = |line: &&str| line.contains(&format!("@{} ", db.name())) && line.contains("connection authorized");
    db.cluster().log().lines().filter(asked).filter(|line| !line.starts_with("postgres@")).count()
}

/// With the object that other taps have in place of single keys.
fn nested(sshd: &Sshd, tap: Tap) -> Tap {
    tap.config(
        "ssh_tunnel",
        json!({
            "enable": true, "host": "127.0.0.1", "port": sshd.port().to_string(), "username": sshd.user(),
            "private_key": sshd.text("encrypted"), "private_key_password": PASSPHRASE, "host_key": sshd.text("host.pub")
        }),
    )
}

#[test]
fn every_connection_goes_through_it() {
    let cluster = server();
    let sshd = Sshd::start(&cluster, "");
    let db = database(&cluster, "ssh_through");
    db.replicate("pgoutput");
    reads(&db, true, || {
        sshd.lead(tap(&db, "scram")).config("sslmode", "verify-full").config("sslrootcert", pem("ca.crt"))
    });
    assert_eq!(sshd.tunnels(), logins(&db), "{}", cluster.log());
    let before = sshd.tunnels();
    reads(&db, true, || nested(&sshd, tap(&db, "scram")));
    assert!(sshd.tunnels() > before);
    let db = database(&cluster, "ssh_socket");
    db.replicate("pgoutput");
    let before = sshd.tunnels();
    let directory = cluster.dir().to_str().expect("a UTF-8 path");
    reads(&db, false, || sshd.lead(tap(&db, "scram")).config("host", directory));
    assert_eq!(sshd.tunnels() - before, logins(&db));
    // The secondary's, too.
    let db = database(&cluster, "ssh_secondary");
    let catalog = server::catalog(&db).select("public-streamed", "FULL_TABLE");
    let secondary = json!({"use_secondary": true, "secondary_host": "localhost", "secondary_port": cluster.port()});
    let before = sshd.tunnels();
    sshd.lead(tap(&db, "scram")).config("port", 1).configs(&secondary).catalog(&catalog).run();
    assert_eq!(sshd.tunnels() - before, logins(&db));
}

#[test]
fn the_ssh_server_resolves_the_name() {
    let cluster = server();
    let sshd = Sshd::start(&cluster, "");
    let db = database(&cluster, "ssh_names");
    let through = |host: &str, port: u16| sshd.lead(tap(&db, "scram")).config("host", host).config("port", port);
    through("localhost", cluster.port()).arg("--discover").output().expect_code(0);
    let by = format!("the SSH server 127.0.0.1:{} cannot connect to it", sshd.port());
    fails(&through("no-such-host.invalid", cluster.port()), 1, &["cannot connect to no-such-host.invalid:", &by]);
    // One of several that is there.
    let hosts = through("no-such-host.invalid,localhost", cluster.port());
    hosts.arg("--discover").output().expect_code(0);
}

#[test]
fn it_can_be_left_out() {
    let cluster = server();
    let sshd = Sshd::start(&cluster, "");
    let db = database(&cluster, "ssh_off");
    let off = sshd.lead(tap(&db, "scram")).config("ssh_tunnel.enable", "false");
    off.arg("--discover").output().expect_code(0);
    assert_eq!(sshd.tunnels(), 0);
    let lacking = sshd.lead(tap(&db, "scram")).without("ssh_tunnel.username");
    fails(&lacking, 2, &["required key \"ssh_tunnel.username\" is missing"]);
    fails(&tap(&db, "scram").config("ssh_tunnel", "yes"), 2, &["\"ssh_tunnel\"", "expected an object"]);
}

#[test]
fn keys_of_every_kind() {
    let cluster = server();
    let sshd = Sshd::start(&cluster, "");
    let db = database(&cluster, "ssh_keys");
    let with = |key: &str| sshd.lead(tap(&db, "scram")).config("ssh_tunnel.private_key", key).arg("--discover");
    for key in ["user", "ecdsa", "rsa", "rsa_pem", "rsa_pkcs8"] {
        with(&sshd.file(key)).output().expect_code(0);
        with(&sshd.text(key)).output().expect_code(0);
        with(&sshd.text(key).replace('\n', "\\n")).output().expect_code(0);
    }
    for key in ["encrypted", "rsa_encrypted"] {
        let with = with(&sshd.file(key)).config("ssh_tunnel.private_key_passphrase", PASSPHRASE);
        with.output().expect_code(0);
    }
    let encrypted = || with(&sshd.file("encrypted"));
    let wrong = encrypted().config("ssh_tunnel.private_key_passphrase", "not-the-password");
    fails(&wrong, 2, &["ssh_tunnel.private_key", "is `ssh_tunnel.private_key_passphrase` right?"]);
    fails(&encrypted(), 2, &["ssh_tunnel.private_key", "encrypted", "set `ssh_tunnel.private_key_passphrase`"]);
    fails(&with("/nonexistent"), 2, &["cannot read ssh_tunnel.private_key", "/nonexistent"]);
    fails(&with(&sshd.file("user.pub")), 2, &["ssh_tunnel.private_key"]);
    let refused = format!("refuses the key of the user `{}`", sshd.user());
    fails(&with(&sshd.file("stranger")), 1, &[&refused, "authorized_keys"]);
    // No level of logging shows one.
    for key in ["user", "encrypted", "stranger"] {
        let tap =
            with(&sshd.text(key)).config("ssh_tunnel.private_key_passphrase", PASSPHRASE).env("RUST_LOG", "trace");
        let output = tap.output();
        for line in sshd.text(key).lines().chain([PASSPHRASE, PASSWORD]) {
            assert!(!output.stderr.contains(line), "{}", output.stderr);
        }
    }
}

#[test]
fn the_host_key_is_checked() {
    let cluster = server();
    let sshd = Sshd::start(&cluster, "");
    let db = database(&cluster, "ssh_host_key");
    let by_file = || sshd.lead(tap(&db, "scram")).without("ssh_tunnel.host_key").arg("--discover");
    let known = |tap: Tap, name: &str, key: &str| {
        let path = tap.file("hosts", &format!("# known\nother ssh-ed25519 AAAA\n{name} {}", sshd.text(key)));
        tap.config("ssh_tunnel.known_hosts", path.to_str().expect("a UTF-8 path"))
    };
    let name = format!("[127.0.0.1]:{}", sshd.port());
    for key in ["host.pub", "ecdsa_host.pub"] {
        known(by_file(), &name, key).output().expect_code(0);
        by_file().config("ssh_tunnel.host_key", sshd.text(key)).output().expect_code(0);
        // As ssh-keyscan prints it.
        by_file().config("ssh_tunnel.host_key", format!("{name} {}", sshd.text(key))).output().expect_code(0);
    }
    // Where ssh itself looks.
    let tap = by_file();
    std::fs::create_dir(tap.dir().join(".ssh")).expect("make a directory");
    tap.file(".ssh/known_hosts", &format!("{name} {}", sshd.text("host.pub")));
    tap.output().expect_code(0);

    let fingerprint = std::process::Command::new("ssh-keygen").args(["-l", "-f", &sshd.file("host.pub")]).output();
    let fingerprint = String::from_utf8(fingerprint.expect("run ssh-keygen").stdout).expect("UTF-8");
    let fingerprint = fingerprint.split(' ').nth(1).expect("a fingerprint");
    let public = sshd.text("host.pub");
    let public = public.split(' ').nth(1).expect("a public key");
    fails(&by_file(), 1, &["is not known", fingerprint, public, &name, ".ssh/known_hosts", "ssh_tunnel.host_key"]);
    fails(&known(by_file(), "[127.0.0.1]:1", "host.pub"), 1, &["is not known", fingerprint]);
    fails(&known(by_file(), &name, "user.pub"), 1, &["is not the one that is known", fingerprint, "in between"]);
    let other = by_file().config("ssh_tunnel.host_key", sshd.text("user.pub"));
    fails(&other, 1, &["is not the one that is known", fingerprint, "in between"]);
    fails(&by_file().config("ssh_tunnel.host_key", "no key"), 2, &["`ssh_tunnel.host_key` is no public key"]);
    fails(&by_file().config("ssh_tunnel.known_hosts", "/nonexistent"), 2, &["known hosts in /nonexistent"]);
    assert_eq!(sshd.text("log").matches("Accepted publickey").count(), 7, "let in with another key than the known");
}

#[test]
fn an_ssh_server_that_refuses() {
    let cluster = server();
    let db = database(&cluster, "ssh_refuses");
    let sshd = Sshd::start(&cluster, "AllowTcpForwarding no");
    fails(&sshd.lead(tap(&db, "scram")), 1, &["does not allow it", "AllowTcpForwarding"]);
    let nobody = sshd.lead(tap(&db, "scram")).config("ssh_tunnel.port", 1);
    fails(&nobody, 1, &["the SSH server 127.0.0.1:1", "ssh_tunnel.port"]);
    let unresolved = sshd.lead(tap(&db, "scram")).config("ssh_tunnel.host", "no-such-host.invalid");
    fails(
        &unresolved.config("ssh_tunnel.host_key", sshd.text("host.pub")),
        1,
        &["no-such-host.invalid", "ssh_tunnel.host"],
    );
}

/// A table whose copy is larger than all the buffers on the way, and one whose log is.
fn large(cluster: &std::sync::Arc<Cluster>, test: &str) -> (TestDb, Catalog) {
    let db = database(cluster, test);
    db.replicate("pgoutput");
    let catalog = server::catalog(&db);
    (db, catalog)
}

const FILL: &str = "select i, repeat('x', 500) from generate_series(2, 60000) i";

#[test]
fn a_tunnel_that_breaks_is_a_lost_server() {
    let cluster = server();
    let sshd = Sshd::start(&cluster, "");
    let (db, catalog) = large(&cluster, "ssh_breaks");
    db.psql(&format!("alter table copied add filler text; insert into copied {FILL}"));
    let tap = || sshd.lead(tap(&db, "scram")).catalog(&catalog);
    let mut running = tap().spawn();
    running.wait_for(Duration::from_secs(30), |m| m.stream() == Some("public-copied") && m.as_record().is_some());
    sshd.cut();
    let output = running.finish().expect_code(1);
    let errors: Vec<&str> = output.stderr.lines().filter(|line| line.contains("level=ERROR")).collect();
    assert!(errors.len() == 1 && errors[0].contains("run again"), "{}", output.stderr);
    assert_eq!(tap().run().records("public-copied").len(), 60_000);
}

/// The stream of changes waits while a value is looked up by another connection, and the server while the target waits.
#[test]
fn a_stream_that_waits_holds_up_no_other() {
    let cluster = server();
    let sshd = Sshd::start(&cluster, "");
    let (db, catalog) = large(&cluster, "ssh_waits");
    db.psql(
        "alter table streamed add filler text, add large text; alter table streamed alter large set storage external",
    );
    let tap = || sshd.lead(tap(&db, "scram")).catalog(&catalog);
    let state = tap().run().last_state().clone();
    db.psql("insert into streamed select i, '', repeat('y', 5000) from generate_series(2, 3000) i");
    // Each change leaves the large value to be looked up.
    db.psql("update streamed set filler = repeat('x', 10000) where id > 1");
    let output = tap().state(&state).run();
    let records = output.records("public-streamed");
    assert_eq!(records.len(), 2 * 2999);
    assert!(records.iter().all(|record| record["large"].as_str().is_some_and(|value| value.len() == 5000)));
}

/// The walsender hears of the tap meanwhile, as it does without a tunnel, and nobody holds what it could send.
#[test]
fn a_target_that_stops_for_longer_than_the_server_waits() {
    let cluster = Cluster::start("wal_sender_timeout = '2s'");
    let sshd = Sshd::start(&cluster, "");
    let (db, catalog) = large(&cluster, "ssh_stops");
    db.psql("alter table streamed add filler text");
    let tap = || sshd.lead(Tap::new(&db)).config("wal_reader", "stream").catalog(&catalog);
    let state = tap().run().last_state().clone();
    db.psql("insert into streamed select i, repeat('x', 500) from generate_series(2, 200000) i");
    let tap = tap().state(&state);
    let mut child = tap.command().spawn().expect("run the tap");
    let peak = watch(&child);
    db.wait_until(
        "exists (select from pg_stat_activity where datname = current_database() \
         and wait_event in ('ClientWrite', 'WalSenderWriteData'))",
    );
    // Whether it is still there after three times that is what this is about.
    std::thread::sleep(Duration::from_secs(6));
    let stdout = gather(child.stdout.take().expect("a piped stdout"));
    let stderr = gather(child.stderr.take().expect("a piped stderr"));
    let peak = peak.join().expect("the thread that watches the tap");
    let status = child.wait().expect("wait for the tap");
    let stderr = stderr.join().expect("the thread that reads stderr");
    assert!(status.success(), "{status}; stderr:\n{stderr}");
    let records = stdout.join().expect("the thread that reads stdout").matches("\"type\":\"RECORD\"").count();
    // One of them copied.
    assert_eq!(records, 200_000);
    assert!(peak < 64 << 20, "held {} MB of 100", peak >> 20);
}
