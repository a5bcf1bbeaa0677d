//! Somebody in the middle: ends the client's TLS with a certificate of its own and opens another to the server.

use std::fs;
use std::sync::Arc;
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::server::pem;
use crate::harness::listener::Listener;

/// AuthenticationSASL with both mechanisms, and with the one that binds nothing.
const OFFER: &[u8; 43] = b"R\0\0\0\x2a\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
const WEAKER_OFFER: &[u8] = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0";

/// Relays to this port of the server.
pub(super) fn start(server: u16, certificate: &str, key: &str) -> Listener {
    start_downgrading(server, certificate, key, usize::MAX)
}

/// The same, and takes SCRAM-SHA-256-PLUS from what the server offers to every connection but the first few.
pub(super) fn start_downgrading(server: u16, certificate: &str, key: &str, after: usize) -> Listener {
    let read = |path: &str| fs::read(path).expect("read a certificate or key");
    let certificate = CertificateDer::from_pem_slice(&read(certificate)).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(&read(key)).expect("a key");
    let accept = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key);
    let acceptor = TlsAcceptor::from(Arc::new(accept.expect("a certificate with its key")));
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&read(&pem("ca.crt"))).expect("a certificate")).expect("an authority");
    let connector =
        TlsConnector::from(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()));

    let mut count = 0;
    Listener::start(move |client| {
        let downgrade = count >= after;
        count += 1;
        let (acceptor, connector) = (acceptor.clone(), connector.clone());
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            // However it ends, it is the client's to tell.
            let _ = runtime.block_on(relay(client, server, acceptor, connector, downgrade));
        });
    })
}

async fn relay(
    client: std::net::TcpStream,
    port: u16,
    accept: TlsAcceptor,
    connect: TlsConnector,
    downgrade: bool,
) -> std::io::Result<()> {
    client.set_nonblocking(true)?;
    let mut client = TcpStream::from_std(client)?;
    let mut request = [0; 8];
    client.read_exact(&mut request).await?;
    client.write_all(b"S").await?;
    let mut client = accept.accept(client).await?;
    let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
    server.write_all(&request).await?;
    assert_eq!(server.read_u8().await?, b'S', "the server speaks TLS");
    let name = ServerName::try_from("localhost").expect("a host name");
    let mut server = connect.connect(name, server).await?;
    if downgrade {
        let mut startup = vec![0; 4];
        client.read_exact(&mut startup).await?;
        let length = u32::from_be_bytes([startup[0], startup[1], startup[2], startup[3]]);
        startup.resize(length as usize, 0);
        client.read_exact(&mut startup[4..]).await?;
        server.write_all(&startup).await?;
        let mut offer = [0; OFFER.len()];
        server.read_exact(&mut offer).await?;
        assert_eq!(&offer, OFFER);
        client.write_all(WEAKER_OFFER).await?;
    }
    copy_bidirectional(&mut client, &mut server).await.map(|_| ())
}
