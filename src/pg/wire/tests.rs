//! Tests of logins, queries and copies against a server that sends a script, cut off anywhere.

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio_postgres::Config;

use super::Session;
use super::startup::start;
use crate::error::{Error, Result};
use crate::pg::ServerVersion;
use crate::pg::error::sqlstate;
use crate::pg::net::failure::Failure;
use crate::pg::net::stream::{Socket, Stream};

const LOGIN: &[&[u8]] = &[
    b"v\0\0\0\x0c\0\x03\0\0\0\0\0\0",
    b"R\0\0\0\x08\0\0\0\0",
    b"S\0\0\0\x19server_version\x0015.18\0",
    b"K\0\0\0\x0c\0\0\0\x07\0\0\0\x08",
    b"Z\0\0\0\x05I",
];
const COPY: &[&[u8]] = &[
    b"H\0\0\0\x07\0\0\0",
    b"d\0\0\0\x08one\n",
    b"N\0\0\0\x0bMwait\0\0",
    b"S\0\0\0\x11TimeZone\0UTC\0",
    b"d\0\0\0\x08two\n",
    b"c\0\0\0\x04",
    b"C\0\0\0\x0bCOPY 2\0",
    b"Z\0\0\0\x05I",
];

/// Logs in to a server that sends this script and closes the connection.
async fn session(script: &[u8]) -> Result<Session, Failure> {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(script).await.unwrap();
    theirs.shutdown().await.unwrap();
    let mut config = Config::new();
    let session = start(Stream::Plain(Socket::Unix(ours)), config.user("tap"), false).await;
    if session.is_ok() {
        tokio::spawn(async move { tokio::io::copy(&mut theirs, &mut tokio::io::sink()).await });
    }
    session
}

#[tokio::test]
async fn every_truncation_of_a_login_is_an_error() {
    let script = LOGIN.concat();
    let whole = session(&script).await.ok().unwrap();
    assert_eq!((whole.server_version(), whole.process_id()), (ServerVersion::parse("15.18"), 7));
    for end in 0..script.len() {
        assert!(matches!(session(&script[..end]).await, Err(Failure::Io(_))), "{end}");
    }
}

#[tokio::test]
async fn every_truncation_of_a_copy_is_an_error() {
    let (login, copy) = (LOGIN.concat(), COPY.concat());
    for end in 0..=copy.len() {
        let mut session = session(&[&login, &copy[..end]].concat()).await.ok().unwrap();
        let mut rows = Vec::new();
        let outcome = async {
            let mut copy = session.copy_out("COPY t TO STDOUT").await?;
            while let Some(row) = copy.next().await? {
                rows.push(row.to_vec());
            }
            Ok::<_, Error>(())
        };
        assert_eq!(outcome.await.is_ok(), end == copy.len(), "{end}");
        let all: [&[u8]; 2] = [b"one\n", b"two\n"];
        assert!(rows.len() == 2 || end < copy.len());
        assert_eq!(rows, all[..rows.len()]);
        assert!(rows.len() < 2 || session.parameter("TimeZone") == Some("UTC"));
    }
}

/// The server has sent an ErrorResponse, and sends ReadyForQuery only later.
#[tokio::test]
async fn an_error_is_not_lost_with_a_future_that_is_dropped() {
    let error: &[u8] = b"E\0\0\0\x1eVERROR\0C22P02\0Mbad value\0\0";
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(&[&LOGIN.concat(), COPY[0], COPY[1], error].concat()).await.unwrap();
    let mut session = start(Stream::Plain(Socket::Unix(ours)), Config::new().user("tap"), false).await.ok().unwrap();
    let mut copy = session.copy_out("COPY t TO STDOUT").await.unwrap();
    assert_eq!(copy.next().await.unwrap(), Some(&b"one\n"[..]));
    for _ in 0..2 {
        tokio::select! {
            biased;
            row = copy.next() => panic!("{row:?} before ReadyForQuery"),
            _ = tokio::task::yield_now() => {}
        }
    }
    theirs.write_all(b"Z\0\0\0\x05I").await.unwrap();
    assert_eq!(sqlstate(&copy.next().await.unwrap_err()), Some("22P02"));
}

#[tokio::test]
async fn a_copy_without_its_end_is_an_error() {
    let script = [&LOGIN.concat(), COPY[0], COPY[1], b"Z\0\0\0\x05I"].concat();
    let mut session = session(&script).await.ok().unwrap();
    let mut copy = session.copy_out("COPY t TO STDOUT").await.unwrap();
    assert!(copy.next().await.unwrap().is_some());
    assert!(copy.next().await.unwrap_err().to_string().contains("without its end"));
}

#[tokio::test]
async fn a_fatal_error_is_reported_and_ends_the_session() {
    let fatal = b"E\0\0\0\x1eVFATAL\0C57P01\0Mshut down\0\0";
    let mut session = session(&[&LOGIN.concat(), &fatal[..]].concat()).await.ok().unwrap();
    let error = session.query("SELECT 1").await.unwrap_err();
    assert_eq!(sqlstate(&error), Some("57P01"));
    assert_eq!(session.query("SELECT 1").await.unwrap_err().to_string(), "the connection broke earlier");
}
