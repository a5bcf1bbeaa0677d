//! TCP and Unix sockets, with timeouts.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::failure::Failure;

/// The timeout of each step of a connection: opening the socket, TLS with login, and the session's settings.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection is idle before the first keepalive probe.
const KEEPALIVE_TIME: Duration = Duration::from_secs(60);
/// The interval between keepalive probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// The number of unanswered keepalive probes after which the connection is considered lost.
const KEEPALIVE_RETRIES: u32 = 6;
/// How long sent data may stay unacknowledged before the connection is considered lost (the system's default is a
/// quarter of an hour).
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(120);

/// Connects to this host, by the first of its addresses that accepts.
pub(crate) async fn open_tcp(host: &str, port: u16) -> Result<TcpStream, Failure> {
    let addresses = tokio::net::lookup_host((host, port)).await.map_err(Failure::Resolve)?;
    let mut failure = Failure::Resolve(io::Error::other("it has no address"));
    for address in addresses {
        failure = match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => return Ok(set_options(socket)?),
            Ok(Err(error)) => Failure::Io(error),
            Err(_) => Failure::Timeout,
        };
    }
    Err(failure)
}

/// Connects to this Unix socket.
#[cfg(unix)]
pub(crate) async fn open_unix(path: &str) -> Result<tokio::net::UnixStream, Failure> {
    let socket = timeout(CONNECT_TIMEOUT, tokio::net::UnixStream::connect(path)).await;
    Ok(socket.map_err(|_| Failure::Timeout)??)
}

/// Disables Nagle's algorithm and sets the limits after which a lost peer is noticed.
fn set_options(socket: TcpStream) -> io::Result<TcpStream> {
    socket.set_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_TIME).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_RETRIES);
    SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    SockRef::from(&socket).set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_that_is_gone_is_noticed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let socket = set_options(socket).unwrap();
        let socket = SockRef::from(&socket);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_TIME);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), KEEPALIVE_RETRIES);
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED));
    }
}
