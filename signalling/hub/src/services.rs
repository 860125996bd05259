//! STUN and TURN as offered by XEP-0215, with credentials that end by themselves.
//!
//! As in the TURN REST draft the user name is `expiry:user` (seconds since 1970) and the password
//! the Base64 of its HMAC-SHA1 under a key that only the hub has; nothing has to be remembered.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ipop_signal::{Host, HostPort, IceServers, Transport, TurnServer};
use std::net::IpAddr;

const HOUR_S: u64 = 3600;
/// Expiry is rounded to full hours, so that asking twice gives the same answer.
const LIFE_HOURS: u64 = 24;
const USER_LEN_MAX: usize = 128;

/// Makes and checks time-limited credentials for the relay, by a key that tickets do not carry.
#[derive(Clone)]
pub(crate) struct RelayKey(hmac::Key);

impl RelayKey {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key))
    }

    /// User name, password and expiry.
    pub(crate) fn issue(&self, user: &str, unix_s: u64) -> (String, String, u64) {
        let expires = (unix_s / HOUR_S + LIFE_HOURS + 1) * HOUR_S;
        let username = format!("{expires}:{user}");
        let password = self.password(&username);
        (username, password, expires)
    }

    pub(crate) fn password(&self, username: &str) -> String {
        BASE64.encode(hmac::sign(&self.0, username.as_bytes()))
    }
}

/// When a user name expires and whose it is; `None` when it is none of ours.
pub(crate) fn parse_username(username: &str) -> Option<(u64, &str)> {
    let (expires, user) = username.split_once(':')?;
    let sound = expires.bytes().all(|byte| byte.is_ascii_digit()) && user.len() <= USER_LEN_MAX;
    sound.then(|| Some((expires.parse().ok()?, user))).flatten()
}

/// What is offered to whom.
pub(crate) struct Services {
    key: RelayKey,
    /// Given by the operator, instead of the address that the client reached us at.
    advertised: Vec<HostPort>,
    stun_port: u16,
    /// Where XMPP is served, and TURN over TCP.
    port: u16,
}

impl Services {
    pub(crate) fn new(key: RelayKey, advertised: Vec<HostPort>, stun_port: u16, port: u16) -> Self {
        Self { key, advertised, stun_port, port }
    }

    /// STUN and TURN for a user who reached us at an address of ours.
    pub(crate) fn offer(&self, user: &str, reached_at: IpAddr, unix_s: u64) -> IceServers {
        let (username, password, expires) = self.key.issue(user, unix_s);
        let reached = Host::Address(reached_at.to_canonical());
        let places = match self.advertised.as_slice() {
            [] => vec![HostPort { host: reached, port: self.port }],
            given => given.to_vec(),
        };
        let stun = |at: &HostPort| HostPort { host: at.host.clone(), port: self.stun_port };
        let turn = |at: HostPort, transport| TurnServer {
            at,
            transport,
            username: username.clone(),
            password: password.clone(),
            expires_unix_s: Some(expires),
        };
        let of_place =
            |at: &HostPort| [turn(stun(at), Transport::Udp), turn(at.clone(), Transport::Tcp)];
        IceServers {
            stun: places.iter().map(stun).collect(),
            turn: places.iter().flat_map(of_place).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_those_of_the_rest_draft() {
        let key = RelayKey(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"lab-secret"));
        // printf 1700000000:u | openssl dgst -sha1 -hmac lab-secret -binary | base64
        assert_eq!(key.password("1700000000:u"), "cZd9bsOpylkOSL19zN7SBlnz2TM=");
    }

    #[test]
    fn credentials_end_between_24_and_25_hours_later() {
        let key = RelayKey::new(&[1; 32]);
        for now in [0, 1, 3599, 3600, 1_700_000_123] {
            let (username, password, expires) = key.issue("alice", now);
            assert!((24 * HOUR_S..=25 * HOUR_S).contains(&(expires - now)));
            assert_eq!(parse_username(&username), Some((expires, "alice")));
            assert_eq!(key.password(&username), password);
            assert_ne!(RelayKey::new(&[2; 32]).password(&username), password);
        }
    }

    #[test]
    fn other_user_names_are_not_ours() {
        for name in ["", "alice", ":alice", "-1:a", "1e9:a", "99999999999999999999999:a"] {
            assert_eq!(parse_username(name), None, "{name}");
        }
    }

    #[test]
    fn the_address_that_was_reached_is_offered() {
        let reached: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        let services = Services::new(RelayKey::new(&[1; 32]), Vec::new(), 3478, 5222);
        let offer = services.offer("u", reached, 0);
        assert_eq!(offer.stun[0].to_string(), "192.0.2.1:3478");
        assert_eq!(offer.turn[0].at, offer.stun[0]);
        let over: Vec<_> = offer.turn.iter().map(|turn| (turn.at.port, turn.transport)).collect();
        assert_eq!(over, [(3478, Transport::Udp), (5222, Transport::Tcp)]);
        let at = |host, port| HostPort { host: Host::of(host), port };
        let given = vec![at("hub.example", 443), at("2001:db8::1", 5222)];
        let services = Services::new(RelayKey::new(&[1; 32]), given, 3478, 5222);
        let offer = services.offer("u", reached, 0);
        let stun: Vec<_> = offer.stun.iter().map(ToString::to_string).collect();
        assert_eq!(stun, ["hub.example:3478", "[2001:db8::1]:3478"]);
        assert_eq!(offer.turn[1].at.to_string(), "hub.example:443");
    }
}
