//! SCRAM, the server's side (RFC 5802, RFC 7677), without channel binding.
//!
//! Both ends prove that they know the password. An unknown user goes through the same motions with
//! a password that nobody has, so neither answer nor time tells who exists.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ipop_stream::scram::{
    Challenge, Hash, Malformed, SaltedPassword, ServerKeys, field, text_of, unescaped_name,
};
use std::num::NonZeroU32;

/// RFC 7677 section 4 asks for at least this many rounds; our passwords need none.
const ROUNDS: NonZeroU32 = NonZeroU32::new(4096).expect("not zero");

/// Why the exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScramError {
    #[error("the message is malformed")]
    Malformed,
    #[error("channel binding was asked for and is not offered")]
    Binding,
    #[error("somebody else's name was asked for")]
    Authzid,
    #[error("user name or password is wrong")]
    Refused,
}

/// What an account's owner knows, stretched.
pub(crate) struct Verifier {
    salt: Vec<u8>,
    keys: ServerKeys,
}

/// The client's first message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct First {
    pub(crate) username: String,
    /// `user@domain`, when the client names whom it wants to be.
    pub(crate) authzid: Option<String>,
    header: String,
    bare: String,
    nonce: String,
}

/// An exchange that waits for the client's proof.
pub(crate) struct Pending {
    keys: ServerKeys,
    /// Whether there is such a user.
    known: bool,
    header: String,
    nonce: String,
    /// Client's first message and our challenge.
    exchange: String,
}

impl First {
    /// Reads the client's first message.
    pub(crate) fn parse(message: &[u8]) -> Result<Self, ScramError> {
        let message = text_of(message)?;
        let mut parts = message.splitn(3, ',');
        let flag = parts.next().unwrap_or_default();
        let authzid = parts.next().ok_or(ScramError::Malformed)?;
        let bare = parts.next().ok_or(ScramError::Malformed)?;
        match flag {
            "n" | "y" => {}
            _ if flag.starts_with("p=") => return Err(ScramError::Binding),
            _ => return Err(ScramError::Malformed),
        }
        let mut fields = bare.split(',');
        let username = unescaped_name(field(fields.next(), "n=")?)?;
        let nonce = field(fields.next(), "r=")?;
        if username.is_empty() || nonce.is_empty() {
            return Err(ScramError::Malformed);
        }
        let authzid = match authzid {
            "" => None,
            text => Some(unescaped_name(field(Some(text), "a=")?)?),
        };
        let header = message[..message.len() - bare.len()].to_owned();
        let (bare, nonce) = (bare.to_owned(), nonce.to_owned());
        Ok(Self { username, authzid, header, bare, nonce })
    }

    /// Answers with the challenge. `nonce` is of printable ASCII without commas and never repeats.
    pub(crate) fn challenge(
        self,
        verifier: Verifier,
        known: bool,
        nonce: &str,
    ) -> (Pending, String) {
        let nonce = format!("{}{nonce}", self.nonce);
        let Verifier { salt, keys } = verifier;
        let challenge = Challenge { nonce, salt, rounds: ROUNDS.get() };
        let (text, nonce) = (challenge.to_string(), challenge.nonce);
        let exchange = format!("{},{text}", self.bare);
        (Pending { keys, known, header: self.header, nonce, exchange }, text)
    }
}

impl Pending {
    /// Checks the client's proof and gives ours.
    pub(crate) fn finish(self, message: &[u8]) -> Result<String, ScramError> {
        let message = text_of(message)?;
        let (bare, proof) = message.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let mut fields = bare.split(',');
        let header = BASE64.decode(field(fields.next(), "c=")?);
        let header = header.map_err(|_| ScramError::Malformed)?;
        let nonce = field(fields.next(), "r=")?;
        let proof = BASE64.decode(proof).map_err(|_| ScramError::Malformed)?;
        if header != self.header.as_bytes() || nonce != self.nonce {
            return Err(ScramError::Refused);
        }
        let exchange = format!("{},{bare}", self.exchange);
        let proven = self.keys.accept(&exchange, &proof);
        if !(proven & self.known) {
            return Err(ScramError::Refused);
        }
        Ok(format!("v={}", BASE64.encode(self.keys.signature(&exchange))))
    }
}

impl Verifier {
    pub(crate) fn new(hash: Hash, password: &str, salt: Vec<u8>) -> Self {
        let salted = SaltedPassword::new(hash, password, &salt, ROUNDS);
        Self { salt, keys: salted.server_keys() }
    }
}

impl From<Malformed> for ScramError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pending(
        hash: Hash,
        client_nonce: &str,
        server_nonce: &str,
        salt: &str,
    ) -> (Pending, String) {
        let first = First::parse(format!("n,,n=user,r={client_nonce}").as_bytes()).unwrap();
        assert_eq!(first.username, "user");
        let verifier = Verifier::new(hash, "pencil", BASE64.decode(salt).unwrap());
        first.challenge(verifier, true, server_nonce)
    }

    fn sha1() -> (Pending, String) {
        pending(Hash::Sha1, "fyko+d2lbbFgONRv9qkxdawL", "3rfcNHYJY1ZVvWVs7j", "QSXCR+Q6sek8bf92")
    }

    /// The exchange printed in RFC 5802 section 5.
    #[test]
    fn sha1_speaks_as_the_rfc() {
        let (pending, challenge) = sha1();
        let expected = "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096";
        assert_eq!(challenge, expected);
        let last = "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,\
                    p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=";
        assert_eq!(pending.finish(last.as_bytes()).unwrap(), "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=");
    }

    /// The exchange printed in RFC 7677 section 3.
    #[test]
    fn sha256_speaks_as_the_rfc() {
        let (pending, challenge) = pending(
            Hash::Sha256,
            "rOprNGfwEbeRWgbNEkqO",
            "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
            "W22ZaJ0SNY7soEsUEjb6gQ==",
        );
        let expected = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                        s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        assert_eq!(challenge, expected);
        let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                    p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let signature = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert_eq!(pending.finish(last.as_bytes()).unwrap(), signature);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let nonce = "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j";
        let finish = |text: String| sha1().0.finish(text.as_bytes()).unwrap_err();
        let proof = "p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=";
        assert_eq!(
            finish(format!("c=biws,{nonce},p=v0X8v3Bz2T0CJGbJQyF0X+HI4Tw=")),
            ScramError::Refused
        );
        assert_eq!(finish(format!("c=eSws,{nonce},{proof}")), ScramError::Refused);
        assert_eq!(finish(format!("c=biws,r=other,{proof}")), ScramError::Refused);
        assert_eq!(finish(format!("c=biws,{nonce},p=AAAA")), ScramError::Refused);
        assert_eq!(finish("c=biws".into()), ScramError::Malformed);
    }

    #[test]
    fn an_unknown_user_is_refused_even_with_the_right_proof() {
        let (mut pending, _) = sha1();
        pending.known = false;
        let last = "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,\
                    p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=";
        assert_eq!(pending.finish(last.as_bytes()), Err(ScramError::Refused));
    }

    #[test]
    fn first_messages_are_read() {
        let first = First::parse(b"y,a=x@y,n=a=2Cb=3D,r=abc,ext=1").unwrap();
        assert_eq!((first.username.as_str(), first.authzid.as_deref()), ("a,b=", Some("x@y")));
        assert_eq!((first.header.as_str(), first.nonce.as_str()), ("y,a=x@y,", "abc"));
        assert_eq!(First::parse(b"p=tls-exporter,,n=a,r=b"), Err(ScramError::Binding));
        for bad in
            ["", "n", "n,,", "n,,n=a", "n,,n=,r=b", "x,,n=a,r=b", "n,b,n=a,r=b", "n,,n=a=b,r=c"]
        {
            assert_eq!(First::parse(bad.as_bytes()), Err(ScramError::Malformed), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_messages_never_panic(
            bytes in any::<Vec<u8>>(),
            text in "[nyp=,a-z0-9]{0,60}",
        ) {
            let _ = First::parse(&bytes);
            let _ = First::parse(text.as_bytes());
            let _ = sha1().0.finish(text.as_bytes());
        }
    }
}
