//! Who may log in.
//!
//! Nodes need no registration: whoever has the ticket computes the password of any user name of 16
//! to 40 lower-case hexadecimal digits ([`account_for`]). Standard clients get named accounts,
//! whose passwords come from the same secret and a salt in `accounts.toml`:
//!
//! ```toml
//! [alice]
//! salt = "5f0c6d1e9a2b77335f0c6d1e9a2b7733"
//! ```

use crate::error::HubError;
use crate::files;
use crate::scram::Verifier;
use crate::state::{self, from_hex, to_hex};
use crate::ticket::Ticket;
use aws_lc_rs::{hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ipop_stream::scram::Hash;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const FILE: &str = "accounts.toml";
const NODE_LABEL: &str = "ipop account v1";
const NAMED_LABEL: &str = "ipop named account v1";
const SALT_LABEL: &str = "ipop scram salt v1";
const NOBODY_LABEL: &str = "ipop nobody v1";
const NODE_USER_LEN: usize = 32;
const NAME_LEN_MAX: usize = 64;

/// The account of a node at the hub of a ticket: its address (`user@domain`) and password. The
/// user name is the first 32 digits of the node's UID.
pub fn account_for(ticket: &Ticket, uid_hex: &str) -> (String, String) {
    let user: String = uid_hex.chars().take(NODE_USER_LEN).collect::<String>().to_lowercase();
    let password = node_password(&ticket.secret, &user);
    (format!("{user}@{}", ticket.domain), password)
}

/// All accounts of a hub.
pub(crate) struct Accounts {
    secret: [u8; 32],
    state: PathBuf,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(transparent)]
struct Named(BTreeMap<String, NamedAccount>);

#[derive(Serialize, Deserialize)]
struct NamedAccount {
    /// 16 bytes in hexadecimal.
    salt: String,
}

impl Accounts {
    pub(crate) fn new(secret: [u8; 32], state: PathBuf) -> Self {
        Self { secret, state }
    }

    /// What to check a login against, and whether there is such a user at all. Both kinds of users,
    /// and those who do not exist, take the same steps.
    pub(crate) fn verifier(&self, user: &str, hash: Hash) -> (Verifier, bool) {
        let named = read(&self.state).unwrap_or_else(|error| {
            tracing::error!(%error, "named accounts cannot log in");
            Named::default()
        });
        let named = named.0.get(user).and_then(|account| from_hex::<16>(&account.salt));
        let nobody = BASE64.encode(derive(&self.secret, NOBODY_LABEL, &[user.as_bytes()]));
        let (password, known) = match named {
            Some(salt) => (named_password(&self.secret, user, &salt), true),
            None if is_node_user(user) => (node_password(&self.secret, user), true),
            None => (nobody, false),
        };
        let salt =
            derive(&self.secret, SALT_LABEL, &[hash.mechanism().as_bytes(), user.as_bytes()]);
        (Verifier::new(hash, &password, salt[..16].to_vec()), known)
    }
}

/// Makes a named account, or finds it; its password.
pub(crate) fn add(path: &Path, name: &str) -> Result<String, HubError> {
    let is_allowed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-')
    };
    let fits = (1..=NAME_LEN_MAX).contains(&name.len()) && name.bytes().all(is_allowed);
    if !fits || is_node_user(name) {
        return Err(HubError::Configuration(format!(
            "{name:?} cannot be an account: use 1 to {NAME_LEN_MAX} of a-z, 0-9, '.', '_' and '-', \
             and more than hexadecimal digits"
        )));
    }
    if files::read(&path.join("secret"))?.is_none() {
        let path = path.display();
        let text = format!("no hub has run on {path} yet: start it once with --state {path}");
        return Err(HubError::Configuration(text));
    }
    let secret = state::secret(path)?;
    let mut named = read(path)?;
    let found = named.0.get(name).and_then(|account| from_hex::<16>(&account.salt));
    if let Some(salt) = found {
        return Ok(named_password(&secret, name, &salt));
    }
    let mut salt = [0; 16];
    rand::fill(&mut salt).map_err(|error| HubError::Cryptography(error.to_string()))?;
    named.0.insert(name.to_owned(), NamedAccount { salt: to_hex(&salt) });
    let text = toml::to_string(&named)
        .map_err(|error| HubError::Configuration(format!("cannot write accounts: {error}")))?;
    files::write(&path.join(FILE), text.as_bytes())?;
    Ok(named_password(&secret, name, &salt))
}

fn read(state: &Path) -> Result<Named, HubError> {
    let path = state.join(FILE);
    let Some(bytes) = files::read_secret(&path)? else { return Ok(Named::default()) };
    let text = String::from_utf8_lossy(&bytes);
    toml::from_str(&text).map_err(|error| HubError::Damaged { path, reason: error.to_string() })
}

/// Whether a user name is one that ticket holders use.
fn is_node_user(user: &str) -> bool {
    (16..=40).contains(&user.len())
        && user.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn node_password(secret: &[u8; 32], user: &str) -> String {
    BASE64.encode(derive(secret, NODE_LABEL, &[user.as_bytes()]))
}

/// 144 bits: shorter to type than a node's, and as far from being guessed.
fn named_password(secret: &[u8; 32], name: &str, salt: &[u8; 16]) -> String {
    BASE64.encode(&derive(secret, NAMED_LABEL, &[name.as_bytes(), salt])[..18])
}

/// HMAC-SHA256 of a label and parts, each but the last ended by a zero.
fn derive(secret: &[u8; 32], label: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
    context.update(label.as_bytes());
    for part in parts {
        context.update(&[0]);
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.sign().as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_node_computes_what_the_hub_expects() {
        let ticket = Ticket {
            addresses: Vec::new(),
            domain: "hub.test".into(),
            certificate: [0; 32],
            room: "ipop".into(),
            secret: [7; 32],
        };
        let uid = "0123456789abcdef0123456789abcdef01234567";
        let (address, password) = account_for(&ticket, uid);
        assert_eq!(address, "0123456789abcdef0123456789abcdef@hub.test");
        let mut message = b"ipop account v1\0".to_vec();
        message.extend_from_slice(&uid.as_bytes()[..32]);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
        assert_eq!(password, BASE64.encode(hmac::sign(&key, &message)));
    }

    #[test]
    fn named_accounts_are_made_once() {
        let scratch = Scratch::new();
        let path = scratch.path();
        state::State::open(path, "hub.test").unwrap();
        let alice = add(path, "alice").unwrap();
        assert_eq!(add(path, "alice").unwrap(), alice);
        assert_ne!(add(path, "bob").unwrap(), alice);
        assert_eq!(add(path, "alice").unwrap(), alice);
        let accounts = Accounts::new(state::secret(path).unwrap(), path.to_owned());
        let known = |user: &str| accounts.verifier(user, Hash::Sha256).1;
        assert!(known("alice") && known("bob") && known("0123456789abcdef"));
        assert!(!known("carol") && !known("0123456789abcde") && !known("0123456789ABCDEF"));
    }

    #[test]
    fn names_that_could_be_nodes_or_break_addresses_are_refused() {
        let scratch = Scratch::new();
        state::State::open(scratch.path(), "hub.test").unwrap();
        for name in ["", "A", "a@b", "a/b", "0123456789abcdef", &"x".repeat(65)] {
            assert!(add(scratch.path(), name).is_err(), "{name}");
        }
    }
}
