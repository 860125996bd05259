//! Which SASL mechanism is used (RFC 6120 section 6), and its exchange.
//!
//! The strongest that both ends know: SCRAM with channel binding, then SHA-256, then SHA-1. PLAIN
//! only when the configuration allows it and nothing else is offered.

use crate::failure::Failure;
use crate::login::Account;
use crate::offer::Offer;
use crate::scram::{Binding, Scram, ScramError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ipop_signal::FatalCause;
use ipop_stream::scram::Hash;
use minidom::Element;

/// What there is to log in with.
pub(crate) struct Login<'a> {
    pub(crate) user: &'a str,
    pub(crate) password: &'a str,
    pub(crate) allow_plain: bool,
    /// What the connection has to bind to.
    pub(crate) binding: Option<[u8; 32]>,
}

/// A login on its way.
pub(crate) enum Exchange {
    Scram { mechanism: String, scram: Box<Scram>, proven: bool },
    Plain { message: Vec<u8> },
}

/// Chooses among what the server offers.
pub(crate) fn choose(offer: &Offer, login: &Login<'_>) -> Result<Exchange, Failure> {
    let plus = |hash: Hash| format!("{}-PLUS", hash.mechanism());
    let hashes = [Hash::Sha256, Hash::Sha1];
    let bindable = login.binding.filter(|_| offer.binds_exporter);
    if let Some(material) = bindable
        && let Some(hash) = hashes.into_iter().find(|hash| offer.has(&plus(*hash)))
    {
        return scram(login, hash, plus(hash), Binding::Exporter(material));
    }
    if let Some(hash) = hashes.into_iter().find(|hash| offer.has(hash.mechanism())) {
        let offers_plus = hashes.into_iter().any(|hash| offer.has(&plus(hash)));
        let binding = match login.binding {
            Some(_) if !offers_plus => Binding::NotOffered,
            _ => Binding::Impossible,
        };
        return scram(login, hash, hash.mechanism().to_owned(), binding);
    }
    if login.allow_plain && offer.has("PLAIN") {
        let message = format!("\0{}\0{}", login.user, login.password).into_bytes();
        return Ok(Exchange::Plain { message });
    }
    let text = format!(
        "the server offers no login that keeps the password to ourselves, only {}. Enable \
         SCRAM-SHA-256 on the server{}",
        offer.mechanisms.join(", "),
        if offer.has("PLAIN") { ", or allow PLAIN in the configuration" } else { "" }
    );
    Err(Failure::fatal(FatalCause::Authentication, text))
}

/// Begins the login that an expected offer leads to, if that shows the server no password.
pub(crate) fn choose_early(expected: &Offer, login: &Login<'_>) -> Option<Exchange> {
    choose(expected, login).ok().filter(|exchange| matches!(exchange, Exchange::Scram { .. }))
}

fn scram(
    login: &Login<'_>,
    hash: Hash,
    mechanism: String,
    binding: Binding,
) -> Result<Exchange, Failure> {
    tracing::debug!(%mechanism, "logging in");
    let mut random = [0; 24];
    aws_lc_rs::rand::fill(&mut random)
        .map_err(|_| Failure::retry("the system has no random numbers"))?;
    let scram = Scram::new(hash, login.user, login.password, binding, BASE64.encode(random))
        .map_err(failure_of)?;
    Ok(Exchange::Scram { mechanism, scram: Box::new(scram), proven: false })
}

impl Exchange {
    /// The mechanism's name.
    pub(crate) fn mechanism(&self) -> &str {
        match self {
            Self::Scram { mechanism, .. } => mechanism,
            Self::Plain { .. } => "PLAIN",
        }
    }

    /// What was chosen: a mechanism, and how it is bound to the connection.
    pub(crate) fn choice(&self) -> (String, Option<Binding>) {
        match self {
            Self::Scram { mechanism, scram, .. } => {
                (mechanism.clone(), Some(scram.binding().clone()))
            }
            Self::Plain { .. } => ("PLAIN".to_owned(), None),
        }
    }

    /// The first message.
    pub(crate) fn first(&self) -> Vec<u8> {
        match self {
            Self::Scram { scram, .. } => scram.first(),
            Self::Plain { message } => message.clone(),
        }
    }

    /// Answers a challenge. Some servers send their proof as a second one.
    pub(crate) fn respond(&mut self, challenge: &[u8]) -> Result<Vec<u8>, Failure> {
        match self {
            Self::Scram { scram, proven, .. } if scram.is_answered() => {
                scram.verify(challenge).map_err(failure_of)?;
                *proven = true;
                Ok(Vec::new())
            }
            Self::Scram { scram, .. } => scram.respond(challenge).map_err(failure_of),
            Self::Plain { .. } => Err(Failure::retry("the server challenges a PLAIN login")),
        }
    }

    /// Checks that the server knows the password too.
    pub(crate) fn succeed(&self, last: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Scram { proven: true, .. } | Self::Plain { .. } => Ok(()),
            Self::Scram { scram, .. } => scram.verify(last).map_err(failure_of),
        }
    }
}

/// What a refusal means (RFC 6120 section 6.5).
pub(crate) fn refused(failure: &Element, account: &Account) -> Failure {
    let condition = failure.children().find(|child| child.name() != "text");
    let condition = condition.map_or("no reason given", Element::name);
    let who = format!("{}@{}", account.user, account.domain);
    match condition {
        "temporary-auth-failure" | "aborted" => {
            Failure::retry(format!("the server cannot check the login of {who} now"))
        }
        "not-authorized" => Failure::fatal(
            FatalCause::Authentication,
            format!("wrong user name or password for {who}: check both in the configuration"),
        ),
        "account-disabled" | "credentials-expired" => Failure::fatal(
            FatalCause::Authentication,
            format!("the server has locked {who} ({condition}): ask whoever runs it"),
        ),
        other => Failure::fatal(
            FatalCause::Authentication,
            format!("the server refuses the login of {who} ({other}): ask whoever runs it"),
        ),
    }
}

fn failure_of(error: ScramError) -> Failure {
    let text = match error {
        ScramError::Forbidden => format!("{error}: change the account's password"),
        ScramError::Malformed => return Failure::retry(error.to_string()),
        ScramError::Rounds(_) => format!("{error}: ask whoever runs the server"),
        ScramError::ServerUnproven => {
            format!("{error}: it is not the server it claims to be, or it is broken")
        }
    };
    Failure::fatal(FatalCause::Authentication, text)
}

/// Base64 as SASL in XML uses it.
pub(crate) fn encode(data: &[u8]) -> String {
    BASE64.encode(data)
}

/// The reverse; `=` is nothing.
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, Failure> {
    match text.trim() {
        "=" => Ok(Vec::new()),
        text => BASE64.decode(text).map_err(|_| Failure::retry("broken Base64 in a login")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipop_jingle::ns;

    fn features(mechanisms: &[&str], bindings: &[&str]) -> Offer {
        let list = |names: &[&str], open: &str, close: &str| -> String {
            names.iter().map(|name| format!("{open}{name}{close}")).collect()
        };
        let text = format!(
            "<features xmlns='{}'><mechanisms xmlns='{}'>{}</mechanisms>\
             <sasl-channel-binding xmlns='{}'>{}</sasl-channel-binding></features>",
            ns::STREAM,
            ns::SASL,
            list(mechanisms, "<mechanism>", "</mechanism>"),
            ns::SASL_CB,
            list(bindings, "<channel-binding type='", "'/>"),
        );
        Offer::of(&text.parse().unwrap())
    }

    fn login(binding: Option<[u8; 32]>, allow_plain: bool) -> Login<'static> {
        Login { user: "u", password: "p", allow_plain, binding }
    }

    /// The mechanism and the GS2 header.
    fn chosen(mechanisms: &[&str], bindings: &[&str], bound: bool) -> (String, String) {
        let login = login(bound.then_some([0; 32]), true);
        let exchange = choose(&features(mechanisms, bindings), &login).ok().unwrap();
        let first = String::from_utf8(exchange.first()).unwrap();
        let header = first.split(',').next().unwrap().to_owned();
        (exchange.mechanism().to_owned(), header)
    }

    #[test]
    fn the_strongest_is_chosen() {
        let all =
            ["PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"];
        let named = |name: &str, header: &str| (name.to_owned(), header.to_owned());
        let exporter = ["tls-unique", "tls-exporter"];
        let plus = named("SCRAM-SHA-256-PLUS", "p=tls-exporter");
        assert_eq!(chosen(&all, &exporter, true), plus);
        assert_eq!(chosen(&all, &exporter, false), named("SCRAM-SHA-256", "n"));
        assert_eq!(chosen(&all, &["tls-unique"], true), named("SCRAM-SHA-256", "n"));
        assert_eq!(chosen(&all, &[], true), named("SCRAM-SHA-256", "n"));
        let plain_and_sha1 = ["PLAIN", "SCRAM-SHA-1"];
        assert_eq!(chosen(&plain_and_sha1, &[], true), named("SCRAM-SHA-1", "y"));
        assert_eq!(chosen(&["PLAIN"], &[], true).0, "PLAIN");
    }

    #[test]
    fn plain_needs_leave() {
        let refused = choose(&features(&["PLAIN", "X"], &[]), &login(None, false)).err().unwrap();
        let Failure::Fatal { cause, text } = refused else { panic!() };
        assert_eq!(cause, FatalCause::Authentication);
        assert!(text.contains("PLAIN, X") && text.contains("allow PLAIN"), "{text}");
    }

    #[test]
    fn success_without_proof_is_none() {
        let login = login(None, false);
        let exchange = choose(&features(&["SCRAM-SHA-1"], &[]), &login).ok().unwrap();
        assert!(exchange.succeed(b"").is_err());
    }
}
