//! What a server says, byte for byte.

use std::io::Write;
use std::os::unix::net::UnixStream;

use tokio::io::AsyncReadExt;
use tokio_postgres::Config;

use crate::error::Result;
use crate::pg::net::stream::{Socket, Stream};
use crate::pg::wire::frame::Frames;
use crate::pg::wire::{Session, startup};

/// Reads messages, which come out the same whether they arrive at once or byte by byte, and are the bytes that went in.
pub fn frames(data: &[u8]) {
    let runtime = runtime();
    let at_once = runtime.block_on(take(data, data.len()));
    assert_eq!(at_once, runtime.block_on(take(data, 1)));
    assert!(data.starts_with(&at_once));
}

/// Reads the messages of this stream, and returns them written again.
async fn take(data: &[u8], chunk: usize) -> Vec<u8> {
    let (mut sender, mut receiver) = tokio::io::duplex(chunk.max(1));
    let send = async move {
        let _ = tokio::io::AsyncWriteExt::write_all(&mut sender, data).await;
    };
    let receive = async {
        let mut frames = Frames::new();
        let mut written = Vec::new();
        while let Ok(frame) = frames.next(&mut receiver).await {
            let body = frames.body(&frame);
            written.push(frame.tag);
            written.extend((body.len() as u32 + 4).to_be_bytes());
            written.extend(body);
        }
        // The sender does not wait for a reader that found something wrong.
        let _ = receiver.read_to_end(&mut Vec::new()).await;
        written
    };
    tokio::join!(send, receive).1
}

/// Runs a login, then what every kind of session does, against a server that sends these bytes, whatever it is asked,
/// and hangs up.
pub fn login(data: &[u8]) {
    // A socket takes no more without a reader.
    if data.len() > 32 * 1024 {
        return;
    }
    let Some((&first, script)) = data.split_first() else { return };
    runtime().block_on(async {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair of sockets");
        theirs.write_all(script).expect("a socket takes this much");
        theirs.shutdown(std::net::Shutdown::Write).expect("the socket is open");
        ours.set_nonblocking(true).expect("the socket is open");
        let ours = tokio::net::UnixStream::from_std(ours).expect("the socket is open");
        let mut config = Config::new();
        config.user("tap").password("hunter2").dbname("shop");
        let shown = match startup::start(Stream::Plain(Socket::Unix(ours)), &config, first & 1 == 1).await {
            Ok(session) => converse(session, first).await.err().map(|error| error.to_string()),
            Err(failure) => Some(format!("{failure:?}")),
        };
        let told_itself = memchr::memmem::find(script, b"hunter2").is_some();
        assert!(told_itself || shown.is_none_or(|shown| !shown.contains("hunter2")));
    });
}

async fn converse(mut session: Session, first: u8) -> Result<()> {
    match first >> 1 & 3 {
        0 => {
            session.query("SELECT 1").await?;
            session.query("SELECT 2").await?;
        }
        1 => {
            let mut copy = session.copy_out("COPY t TO STDOUT").await?;
            while copy.next().await?.is_some() {}
            session.query("SELECT 1").await?;
        }
        _ => {
            let (mut reader, writer) = session.start_replication("START_REPLICATION").await?;
            while reader.next().await?.is_some() {}
            reader.close(writer).await?;
        }
    }
    Ok(())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}
