//! The long-term credential mechanism as a client lives it (RFC 8489 section 9.2).

use std::fmt;

use crate::message::{
    Algorithm, Attribute, BuildError, Builder, Integrity, IntegrityError, Key, KeyError, Message,
    PasswordAlgorithms,
};

use super::TurnError;

/// First characters of a nonce that tells the server's security features (RFC 8489 section 9.2).
const NONCE_COOKIE: &str = "obMatJos2";

/// User name and password at a TURN server.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    username: String,
    password: String,
}

impl Credential {
    /// Refuses what STUN cannot carry: empty names, control characters.
    pub fn new(username: &str, password: &str) -> Result<Self, KeyError> {
        Key::short_term(username)?;
        Key::long_term(username, "realm", password, Algorithm::Md5)?;
        Ok(Self { username: username.to_owned(), password: password.to_owned() })
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("username", &self.username).finish_non_exhaustive()
    }
}

/// What the server's challenge gave.
#[derive(Debug)]
struct Challenge {
    realm: String,
    nonce: String,
    /// Echoed in each request once the server sent it.
    offered: Option<PasswordAlgorithms>,
    algorithm: Algorithm,
    key: Key,
}

/// A credential and the last challenge.
#[derive(Debug)]
pub(super) struct LongTerm {
    credential: Credential,
    challenge: Option<Challenge>,
}

impl LongTerm {
    pub fn new(credential: Credential) -> Self {
        Self { credential, challenge: None }
    }

    /// Whether it is this credential.
    pub fn is_of(&self, credential: &Credential) -> bool {
        self.credential == *credential
    }

    /// Whether requests can be signed yet.
    pub fn is_challenged(&self) -> bool {
        self.challenge.is_some()
    }

    /// Builds `request`, signed if there was a challenge.
    pub fn sign(&self, request: Builder) -> Result<Vec<u8>, BuildError> {
        let Some(challenge) = &self.challenge else { return request.fingerprint().build() };
        let mut request = request
            .with(Attribute::Username(self.credential.username.clone()))
            .with(Attribute::Realm(challenge.realm.clone()))
            .with(Attribute::Nonce(challenge.nonce.clone()));
        if let Some(offered) = &challenge.offered {
            request = request
                .with(Attribute::PasswordAlgorithms(offered.clone()))
                .with(Attribute::PasswordAlgorithm(challenge.algorithm));
        }
        let request = match challenge.algorithm {
            Algorithm::Md5 => request.integrity(&challenge.key),
            Algorithm::Sha256 => request.integrity_sha256(&challenge.key),
        };
        request.fingerprint().build()
    }

    /// Checks a response to a signed request. The attribute must be the one that we sign with, so
    /// that nobody can choose a weaker one for the server.
    pub fn verify(&self, response: &Message<'_>) -> Result<(), IntegrityError> {
        let Some(challenge) = &self.challenge else { return Err(IntegrityError::Missing) };
        match (response.verify(&challenge.key)?, challenge.algorithm) {
            (Integrity::Sha1, Algorithm::Sha256) => Err(IntegrityError::Mismatch),
            _ => Ok(()),
        }
    }

    /// Starts over without a challenge.
    pub fn forget(&mut self) {
        self.challenge = None;
    }

    /// Takes a 401. `answered`: the request already answered the challenge before it.
    pub fn on_unauthenticated(
        &mut self,
        response: &Message<'_>,
        answered: bool,
    ) -> Result<(), TurnError> {
        let (Some(realm), Some(nonce)) = (response.realm(), response.nonce()) else {
            // A server that rejects a credential need not challenge again.
            return Err(if answered {
                TurnError::WrongCredential
            } else {
                TurnError::Malformed("a challenge without realm or nonce")
            });
        };
        if answered && self.challenge.as_ref().is_some_and(|challenge| challenge.realm == realm) {
            return Err(TurnError::WrongCredential);
        }
        let offered = response.password_algorithms();
        let algorithm = match choose(nonce, offered.as_ref()) {
            // Some servers leave the list out for those they know, and sign instead.
            Err(_) if offered.is_none() && self.is_signed(response, realm) => Algorithm::Md5,
            choice => choice?,
        };
        let key = self.key(realm, algorithm)?;
        let (realm, nonce) = (realm.to_owned(), nonce.to_owned());
        self.challenge = Some(Challenge { realm, nonce, offered, algorithm, key });
        Ok(())
    }

    fn key(&self, realm: &str, algorithm: Algorithm) -> Result<Key, TurnError> {
        let Credential { username, password } = &self.credential;
        Key::long_term(username, realm, password, algorithm)
            .map_err(|_| TurnError::Malformed("a realm that makes no key"))
    }

    /// Whether somebody who knows our password made this response.
    fn is_signed(&self, response: &Message<'_>, realm: &str) -> bool {
        let proves =
            |algorithm| self.key(realm, algorithm).is_ok_and(|key| response.verify(&key).is_ok());
        proves(Algorithm::Sha256) || proves(Algorithm::Md5)
    }

    /// Takes a 438: the nonce is outdated, all else stands.
    pub fn on_stale_nonce(&mut self, response: &Message<'_>) -> Result<(), TurnError> {
        let nonce = response.nonce().ok_or(TurnError::Malformed("a stale nonce without a new"))?;
        let challenge =
            self.challenge.as_mut().ok_or(TurnError::Malformed("a stale nonce before any"))?;
        nonce.clone_into(&mut challenge.nonce);
        Ok(())
    }
}

/// The algorithm to use (RFC 8489 section 9.2.5). A nonce that promises a list that is not there
/// was tampered with: somebody wants us to use the weaker algorithm.
fn choose(nonce: &str, offered: Option<&PasswordAlgorithms>) -> Result<Algorithm, TurnError> {
    match offered {
        Some(offered) if nonce.starts_with(NONCE_COOKIE) => {
            offered.choose().ok_or(TurnError::Malformed("password algorithms that nobody knows"))
        }
        None if promises_algorithms(nonce) => {
            Err(TurnError::Malformed("a list of password algorithms was removed"))
        }
        _ => Ok(Algorithm::Md5),
    }
}

/// Whether the nonce has the cookie and its first feature bit, "Password algorithms": the top bit
/// of the Base64 digit that follows (RFC 8489 section 18.1).
fn promises_algorithms(nonce: &str) -> bool {
    let digit = nonce.strip_prefix(NONCE_COOKIE).and_then(|rest| rest.bytes().next());
    // Digits 0 to 31 are the capital letters and a to f.
    digit.is_some_and(|digit| matches!(digit, b'g'..=b'z' | b'0'..=b'9' | b'+' | b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_list_is_noticed() {
        let md5_first = PasswordAlgorithms::new(&[Algorithm::Md5, Algorithm::Sha256]);
        let sha_first = PasswordAlgorithms::new(&[Algorithm::Sha256, Algorithm::Md5]);
        assert_eq!(choose("abc", None), Ok(Algorithm::Md5));
        assert_eq!(choose("abc", Some(&sha_first)), Ok(Algorithm::Md5), "no cookie, no list");
        assert_eq!(choose("obMatJos2gAAAx", Some(&sha_first)), Ok(Algorithm::Sha256));
        assert_eq!(choose("obMatJos2gAAAx", Some(&md5_first)), Ok(Algorithm::Md5));
        assert!(choose("obMatJos2gAAAx", None).is_err());
        assert!(choose("obMatJos2wAAAx", None).is_err());
        assert_eq!(choose("obMatJos2QAAAx", None), Ok(Algorithm::Md5), "anonymity alone");
        assert_eq!(choose("obMatJos2", None), Ok(Algorithm::Md5));
        assert_eq!(choose("obMatJos2\u{fd}\u{80}", None), Ok(Algorithm::Md5));
    }

    #[test]
    fn what_stun_cannot_carry_is_refused_at_once() {
        assert!(Credential::new("u", "p").is_ok());
        assert!(Credential::new("1700000000:node", "c2VjcmV0Lw==").is_ok());
        for (username, password) in [("", "p"), ("u", ""), ("u\n", "p"), ("u", "\u{7}")] {
            assert!(Credential::new(username, password).is_err());
        }
        let shown = format!("{:?}", Credential::new("u", "secret").unwrap());
        assert!(!shown.contains("secret"));
    }
}
