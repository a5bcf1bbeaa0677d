//! Limits on what the server sends to tokio-postgres, which itself accepts any message length, any number of messages
//! during login, and any number of SCRAM iterations.

use std::convert::Infallible;
use std::future::{self, Ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use super::frame::total_length;
use super::startup::{MOST_MESSAGES, check_iterations};
use crate::pg::net::stream::Stream;

/// The longest message. Queries through tokio-postgres read names and positions: rows of tables come through a
/// [`Session`](super::Session).
const LONGEST: usize = 16 * 1024 * 1024;
const HEADER: usize = 5;
/// AuthenticationSASLContinue
const SASL_CONTINUE: [u8; 4] = [0, 0, 0, 11];

/// A stream whose messages are checked as they pass.
pub(crate) struct Guarded {
    stream: Stream,
    check: Check,
}

impl Guarded {
    pub(crate) fn new(stream: Stream) -> Guarded {
        Guarded { stream, check: Check { message: Vec::new(), left: 0, before_ready: 0, logged_in: false } }
    }
}

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        Poll::Ready(self.check.pass(&buf.filled()[before..]))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl TlsStream for Guarded {
    fn channel_binding(&self) -> ChannelBinding {
        self.stream.tls_server_end_point().map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

/// A connector that hands tokio-postgres a [`Guarded`] stream as it is: TLS was negotiated when it was opened.
pub(crate) struct Established;

impl TlsConnect<Guarded> for Established {
    type Stream = Guarded;
    type Error = Infallible;
    type Future = Ready<Result<Guarded, Infallible>>;

    fn connect(self, stream: Guarded) -> Self::Future {
        future::ready(Ok(stream))
    }
}

/// The parser state: the position of the stream within the messages.
struct Check {
    /// The header of the current message, as far as it has come; of an authentication request, the body as well.
    message: Vec<u8>,
    /// The number of bytes of the body that are still to come.
    left: usize,
    /// The number of messages before the first ReadyForQuery.
    before_ready: u32,
    logged_in: bool,
}

impl Check {
    /// Checks the next bytes of the stream.
    fn pass(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let wanted = if self.left > 0 { self.left } else { HEADER - self.message.len() };
            let (taken, rest) = bytes.split_at(wanted.min(bytes.len()));
            bytes = rest;
            if self.left == 0 || self.message[0] == b'R' {
                self.message.extend_from_slice(taken);
            }
            if self.left > 0 {
                self.left -= taken.len();
            } else if let Some(&[tag, a, b, c, d]) = self.message.first_chunk() {
                self.left = total_length(tag, [a, b, c, d], LONGEST)? - HEADER;
            } else {
                return Ok(());
            }
            if self.left == 0 {
                self.complete()?;
                self.message.clear();
            }
        }
        Ok(())
    }

    /// Checks a message that has come completely.
    fn complete(&mut self) -> io::Result<()> {
        if self.logged_in {
            return Ok(());
        }
        self.before_ready += 1;
        if self.before_ready > MOST_MESSAGES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the login does not come to an end"));
        }
        match self.message[0] {
            b'Z' => self.logged_in = true,
            b'R' => {
                if let Some(data) = self.message[HEADER..].strip_prefix(&SASL_CONTINUE) {
                    check_iterations(data)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        [&[tag][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
    }

    /// Passes the bytes in pieces of every size.
    fn refused(bytes: &[u8]) -> Option<String> {
        let pass = |piece: usize| {
            let mut check = Check { message: Vec::new(), left: 0, before_ready: 0, logged_in: false };
            bytes.chunks(piece).try_for_each(|piece| check.pass(piece)).err().map(|error| error.to_string())
        };
        let whole = pass(bytes.len());
        for piece in [1, 2, 3, 4, 5, 6, 7, 64] {
            assert_eq!(pass(piece), whole);
        }
        whole
    }

    fn scram(iterations: &str) -> Vec<u8> {
        message(b'R', &[&SASL_CONTINUE[..], b"r=abc,s=QSXC,i=", iterations.as_bytes()].concat())
    }

    #[test]
    fn an_ordinary_conversation_passes() {
        let row = message(b'D', &vec![0; 100_000]);
        let parts =
            [message(b'R', &[0, 0, 0, 10, 0]), scram("4096"), message(b'Z', b"I"), row, message(b'C', b"SELECT 1\0")];
        assert_eq!(refused(&parts.concat()), None);
        assert_eq!(refused(&[message(b'Z', b"I"), message(b'N', b"").repeat(2000)].concat()), None);
    }

    #[test]
    fn what_has_no_end_is_refused() {
        assert!(refused(&message(b'S', b"a\0b\0").repeat(1001)).unwrap().contains("does not come to an end"));
        assert!(refused(&scram("1000001")).unwrap().contains("iterations"));
        assert!(refused(&scram("4294967295")).unwrap().contains("iterations"));
        for length in [0, 3, LONGEST as u32 + 1, 0x7fff_ffff, u32::MAX] {
            let bytes = [&b"D"[..], &length.to_be_bytes()].concat();
            assert!(refused(&bytes).unwrap().contains("claims a length"), "{length}");
        }
    }
}
