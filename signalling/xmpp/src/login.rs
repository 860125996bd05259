//! From a connection to a bound resource (RFC 6120 sections 5, 6 and 7), in as few round trips as
//! the standards allow.
//!
//! | round trip | sent | awaited |
//! |---|---|---|
//! | 1 (STARTTLS only) | header, `<starttls/>` | header, features, `<proceed/>` |
//! | 2 | TLS hello | TLS hello |
//! | 3 | TLS finished, header | header, features |
//! | 4 | `<auth/>` | `<challenge/>` |
//! | 5 | `<response/>` | `<success/>` |
//! | 6 | header, bind, and whatever the caller queues | header, features, bound |
//!
//! Where the server's [`Offer`] is known or guessed, 4 goes with 3; where the server pipelines
//! (XEP-0305), 6 goes with 5. A wrong guess costs nothing: its refusal comes with the features.
//!
//! The server sees the parts of a row in their order, as if they had come one by one; the features
//! are still checked when they arrive.

use crate::config::{Config, Security};
use crate::dial::Dialled;
use crate::failure::Failure;
use crate::mechanism::{self, Exchange, Login};
use crate::offer::Offer;
use crate::prompt::Prompt;
use crate::stream::XmlStream;
use crate::stream_error;
use crate::tls;
use ipop_jingle::ns;
use ipop_jingle::stanza::{Iq, IqBody};
use ipop_signal::FatalCause;
use minidom::Element;
use minidom::rxml::{Namespace, xml_ncname};
use tokio_rustls::client::TlsStream;

/// The stream that stanzas travel on.
pub(crate) type Stream = XmlStream<TlsStream<Prompt>>;

const BIND_ID: &str = "bind";

/// Encrypts a connection.
pub(crate) async fn encrypt(
    dialled: Dialled,
    config: &Config,
    account: &Account,
) -> Result<Stream, Failure> {
    let connector = tls::connector(&config.trust, dialled.security == Security::DirectTls)?;
    let tcp = Prompt::new(dialled.stream);
    let tcp = match dialled.security {
        Security::DirectTls => tcp,
        Security::StartTls => upgrade(tcp, &account.domain).await?,
    };
    let tls = tls::secure(&connector, &account.ascii_domain, tcp).await?;
    Ok(XmlStream::new(tls))
}

/// Logs in. What follows on the stream is [`Entry::queue_binding`], anything that may travel along,
/// and [`Entry::bound`].
pub(crate) async fn log_in(
    mut stream: Stream,
    config: &Config,
    account: &Account,
    expected: Option<&Offer>,
) -> Result<Entry, Failure> {
    let login = Login {
        user: &account.user,
        password: &config.password,
        allow_plain: config.allow_plain,
        binding: tls::channel_binding(stream.io()),
    };
    let early = expected.and_then(|expected| mechanism::choose_early(expected, &login));
    stream.queue_header(&account.domain);
    if let Some(exchange) = &early {
        stream.queue(&auth_element(exchange));
    }
    stream.flush().await?;
    stream.header().await?;
    let offer = Offer::of(&features(&mut stream).await?);
    let pipelines = offer.pipelines || expected.is_some_and(|expected| expected.pipelines);
    let proof = match early {
        Some(exchange) => {
            let choice = exchange.choice();
            match prove(&mut stream, exchange, pipelines).await? {
                Proof::Refused(failure) => {
                    let exchange = mechanism::choose(&offer, &login)?;
                    // A refusal of what was never offered says nothing about the password.
                    if exchange.choice() == choice {
                        return Err(mechanism::refused(&failure, account));
                    }
                    begin(&mut stream, exchange, pipelines).await?
                }
                proof => proof,
            }
        }
        None => begin(&mut stream, mechanism::choose(&offer, &login)?, pipelines).await?,
    };
    let unproven = match proof {
        Proof::Refused(failure) => return Err(mechanism::refused(&failure, account)),
        Proof::Given => {
            stream.restart();
            None
        }
        Proof::Awaited(exchange) => Some(exchange),
    };
    Ok(Entry { stream, offer, unproven })
}

/// A login that has succeeded, or is about to.
pub(crate) struct Entry {
    pub(crate) stream: Stream,
    /// What the server offered.
    pub(crate) offer: Offer,
    /// Our last word is queued, and the server's is still to come.
    unproven: Option<Exchange>,
}

impl Entry {
    /// Queues the opening of the stream that stanzas travel on, and the request for our resource.
    pub(crate) fn queue_binding(&mut self, account: &Account) {
        let resource = Element::builder("resource", ns::BIND).append(account.resource.as_str());
        let bind = Element::builder("bind", ns::BIND).append(resource).build();
        let request = Iq { from: None, to: None, id: BIND_ID.to_owned(), body: IqBody::Set(bind) };
        self.stream.queue_header(&account.domain);
        self.stream.queue(&request.emit());
    }

    /// Awaits the answers to [`Self::queue_binding`], and the server's proof if it is still to
    /// come; without it nothing that follows is believed.
    pub(crate) async fn bound(&mut self, account: &Account) -> Result<(), Failure> {
        let stream = &mut self.stream;
        if let Some(exchange) = self.unproven.take() {
            let answer = stanza(stream).await?;
            match answer.name() {
                "success" => exchange.succeed(&mechanism::decode(&answer.text())?)?,
                "failure" => return Err(mechanism::refused(&answer, account)),
                other => return Err(unexpected(other)),
            }
            stream.restart();
        }
        stream.header().await?;
        let features = features(stream).await?;
        if !features.has_child("bind", ns::BIND) {
            return Err(Failure::retry("the server lets nobody bind a resource"));
        }
        loop {
            let element = stanza(stream).await?;
            match Iq::parse(&element) {
                Some(Iq { id, body: IqBody::Result(_), .. }) if id == BIND_ID => return Ok(()),
                Some(Iq { id, body: IqBody::Error(error), .. }) if id == BIND_ID => {
                    let text = format!("the server refuses our resource: {error}");
                    return Err(Failure::retry(text));
                }
                _ => {}
            }
        }
    }
}

/// Whose stream it is.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    /// In front of the `@`.
    pub(crate) user: String,
    /// Behind it.
    pub(crate) domain: String,
    /// The same as DNS and certificates write it.
    pub(crate) ascii_domain: String,
    /// Behind the `/` of the full address.
    pub(crate) resource: String,
}

async fn upgrade(tcp: Prompt, domain: &str) -> Result<Prompt, Failure> {
    let mut stream = XmlStream::new(tcp);
    stream.queue_header(domain);
    stream.queue(&Element::bare("starttls", ns::TLS));
    stream.flush().await?;
    stream.header().await?;
    let features = features(&mut stream).await?;
    if !features.has_child("starttls", ns::TLS) {
        let text = format!(
            "the server of {domain} offers no encryption, or somebody in between took the offer \
             out; nothing was sent to it. Enable TLS on the server, or name another address of it"
        );
        return Err(Failure::fatal(FatalCause::Certificate, text));
    }
    let answer = stanza(&mut stream).await?;
    if !answer.is("proceed", ns::TLS) {
        return Err(Failure::retry("the server offers encryption and then refuses it"));
    }
    stream.into_io()
}

/// How far an exchange got.
enum Proof {
    /// Both ends know the password.
    Given,
    /// Our last word is queued.
    Awaited(Exchange),
    /// The server's refusal.
    Refused(Element),
}

/// Begins an exchange that the server offers, and goes through it.
async fn begin(stream: &mut Stream, exchange: Exchange, pipelines: bool) -> Result<Proof, Failure> {
    stream.queue(&auth_element(&exchange));
    stream.flush().await?;
    prove(stream, exchange, pipelines).await
}

/// Answers challenges; where the server pipelines, without awaiting what it says to the last one.
async fn prove(
    stream: &mut Stream,
    mut exchange: Exchange,
    pipelines: bool,
) -> Result<Proof, Failure> {
    loop {
        let answer = stanza(stream).await?;
        match answer.name() {
            "challenge" => {
                let response = exchange.respond(&mechanism::decode(&answer.text())?)?;
                stream.queue(&text_element("response", &response));
                if pipelines {
                    return Ok(Proof::Awaited(exchange));
                }
                stream.flush().await?;
            }
            "success" => {
                exchange.succeed(&mechanism::decode(&answer.text())?)?;
                return Ok(Proof::Given);
            }
            "failure" => return Ok(Proof::Refused(answer)),
            other => return Err(unexpected(other)),
        }
    }
}

fn unexpected(name: &str) -> Failure {
    Failure::retry(format!("{name:?} in the middle of a login"))
}

fn auth_element(exchange: &Exchange) -> Element {
    let mut element = text_element("auth", &exchange.first());
    element.set_attr(Namespace::NONE, xml_ncname!("mechanism").into(), exchange.mechanism());
    element
}

/// SASL's data travel in Base64; none at all is written as `=` (RFC 6120 section 6.4.2).
fn text_element(name: &str, data: &[u8]) -> Element {
    let text = if data.is_empty() { "=".to_owned() } else { mechanism::encode(data) };
    Element::builder(name, ns::SASL).append(text).build()
}

async fn features<Io>(stream: &mut XmlStream<Io>) -> Result<Element, Failure>
where
    Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let element = stanza(stream).await?;
    if !element.is("features", ns::STREAM) {
        return Err(Failure::retry("the server does not say what it can do"));
    }
    Ok(element)
}

/// The next element that is no stream error.
async fn stanza<Io>(stream: &mut XmlStream<Io>) -> Result<Element, Failure>
where
    Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let element = stream.next_element().await?;
    match stream_error::of(&element) {
        Some(failure) => Err(failure),
        None => Ok(element),
    }
}
