//! Poolers and proxies that an ordinary session passes through, and a walsender does not.

use std::io::{Read, Write, copy};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::thread;

use super::failures::fails;
use crate::harness::listener::Listener;
use crate::harness::{Cluster, Tap, TestDb};
use crate::log_based::select;

/// Passes everything on but the parameter `replication` of the startup message.
fn without_replication(mut client: TcpStream, cluster: &Cluster) -> std::io::Result<()> {
    let mut server = UnixStream::connect(cluster.socket())?;
    let mut length = [0; 4];
    client.read_exact(&mut length)?;
    let mut startup = vec![0; u32::from_be_bytes(length) as usize - 4];
    client.read_exact(&mut startup)?;
    let wanted = b"replication\0database\0";
    if let Some(at) = startup.windows(wanted.len()).position(|bytes| bytes == wanted) {
        startup.drain(at..at + wanted.len());
    }
    server.write_all(&u32::try_from(startup.len() + 4).expect("a short message").to_be_bytes())?;
    server.write_all(&startup)?;
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || copy(&mut from_client, &mut to_server));
    copy(&mut server, &mut client).map(|_| ())
}

/// What takes no notice of `replication` is named, by a run and by `--test`; tables can be read through it.
#[test]
fn one_that_swallows_replication() {
    let db = TestDb::new("pooler_replication");
    db.psql("create table item (id integer primary key); insert into item values (1)");
    db.replicate("pgoutput");
    let cluster = db.cluster().clone();
    let proxy = Listener::start(move |client| {
        let cluster = cluster.clone();
        thread::spawn(move || without_replication(client, &cluster));
    });
    let catalog = Tap::new(&db).discover();
    let tap = || Tap::new(&db).config("host", "127.0.0.1").config("port", proxy.port()).config("sslmode", "disable");
    let log_based = || tap().catalog(&select(catalog.clone(), &["item"])).config("wal_reader", "stream");
    let said = ["does not pass on that replication is asked for", "`host`"];
    let state = Tap::new(&db).catalog(&select(catalog.clone(), &["item"])).run().last_state().clone();
    fails(&log_based().state(&state), 1, &said);
    let checked = log_based().state(&state).arg("--test").output().expect_code(1);
    assert!(said.iter().all(|text| checked.stderr.contains(text)), "{}", checked.stderr);
    let full = tap().catalog(&catalog.clone().select("public-item", "FULL_TABLE")).run();
    assert_eq!(full.records("public-item").len(), 1);
}
