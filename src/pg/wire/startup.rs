//! The login: the startup message and authentication, which make a session of a stream.

use std::collections::HashMap;
use std::io;

use bytes::BytesMut;
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::frontend;
use tokio::io::AsyncWriteExt;
use tokio_postgres::Config;
use tokio_postgres::config::ChannelBinding;

use super::cancel::CancelToken;
use super::frame::{Frame, Frames};
use super::message::{self, Authentication};
use super::session::Session;
use crate::pg::error::ServerError;
use crate::pg::net::failure::Failure;
use crate::pg::net::stream::Stream;

/// The most messages of a login, which has some dozen settings and seldom a notice.
pub(super) const MOST_MESSAGES: u32 = 1000;
/// The most iterations of SCRAM, which an unauthenticated server asks for. Servers use 4096 (`scram_iterations`), and
/// the computation blocks the runtime.
const MOST_ITERATIONS: u32 = 1_000_000;

/// Logs in with the user, password and database of `config`; with `replication`, to a walsender.
pub(crate) async fn start(stream: Stream, config: &Config, replication: bool) -> Result<Session, Failure> {
    let mut startup = Startup { stream, frames: Frames::for_login(), messages: 0, config };
    let mut parameters = vec![("client_encoding", "UTF8"), ("user", startup.user())];
    parameters.extend(config.get_dbname().map(|name| ("database", name)));
    parameters.extend(config.get_application_name().map(|name| ("application_name", name)));
    if replication {
        parameters.push(("replication", "database"));
    }
    startup.send(|out| frontend::startup_message(parameters, out)).await?;
    startup.authenticate().await?;
    startup.finish().await
}

struct Startup<'a> {
    stream: Stream,
    frames: Frames,
    messages: u32,
    config: &'a Config,
}

impl<'a> Startup<'a> {
    fn user(&self) -> &'a str {
        self.config.get_user().unwrap_or_default()
    }

    fn password(&self) -> Result<&'a [u8], Failure> {
        self.config.get_password().ok_or(Failure::PasswordMissing)
    }

    async fn send(&mut self, message: impl FnOnce(&mut BytesMut) -> io::Result<()>) -> Result<(), Failure> {
        let mut out = BytesMut::new();
        message(&mut out).map_err(|error| Failure::Authentication(error.to_string()))?;
        self.stream.write_all(&out).await?;
        Ok(self.stream.flush().await?)
    }

    /// Reads the next message, skipping notices; an ErrorResponse is returned as the failure.
    async fn receive(&mut self) -> Result<Frame, Failure> {
        loop {
            let frame = self.frames.next(&mut self.stream).await?;
            self.messages += 1;
            if self.messages > MOST_MESSAGES {
                return Err(Failure::Protocol("the login does not come to an end".to_owned()));
            }
            match frame.tag {
                b'E' => return Err(Failure::Server(ServerError::parse(self.frames.body(&frame)))),
                // NegotiateProtocolVersion: the server supports only an older minor version of the protocol.
                b'N' | b'v' => {}
                _ => return Ok(frame),
            }
        }
    }

    async fn receive_authentication(&mut self) -> Result<Authentication, Failure> {
        match self.receive().await? {
            frame @ Frame { tag: b'R', .. } => Ok(Authentication::parse(self.frames.body(&frame))?),
            frame => Err(unexpected(&frame)),
        }
    }

    /// Answers the server's request for authentication.
    async fn authenticate(&mut self) -> Result<(), Failure> {
        let asked = self.receive_authentication().await?;
        if self.config.get_channel_binding() == ChannelBinding::Require && !matches!(asked, Authentication::Sasl(_)) {
            return Err(unbound());
        }
        match asked {
            Authentication::Ok => return Ok(()),
            Authentication::CleartextPassword => {
                let password = self.password()?;
                self.send(|out| frontend::password_message(password, out)).await?;
            }
            Authentication::Md5Password(salt) => {
                let hash = md5_hash(self.user().as_bytes(), self.password()?, salt);
                self.send(|out| frontend::password_message(hash.as_bytes(), out)).await?;
            }
            Authentication::Sasl(mechanisms) => self.authenticate_sasl(&mechanisms).await?,
            Authentication::Unsupported(method) => {
                let text = format!("the server wants authentication {method}, which is not supported");
                return Err(Failure::Authentication(text));
            }
            other => return Err(out_of_turn(&other)),
        }
        match self.receive_authentication().await? {
            Authentication::Ok => Ok(()),
            other => Err(out_of_turn(&other)),
        }
    }

    /// Authenticates with SCRAM-SHA-256, bound to the TLS channel where both sides support it, so that a man in the
    /// middle cannot relay the exchange.
    async fn authenticate_sasl(&mut self, mechanisms: &[String]) -> Result<(), Failure> {
        let offered = |name| mechanisms.iter().any(|offered| offered == name);
        let wanted = self.config.get_channel_binding();
        let end_point = self.stream.tls_server_end_point().filter(|_| wanted != ChannelBinding::Disable);
        let (mechanism, binding) = match end_point {
            Some(hash) if offered(sasl::SCRAM_SHA_256_PLUS) => {
                (sasl::SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(hash))
            }
            _ if wanted == ChannelBinding::Require => return Err(unbound()),
            Some(_) => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unrequested()),
            None => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unsupported()),
        };
        if !offered(mechanism) {
            let text = format!("the server offers only {}, which is not supported", mechanisms.join(", "));
            return Err(Failure::Authentication(text));
        }
        let refused = |error: io::Error| Failure::Authentication(format!("SCRAM authentication failed: {error}"));
        let mut scram = sasl::ScramSha256::new(self.password()?, binding);
        self.send(|out| frontend::sasl_initial_response(mechanism, scram.message(), out)).await?;
        match self.receive_authentication().await? {
            Authentication::SaslContinue(data) => {
                check_iterations(&data)?;
                scram.update(&data).map_err(refused)?;
            }
            other => return Err(out_of_turn(&other)),
        }
        self.send(|out| frontend::sasl_response(scram.message(), out)).await?;
        match self.receive_authentication().await? {
            Authentication::SaslFinal(data) => scram.finish(&data).map_err(refused),
            other => Err(out_of_turn(&other)),
        }
    }

    /// Reads the backend's key and settings up to ReadyForQuery, and returns the session.
    async fn finish(mut self) -> Result<Session, Failure> {
        let mut parameters = HashMap::new();
        let mut token = CancelToken { process_id: 0, secret_key: 0 };
        loop {
            let frame = self.receive().await?;
            let body = self.frames.body(&frame);
            match frame.tag {
                b'K' => (token.process_id, token.secret_key) = message::backend_key_data(body)?,
                b'S' => parameters.extend([message::parameter_status(body)?]),
                b'Z' => {
                    self.frames.logged_in();
                    return Ok(Session::new(self.stream, self.frames, parameters, token));
                }
                _ => return Err(unexpected(&frame)),
            }
        }
    }
}

/// Refuses a SCRAM server-first-message (`r=…,s=…,i=4096`) that asks for too many iterations.
pub(super) fn check_iterations(message: &[u8]) -> io::Result<()> {
    let asked = message.split(|&byte| byte == b',').find_map(|part| part.strip_prefix(b"i="));
    match asked.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u32>().ok()) {
        Some(iterations) if iterations > MOST_ITERATIONS => {
            let text = format!("the server wants {iterations} iterations of SCRAM, more than {MOST_ITERATIONS}");
            Err(io::Error::new(io::ErrorKind::InvalidData, text))
        }
        _ => Ok(()),
    }
}

fn unbound() -> Failure {
    Failure::Authentication(
        "`channel_binding` is require, and the server can't bind this login to a TLS connection".into(),
    )
}

fn unexpected(frame: &Frame) -> Failure {
    Failure::Protocol(format!("unexpected message of type {:?}", char::from(frame.tag)))
}

fn out_of_turn(message: &Authentication) -> Failure {
    let name = match message {
        Authentication::Ok => "AuthenticationOk",
        Authentication::SaslContinue(_) => "AuthenticationSASLContinue",
        Authentication::SaslFinal(_) => "AuthenticationSASLFinal",
        _ => "a second request for authentication",
    };
    Failure::Protocol(format!("unexpected {name}"))
}
