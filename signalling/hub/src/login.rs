//! From a connection to a user who proved who it is (RFC 6120 sections 5 and 6).
//!
//! A first byte of 0x16 is a TLS hello (XEP-0368); anything else has to ask for TLS first. Nothing
//! here minds a client that says more before it has heard the answer, except before TLS: clients
//! are told so (XEP-0305).

use crate::MECHANISMS;
use crate::accounts::Accounts;
use crate::scram::{First, Pending, ScramError};
use crate::stream::{CLOSE_PATIENCE, Fault, XmlStream};
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ipop_jingle::ns;
use ipop_stream::scram::Hash;
use minidom::Element;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Passwords that may be tried on one connection.
const ATTEMPTS_MAX: u32 = 3;
const TLS_HELLO: u8 = 0x16;
/// XEP-0305 section 4.
const PIPELINING: &str = "urn:xmpp:features:pipelining";

/// What it takes to let somebody in.
pub(crate) struct Door {
    pub(crate) domain: String,
    pub(crate) tls: TlsAcceptor,
    pub(crate) accounts: Accounts,
}

/// A stream whose user is known; its resource is not yet bound.
pub(crate) type Stream = XmlStream<TlsStream<TcpStream>>;

impl Door {
    /// Encrypts and logs in before the deadline; the user name.
    pub(crate) async fn admit(
        &self,
        tcp: TcpStream,
        deadline: Instant,
    ) -> Result<(Stream, String), Fault> {
        let tcp = if speaks_tls(&tcp, deadline).await? {
            tcp
        } else {
            self.upgrade(tcp, deadline).await?
        };
        let accepted = timeout_at(deadline, self.tls.accept(tcp)).await;
        let tls = accepted.map_err(|_| Fault::Gone)?.map_err(|error| {
            tracing::debug!(%error, "TLS failed");
            Fault::Gone
        })?;
        let mut stream = XmlStream::new(tls, deadline);
        match self.log_in(&mut stream).await {
            Ok(user) => Ok((stream, user)),
            Err(fault) => {
                stream.fail(&self.domain, fault).await;
                Err(fault)
            }
        }
    }

    /// Tells a client why it is not even asked who it is.
    pub(crate) async fn turn_away(&self, tcp: TcpStream, condition: &'static str) {
        let deadline = Instant::now() + CLOSE_PATIENCE;
        // Whoever speaks TLS at once would take the words for a broken server.
        if speaks_tls(&tcp, deadline).await == Ok(false) {
            let mut stream = XmlStream::new(tcp, deadline);
            // What the client has said is taken first: unread, it would undo our answer.
            let _ = stream.next().await;
            stream.fail(&self.domain, Fault::Error(condition)).await;
        }
    }

    async fn upgrade(&self, tcp: TcpStream, deadline: Instant) -> Result<TcpStream, Fault> {
        let mut stream = XmlStream::new(tcp, deadline);
        match self.offer_tls(&mut stream).await {
            Ok(()) => {}
            Err(fault) => {
                stream.fail(&self.domain, fault).await;
                return Err(fault);
            }
        }
        // Whoever speaks on before TLS may be somebody in between: no answer but the end.
        stream.into_io()
    }

    async fn offer_tls(&self, stream: &mut XmlStream<TcpStream>) -> Result<(), Fault> {
        let features = format!("<starttls xmlns='{}'><required/></starttls>", ns::TLS);
        stream.open(&self.domain, &features).await?;
        let element = stream.element().await?;
        if element.is("starttls", ns::TLS) {
            return stream.write(format!("<proceed xmlns='{}'/>", ns::TLS).as_bytes()).await;
        }
        if element.ns() == ns::SASL {
            stream.write(failure("encryption-required").as_bytes()).await?;
        }
        Err(Fault::Error("policy-violation"))
    }

    async fn log_in(&self, stream: &mut Stream) -> Result<String, Fault> {
        let mechanisms = MECHANISMS.map(|name| format!("<mechanism>{name}</mechanism>")).concat();
        let features = format!(
            "<mechanisms xmlns='{}'>{mechanisms}</mechanisms><pipelining xmlns='{PIPELINING}'/>",
            ns::SASL,
        );
        stream.open(&self.domain, &features).await?;
        for _ in 0..ATTEMPTS_MAX {
            match self.attempt(stream).await? {
                Ok((user, last)) => {
                    let success = text_element("success", &last);
                    stream.write(success.as_bytes()).await?;
                    stream.restart();
                    return Ok(user);
                }
                Err(condition) => {
                    tracing::info!(condition, "a login was refused");
                    stream.write(failure(condition).as_bytes()).await?;
                }
            }
        }
        Err(Fault::Error("policy-violation"))
    }

    /// One exchange: the user and our proof, or what the failure is called.
    async fn attempt(
        &self,
        stream: &mut Stream,
    ) -> Result<Result<(String, String), &'static str>, Fault> {
        let auth = stream.element().await?;
        if !auth.is("auth", ns::SASL) {
            return Err(Fault::Error("not-authorized"));
        }
        let Some(hash) = auth.attr("mechanism").and_then(Hash::of_mechanism) else {
            return Ok(Err("invalid-mechanism"));
        };
        let mut message = decode(&auth.text());
        if message.as_ref().is_ok_and(Vec::is_empty) {
            message = self.ask(stream, "").await?;
        }
        let (pending, challenge, user) = match message.and_then(|m| self.begin(hash, &m)) {
            Ok(begun) => begun,
            Err(condition) => return Ok(Err(condition)),
        };
        let response = self.ask(stream, &challenge).await?;
        let proof = response.and_then(|response| pending.finish(&response).map_err(condition_of));
        Ok(proof.map(|proof| (user, proof)))
    }

    async fn ask(
        &self,
        stream: &mut Stream,
        challenge: &str,
    ) -> Result<Result<Vec<u8>, &'static str>, Fault> {
        stream.write(text_element("challenge", challenge).as_bytes()).await?;
        let response: Element = stream.element().await?;
        Ok(match response.name() {
            "response" if response.ns() == ns::SASL => decode(&response.text()),
            "abort" => Err("aborted"),
            _ => Err("malformed-request"),
        })
    }

    fn begin(&self, hash: Hash, message: &[u8]) -> Result<(Pending, String, String), &'static str> {
        let first = First::parse(message).map_err(condition_of)?;
        let user = first.username.clone();
        let own = format!("{user}@{}", self.domain);
        if first.authzid.as_ref().is_some_and(|authzid| *authzid != own) {
            return Err(condition_of(ScramError::Authzid));
        }
        let mut nonce = [0; 24];
        rand::fill(&mut nonce).map_err(|_| "temporary-auth-failure")?;
        let (verifier, known) = self.accounts.verifier(&user, hash);
        let (pending, challenge) = first.challenge(verifier, known, &BASE64.encode(nonce));
        Ok((pending, challenge, user))
    }
}

/// Whether the client's first byte is that of TLS.
async fn speaks_tls(tcp: &TcpStream, deadline: Instant) -> Result<bool, Fault> {
    let mut first = [0];
    match timeout_at(deadline, tcp.peek(&mut first)).await {
        Ok(len) => Ok(len? == 1 && first[0] == TLS_HELLO),
        Err(_) => Ok(false),
    }
}

fn condition_of(error: ScramError) -> &'static str {
    match error {
        ScramError::Malformed | ScramError::Binding => "malformed-request",
        ScramError::Authzid => "invalid-authzid",
        ScramError::Refused => "not-authorized",
    }
}

fn failure(condition: &str) -> String {
    format!("<failure xmlns='{}'><{condition}/></failure>", ns::SASL)
}

/// SASL's data travel in Base64; none at all is written as `=` (RFC 6120 section 6.4.2).
fn text_element(name: &str, data: &str) -> String {
    format!("<{name} xmlns='{}'>{}</{name}>", ns::SASL, BASE64.encode(data))
}

fn decode(text: &str) -> Result<Vec<u8>, &'static str> {
    match text.trim() {
        "" | "=" => Ok(Vec::new()),
        text => BASE64.decode(text).map_err(|_| "incorrect-encoding"),
    }
}
