//! The grammar of SCRAM's messages (RFC 5802 section 7), as far as both ends need it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::fmt;

const MESSAGE_LEN_MAX: usize = 4096;

/// A message that does not follow the grammar, or is longer than 4096 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message is malformed")]
pub struct Malformed;

/// The server's first message. As text: `r=nonce,s=salt,i=rounds`, the salt in Base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The client's nonce and the server's behind it: printable ASCII without commas.
    pub nonce: String,
    /// What the password is stretched with.
    pub salt: Vec<u8>,
    /// How often it is hashed; a client has to decide what it puts up with.
    pub rounds: u32,
}

impl Challenge {
    /// Reads a challenge; extensions behind the known fields are ignored.
    ///
    /// # Errors
    /// [`Malformed`], also for extensions in front, which a client must not ignore.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let mut fields = text.split(',');
        let nonce = field(fields.next(), "r=")?.to_owned();
        let salt = BASE64.decode(field(fields.next(), "s=")?).map_err(|_| Malformed)?;
        let rounds = field(fields.next(), "i=")?.parse().map_err(|_| Malformed)?;
        Ok(Self { nonce, salt, rounds })
    }
}

impl fmt::Display for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r={},s={},i={}", self.nonce, BASE64.encode(&self.salt), self.rounds)
    }
}

/// A message as text.
///
/// # Errors
/// [`Malformed`] when it is too long or not UTF-8.
pub fn text_of(message: &[u8]) -> Result<&str, Malformed> {
    if message.len() > MESSAGE_LEN_MAX {
        return Err(Malformed);
    }
    std::str::from_utf8(message).map_err(|_| Malformed)
}

/// The value of a field that has to be there, by its name with the `=`.
///
/// # Errors
/// [`Malformed`] when there is none, or another one.
pub fn field<'a>(text: Option<&'a str>, name: &str) -> Result<&'a str, Malformed> {
    text.and_then(|text| text.strip_prefix(name)).ok_or(Malformed)
}

/// A name as messages carry it: `,` as `=2C` and `=` as `=3D`.
pub fn escaped_name(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

/// The name that a message carries.
///
/// # Errors
/// [`Malformed`] for any `=` that does not begin an escape.
pub fn unescaped_name(text: &str) -> Result<String, Malformed> {
    let plain = text.replace("=2C", ",").replace("=3D", "=");
    let escapes = text.matches("=2C").count() + text.matches("=3D").count();
    (text.matches('=').count() == escapes).then_some(plain).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_has_a_bound() {
        assert_eq!(text_of(&[b'a'; 4097]), Err(Malformed));
        assert_eq!(text_of(&[0xff]), Err(Malformed));
        assert_eq!(text_of(b"abc"), Ok("abc"));
    }

    proptest! {
        #[test]
        fn a_challenge_is_read_as_it_was_written(
            nonce in "[!-+\\--~]{1,40}",
            salt in any::<Vec<u8>>(),
            rounds in any::<u32>(),
        ) {
            let challenge = Challenge { nonce, salt, rounds };
            prop_assert_eq!(Challenge::parse(&challenge.to_string()), Ok(challenge.clone()));
            prop_assert_eq!(Challenge::parse(&format!("{challenge},x=y")), Ok(challenge));
        }

        #[test]
        fn a_name_is_read_as_it_was_written(name in "[a-c=,23CD]{0,20}") {
            let escaped = escaped_name(&name);
            prop_assert!(!escaped.contains(','));
            prop_assert_eq!(unescaped_name(&escaped), Ok(name));
        }

        #[test]
        fn arbitrary_text_never_panics(text in any::<String>(), fields in "[rsi=,a-z0-9]{0,60}") {
            let _ = (Challenge::parse(&text), Challenge::parse(&fields));
            let _ = unescaped_name(&text);
        }
    }
}
