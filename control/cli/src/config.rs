//! The configuration file: its keys, and what a wrong one says.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::Deserialize;

use crate::failure::Failure;
use crate::key_limits::KeyLimits;

/// The file as it is written. Every key that is not here is refused by name and line.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// Instance; runtime files under /run/ipop/<name>.
    pub name: Option<String>,
    /// The node's key file.
    pub identity: Option<PathBuf>,
    /// The overlay interface.
    #[serde(default)]
    pub overlay: Overlay,
    /// The XMPP account.
    pub xmpp: Option<Xmpp>,
    /// The group.
    pub groupvpn: Option<GroupVpn>,
    /// NAT traversal.
    #[serde(default)]
    pub nat: Nat,
    /// How long keys are used.
    #[serde(default)]
    pub keys: KeyLimits,
}

/// `[overlay]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overlay {
    /// Interface name, `ipop0` by default.
    pub interface: Option<String>,
    /// `10.77.0.1/24`, or `auto` with `prefix`.
    pub address: Option<String>,
    /// `fd00::1/64`; derived from the node's key by default.
    pub address6: Option<String>,
    /// Prefix to derive the address in.
    pub prefix: Option<String>,
    /// `auto` or bytes.
    pub mtu: Option<Mtu>,
    /// UDP port of the links, of the first worker's; any by default.
    pub port: Option<u16>,
    /// `auto`, which is one per core, or a number.
    pub workers: Option<Workers>,
    /// Queues of each worker in front of it.
    pub queues: Option<u8>,
    /// Whether each worker stays on a core of its own.
    pub pin: Option<bool>,
    /// Whether workers run before all ordinary programs.
    pub realtime: Option<bool>,
    /// How long a worker looks for packets before it sleeps, microseconds.
    pub busy_poll: Option<u32>,
    /// What carries packets to the kernel and back.
    pub io: Option<Io>,
}

/// `io = "auto"`, `io = "uring"` or `io = "poll"`; the same words after `--io`.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Io {
    /// io_uring where it can be used, else a poll loop
    #[default]
    Auto,
    /// io_uring or nothing
    Uring,
    /// A poll loop, which takes more CPU
    Poll,
}

/// `mtu = "auto"`, what the widest link carries, or `mtu = 1400`.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "mtu is \"auto\" or a number of bytes")]
pub enum Mtu {
    /// Bytes.
    Bytes(u16),
    /// `auto`, or a number in quotes.
    Text(String),
}

/// `workers = "auto"` or `workers = 4`.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "workers is \"auto\" or a number")]
pub enum Workers {
    /// So many.
    Count(u8),
    /// `auto`.
    Text(String),
}

/// `[xmpp]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Xmpp {
    /// user@domain.
    pub jid: String,
    /// The password itself; the file must then be readable by its owner only.
    pub password: Option<String>,
    /// A file that holds the password.
    pub password_file: Option<PathBuf>,
    /// `host:port`; DNS SRV by default.
    pub server: Option<String>,
    /// Roots to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// How TLS starts.
    #[serde(default)]
    pub tls: Tls,
    /// Whether PLAIN may be used where the server offers no SCRAM.
    #[serde(default)]
    pub allow_plain: bool,
}

/// `tls = "starttls"` or `tls = "direct"`.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// On the XMPP port, by STARTTLS.
    #[default]
    Starttls,
    /// From the first byte.
    Direct,
}

/// `[groupvpn]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupVpn {
    /// room@service.
    pub room: String,
    /// The room's password, where it has one.
    pub password: Option<String>,
    /// Ciphers that the group allows; the usual ones by default.
    #[serde(default)]
    pub ciphers: Vec<String>,
}

/// `[nat]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nat {
    /// `stun:host:port`.
    #[serde(default)]
    pub stun: Vec<String>,
    /// TURN servers with their credentials.
    #[serde(default)]
    pub turn: Vec<TurnEntry>,
    /// Whether the router is asked for a port mapping; it is by default.
    pub port_mapping: Option<bool>,
    /// Roots to trust for TURN over TLS instead of those of `xmpp.ca_file` or of the system.
    pub ca_file: Option<PathBuf>,
}

/// One of `nat.turn`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TurnEntry {
    /// `turn:host:port?transport=udp` or `tcp`, or `turns:host:port`.
    pub uri: String,
    /// Long-term credential.
    pub username: String,
    /// Long-term credential.
    pub password: String,
}

impl Io {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Poll => "poll",
        }
    }
}

impl From<Io> for ipop_engine::Io {
    fn from(io: Io) -> Self {
        match io {
            Io::Auto => Self::Auto,
            Io::Uring => Self::Uring,
            Io::Poll => Self::Poll,
        }
    }
}

impl ConfigFile {
    /// Reads the file.
    ///
    /// # Errors
    /// Names the file, and the line and key that are wrong.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(path).map_err(|error| {
            Failure::usage(format!("cannot read the configuration {}: {error}", path.display()))
        })?;
        let config: Self = toml::from_str(&text).map_err(|error| {
            Failure::usage(format!("{}: {}", path.display(), error.to_string().trim_end()))
        })?;
        let has_secret = config.xmpp.as_ref().is_some_and(|xmpp| xmpp.password.is_some())
            || config.nat.turn.iter().any(|turn| !turn.password.is_empty())
            || config.groupvpn.as_ref().is_some_and(|group| group.password.is_some());
        if has_secret {
            require_private(path, "holds a password")?;
        }
        Ok(config)
    }
}

impl Xmpp {
    /// The password, from the file or from the file that it names.
    ///
    /// # Errors
    /// When there is none, or its file cannot be read or may be read by others.
    pub fn secret(&self) -> Result<String, Failure> {
        match (&self.password, &self.password_file) {
            (Some(password), None) => Ok(password.clone()),
            (None, Some(path)) => {
                require_private(path, "holds a password")?;
                let text = fs::read_to_string(path).map_err(|error| {
                    Failure::usage(format!("xmpp.password_file {}: {error}", path.display()))
                })?;
                Ok(text.trim_end_matches(['\r', '\n']).to_owned())
            }
            (Some(_), Some(_)) => Err(Failure::usage(
                "xmpp.password and xmpp.password_file are both set: keep one of them",
            )),
            (None, None) => {
                Err(Failure::usage("xmpp.password is missing: set it, or xmpp.password_file"))
            }
        }
    }
}

/// Refuses a file that others may read.
///
/// # Errors
/// Names the file, its mode and the command that mends it.
pub fn require_private(path: &Path, why: &str) -> Result<(), Failure> {
    let metadata = fs::metadata(path)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "{} {why} but its mode is {mode:04o}, so others can read it: run `chmod 600 {}`",
        path.display(),
        path.display()
    )))
}

/// Reads `address/prefix`; `key` is named when it is wrong.
///
/// # Errors
/// When it is not an address, a slash and a prefix length of that family.
pub fn cidr(key: &str, text: &str) -> Result<(IpAddr, u8), Failure> {
    let wrong = |what: &str| {
        Failure::usage(format!("{key} = `{text}`: {what}; write it as 10.77.0.1/24 or fd00::1/64"))
    };
    let (address, prefix) = text.split_once('/').ok_or_else(|| wrong("no prefix length"))?;
    let address: IpAddr = address.parse().map_err(|_| wrong("not an IP address"))?;
    let prefix: u8 = prefix.parse().map_err(|_| wrong("not a prefix length"))?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    if prefix > longest {
        return Err(wrong("the prefix is longer than the address"));
    }
    Ok((address, prefix))
}

/// As [`cidr`], IPv4 only.
///
/// # Errors
/// As [`cidr`].
pub fn cidr4(key: &str, text: &str) -> Result<(Ipv4Addr, u8), Failure> {
    match cidr(key, text)? {
        (IpAddr::V4(address), prefix) => Ok((address, prefix)),
        _ => Err(Failure::usage(format!("{key} = `{text}`: an IPv4 network is needed here"))),
    }
}

/// As [`cidr`], IPv6 only.
///
/// # Errors
/// As [`cidr`].
pub fn cidr6(key: &str, text: &str) -> Result<(Ipv6Addr, u8), Failure> {
    match cidr(key, text)? {
        (IpAddr::V6(address), prefix) => Ok((address, prefix)),
        _ => Err(Failure::usage(format!("{key} = `{text}`: an IPv6 network is needed here"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        toml::from_str::<ConfigFile>(text).unwrap_err().to_string()
    }

    #[test]
    fn the_documented_file_is_read() {
        let text = r#"
            name = "node1"
            [overlay]
            interface = "ipop0"
            address = "10.77.0.1/24"
            mtu = "auto"
            [xmpp]
            jid = "node1@lab.test"
            password = "secret"
            server = "198.18.0.10:5222"
            ca_file = "ca.pem"
            tls = "starttls"
            [groupvpn]
            room = "cluster@conference.lab.test"
            [nat]
            stun = ["stun:198.18.0.20:3478"]
            turn = [{ uri = "turn:198.18.0.20:3478?transport=udp", username = "u", password = "p" },
                    { uri = "turns:turn.lab.test:443", username = "u", password = "p" }]
            ca_file = "turn.pem"
        "#;
        let config: ConfigFile = toml::from_str(text).unwrap();
        assert_eq!(config.xmpp.unwrap().tls, Tls::Starttls);
        assert_eq!(config.nat.turn[0].username, "u");
    }

    #[test]
    fn a_wrong_key_or_value_names_itself_and_its_line() {
        let text = refused("name = \"a\"\n[overlay]\nadress = \"10.0.0.1/8\"\n");
        assert!(text.contains("line 3") && text.contains("adress"), "{text}");
        let text = refused("[xmpp]\njid = \"a@b\"\ntls = \"none\"\n");
        assert!(text.contains("line 3") && text.contains("starttls"), "{text}");
        let text = refused("[overlay]\nio = \"fast\"\n");
        assert!(text.contains("line 2") && text.contains("uring"), "{text}");
        let text = refused("[overlay]\nmtu = true\n");
        assert!(text.contains("line 2") && text.contains("auto"), "{text}");
    }

    #[test]
    fn networks_say_what_is_wrong_with_them() {
        assert_eq!(cidr4("k", "10.1.2.3/8").unwrap(), (Ipv4Addr::new(10, 1, 2, 3), 8));
        for (text, what) in [("10.1.2.3", "no prefix"), ("x/8", "not an IP"), ("::1/129", "longer")]
        {
            let failure = cidr("overlay.address", text).unwrap_err().to_string();
            assert!(failure.contains(what) && failure.contains("overlay.address"), "{failure}");
        }
    }
}
