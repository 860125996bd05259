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
//! The server sees the parts of a row in their order, as if they had come one by one; the features
//! are still checked when they arrive.

use crate::config::{Config, Security};
use crate::dial::dial;
use crate::failure::Failure;
use crate::mechanism::{self, Exchange, Login};
use crate::stream::XmlStream;
use crate::stream_error;
use crate::tls;
use ipop_jingle::ns;
use ipop_jingle::stanza::{Iq, IqBody};
use ipop_signal::FatalCause;
use minidom::Element;
use minidom::rxml::{Namespace, xml_ncname};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// The stream that stanzas travel on.
pub(crate) type Stream = XmlStream<TlsStream<TcpStream>>;

const BIND_ID: &str = "bind";

/// Connects, encrypts and logs in. What follows on the stream is [`queue_binding`], anything that
/// may travel along, and [`bound`].
pub(crate) async fn log_in(config: &Config, account: &Account) -> Result<Stream, Failure> {
    let (tcp, security) = dial(config, &account.ascii_domain).await?;
    let connector = tls::connector(&config.trust, security == Security::DirectTls)?;
    let tcp = match security {
        Security::DirectTls => tcp,
        Security::StartTls => upgrade(tcp, &account.domain).await?,
    };
    let tls = tls::secure(&connector, &account.ascii_domain, tcp).await?;
    let mut stream = XmlStream::new(tls);
    stream.queue_header(&account.domain);
    stream.flush().await?;
    stream.header().await?;
    let features = features(&mut stream).await?;
    authenticate(&mut stream, &features, config, account).await?;
    stream.restart();
    Ok(stream)
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

/// Queues the opening of the stream that stanzas travel on, and the request for our resource.
pub(crate) fn queue_binding(stream: &mut Stream, account: &Account) {
    let resource = Element::builder("resource", ns::BIND).append(account.resource.as_str());
    let bind = Element::builder("bind", ns::BIND).append(resource).build();
    let request = Iq { from: None, to: None, id: BIND_ID.to_owned(), body: IqBody::Set(bind) };
    stream.queue_header(&account.domain);
    stream.queue(&request.emit());
}

/// Awaits the answers to [`queue_binding`].
pub(crate) async fn bound(stream: &mut Stream) -> Result<(), Failure> {
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
                return Err(Failure::retry(format!("the server refuses our resource: {error}")));
            }
            _ => {}
        }
    }
}

async fn upgrade(tcp: TcpStream, domain: &str) -> Result<TcpStream, Failure> {
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

async fn authenticate(
    stream: &mut Stream,
    features: &Element,
    config: &Config,
    account: &Account,
) -> Result<(), Failure> {
    let login = Login {
        user: &account.user,
        password: &config.password,
        allow_plain: config.allow_plain,
        binding: tls::channel_binding(stream.io()),
    };
    let mut exchange = mechanism::choose(features, &login)?;
    stream.queue(&auth_element(&exchange));
    stream.flush().await?;
    loop {
        let answer = stanza(stream).await?;
        match answer.name() {
            "challenge" => {
                let response = exchange.respond(&mechanism::decode(&answer.text())?)?;
                stream.queue(&text_element("response", &response));
                stream.flush().await?;
            }
            "success" => return exchange.succeed(&mechanism::decode(&answer.text())?),
            "failure" => return Err(mechanism::refused(&answer, account)),
            other => return Err(Failure::retry(format!("{other:?} in the middle of a login"))),
        }
    }
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
