//! Backpressure for an SSH connection: reading from the server stops while its channel is not read, and writing goes
//! on.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use russh::ChannelStream;
use russh::client::Msg;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// How many bytes of a channel may wait for its reader.
pub(super) const MOST_UNREAD: usize = 1024 * 1024;

/// The count of bytes that have come over the channel and are not read yet.
#[derive(Default)]
pub(super) struct Backlog {
    /// Below 0 where the reader takes bytes before they are counted.
    unread: AtomicIsize,
    gate: AtomicWaker,
}

impl Backlog {
    /// Counts bytes that have come.
    pub(super) fn came(&self, bytes: usize) {
        self.unread.fetch_add(bytes.cast_signed(), Ordering::SeqCst);
    }

    /// Counts bytes that have been read, and reopens the gate once there is room.
    fn was_read(&self, bytes: usize) {
        self.unread.fetch_sub(bytes.cast_signed(), Ordering::SeqCst);
        if !self.is_full() {
            self.gate.wake();
        }
    }

    fn is_full(&self) -> bool {
        self.unread.load(Ordering::SeqCst) >= MOST_UNREAD.cast_signed()
    }
}

/// The socket to the SSH server, from which nothing is read while the backlog is full: TCP's flow control then stops
/// the server.
pub(super) struct Gate {
    socket: TcpStream,
    backlog: Arc<Backlog>,
}

impl Gate {
    pub(super) fn new(socket: TcpStream, backlog: Arc<Backlog>) -> Gate {
        Gate { socket, backlog }
    }
}

impl AsyncRead for Gate {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.backlog.is_full() {
            self.backlog.gate.register(cx.waker());
            // It may have been read before the waker was there.
            if self.backlog.is_full() {
                return Poll::Pending;
            }
        }
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Gate {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// A connection to a database through an SSH server.
pub(crate) struct Tunneled {
    channel: ChannelStream<Msg>,
    backlog: Arc<Backlog>,
}

impl Tunneled {
    pub(super) fn new(channel: ChannelStream<Msg>, backlog: Arc<Backlog>) -> Tunneled {
        Tunneled { channel, backlog }
    }
}

impl AsyncRead for Tunneled {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        // The channel hands out one message at a time: take all that have come, as from a socket.
        loop {
            let filled = buf.filled().len();
            match Pin::new(&mut self.channel).poll_read(cx, buf)? {
                Poll::Ready(()) if buf.filled().len() > filled && buf.remaining() > 0 => {}
                Poll::Pending if filled == before => return Poll::Pending,
                _ => break,
            }
        }
        self.backlog.was_read(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunneled {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.channel).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.channel).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.channel).poll_shutdown(cx)
    }
}
