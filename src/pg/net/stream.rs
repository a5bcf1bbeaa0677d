//! The byte stream below a session: a socket or an SSH tunnel, with or without TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::ProtocolVersion;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio_rustls::client::TlsStream;

use super::ssh::Tunneled;
use super::tls::end_point_hash;

/// A connection to the server without TLS.
pub(crate) enum Socket {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
    Tunnel(Box<Tunneled>),
}

/// A connection to the server; where TLS is wanted, after its handshake.
pub(crate) enum Stream {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

impl Stream {
    /// Returns the negotiated version of TLS.
    pub(crate) fn tls_version(&self) -> Option<&'static str> {
        let Stream::Tls(stream) = self else { return None };
        Some(match stream.get_ref().1.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
            Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
            _ => "TLS",
        })
    }

    /// Returns the hash of the server's certificate that SCRAM-SHA-256-PLUS binds to; see [`end_point_hash`].
    pub(crate) fn tls_server_end_point(&self) -> Option<Vec<u8>> {
        let Stream::Tls(stream) = self else { return None };
        end_point_hash(stream.get_ref().1.peer_certificates()?.first()?)
    }
}

/// Implements reading and writing by delegation to each variant.
macro_rules! delegate {
    ($name:ident: $($(#[$meta:meta])* $variant:ident),*) => {
        impl AsyncRead for $name {
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $($(#[$meta])* $name::$variant(stream) => Pin::new(stream).poll_read(cx, buf),)*
                }
            }
        }

        impl AsyncWrite for $name {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    $($(#[$meta])* $name::$variant(stream) => Pin::new(stream).poll_write(cx, buf),)*
                }
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $($(#[$meta])* $name::$variant(stream) => Pin::new(stream).poll_flush(cx),)*
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    $($(#[$meta])* $name::$variant(stream) => Pin::new(stream).poll_shutdown(cx),)*
                }
            }
        }
    };
}

delegate!(Socket: Tcp, #[cfg(unix)] Unix, Tunnel);
delegate!(Stream: Plain, Tls);
