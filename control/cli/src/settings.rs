//! From file, ticket and flags to what an instance runs with.

use std::path::{Path, PathBuf};

use ipop_controller::{Account, Address, Endpoint, Relay, Settings, Trust};
use ipop_crypto::Cipher;
use ipop_hub::Ticket;

use crate::args::Up;
use crate::config::{ConfigFile, Io, Mtu, Overlay, Tls, Workers, cidr4, cidr6};
use crate::failure::Failure;
use crate::key_limits::KeyLimits;

/// The prefix that ticket holders derive their addresses in.
const TICKET_PREFIX: &str = "10.77.0.0/16";
/// The smallest MTU that IPv6 works with (RFC 8200 section 5).
const MTU_MIN: u16 = 1280;
/// More workers than this serve nobody: each takes 15 MiB.
const WORKERS_MAX: u8 = 64;

/// What an instance runs with.
#[derive(Debug)]
pub struct InstanceSettings {
    /// The instance's name.
    pub name: String,
    /// The overlay interface.
    pub interface: String,
    /// The node's key file.
    pub identity: PathBuf,
    /// UDP port of the links; 0 for any.
    pub port: u16,
    /// Ciphers that the group allows; the usual ones, if empty.
    pub ciphers: Vec<Cipher>,
    /// How long keys are used.
    pub keys: KeyLimits,
    /// Whether the router is asked for a port mapping.
    pub maps_port: bool,
    /// Number of workers; 0 for one per core.
    pub workers: u8,
    /// Tap queues of each worker.
    pub queues: u8,
    /// Whether each worker stays on a core of its own.
    pub pins: bool,
    /// Whether workers run before all ordinary programs.
    pub real_time: bool,
    /// How long a worker looks for packets before it sleeps, microseconds.
    pub busy_poll: u32,
    /// What carries packets to the kernel and back.
    pub io: Io,
    /// What the controller is told.
    pub controller: Settings,
}

/// Where the state of `name` is kept when nothing else is said.
pub fn state_dir(name: &str) -> PathBuf {
    Path::new("/var/lib/ipop").join(name)
}

/// A file of the node's beside its key: the key's name and one more ending.
pub fn beside(identity: &Path, ending: &str) -> PathBuf {
    let mut name = identity.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    identity.with_file_name(name)
}

/// Reads the configuration file of `up` and puts its flags over it.
///
/// # Errors
/// Names the key or flag that is wrong.
pub fn from_file(path: &Path, flags: &Up) -> Result<InstanceSettings, Failure> {
    let mut file = ConfigFile::read(path)?;
    overlay_flags(&mut file.overlay, flags);
    let missing = |section: &str| {
        Failure::usage(format!("{}: section [{section}] is missing", path.display()))
    };
    let xmpp = file.xmpp.clone().ok_or_else(|| missing("xmpp"))?;
    let group = file.groupvpn.clone().ok_or_else(|| missing("groupvpn"))?;
    // Paths in the file are meant from where the file is.
    let folder = path.parent().unwrap_or(Path::new("."));
    file.identity = file.identity.map(|identity| folder.join(identity));
    let trust = xmpp.ca_file.as_ref().map_or(Trust::System, |file| Trust::File(folder.join(file)));
    let account = Account {
        jid: xmpp.jid.clone(),
        password: in_folder(&xmpp, folder).secret()?,
        servers: xmpp.server.iter().cloned().collect(),
        trust,
        direct_tls: xmpp.tls == Tls::Direct,
        allow_plain: xmpp.allow_plain,
        resource: String::new(),
        offer: None,
    };
    let name = flags.name.clone().or(file.name.clone()).unwrap_or_else(|| "ipop".to_owned());
    let (stun, turn) = servers(&file)?;
    let turn_ca_file = turn_roots(&file, folder);
    let controller = Settings {
        name: name.clone(),
        memory: PathBuf::new(),
        servers_memory: PathBuf::new(),
        by_ticket: false,
        account,
        room: group.room,
        room_password: group.password,
        address: address(&file.overlay, None)?,
        address6: address6(&file.overlay)?,
        mtu: mtu(file.overlay.mtu.as_ref())?,
        stun,
        likely_stun: Vec::new(),
        turn,
        turn_ca_file,
    };
    finish(name, &file, flags, controller)
}

/// Makes the settings of a node that has nothing but a ticket.
///
/// # Errors
/// Names the flag that is wrong.
pub fn from_ticket(
    name: String,
    account: Account,
    ticket: &Ticket,
    flags: &Up,
) -> Result<InstanceSettings, Failure> {
    let mut file = ConfigFile::default();
    overlay_flags(&mut file.overlay, flags);
    let controller = Settings {
        name: name.clone(),
        memory: PathBuf::new(),
        servers_memory: PathBuf::new(),
        by_ticket: true,
        account,
        room: ticket.room_address(),
        room_password: None,
        address: address(&file.overlay, Some(TICKET_PREFIX))?,
        address6: None,
        mtu: mtu(file.overlay.mtu.as_ref())?,
        stun: Vec::new(),
        likely_stun: ticket.likely_stun(),
        turn: Vec::new(),
        turn_ca_file: None,
    };
    finish(name, &file, flags, controller)
}

fn finish(
    name: String,
    file: &ConfigFile,
    flags: &Up,
    mut controller: Settings,
) -> Result<InstanceSettings, Failure> {
    let interface = file.overlay.interface.clone().unwrap_or_else(|| "ipop0".to_owned());
    let allowed = |c: char| !c.is_whitespace() && c != '/' && c.is_ascii_graphic();
    if interface.is_empty() || interface.len() > 15 || !interface.chars().all(allowed) {
        return Err(Failure::usage(format!(
            "overlay.interface = `{interface}`: an interface name has 1 to 15 visible characters \
             and no slash"
        )));
    }
    ipop_controller::check(&controller).map_err(Failure::usage)?;
    let identity = flags.identity.clone().or(file.identity.clone());
    let identity = identity.unwrap_or_else(|| state_dir(&name).join("identity.pem"));
    let port = file.overlay.port.unwrap_or(0);
    let ciphers = ciphers(file, flags)?;
    file.keys.check()?;
    let workers = workers(file.overlay.workers.as_ref())?;
    let queues = queues(file.overlay.queues)?;
    let pins = file.overlay.pin.unwrap_or(false);
    let real_time = file.overlay.realtime.unwrap_or(false);
    let busy_poll = file.overlay.busy_poll.unwrap_or(0);
    let io = file.overlay.io.unwrap_or_default();
    controller.memory = beside(&identity, "peers");
    controller.servers_memory = beside(&identity, "servers");
    let settings = InstanceSettings {
        name,
        interface,
        identity,
        port,
        ciphers,
        keys: file.keys,
        maps_port: file.nat.port_mapping.unwrap_or(true),
        workers,
        queues,
        pins,
        real_time,
        busy_poll,
        io,
        controller,
    };
    Ok(settings)
}

fn overlay_flags(overlay: &mut Overlay, flags: &Up) {
    if let Some(address) = &flags.address {
        overlay.address = Some(address.clone());
    }
    if let Some(interface) = &flags.interface {
        overlay.interface = Some(interface.clone());
    }
    if let Some(mtu) = flags.tuning.mtu {
        overlay.mtu = Some(Mtu::Bytes(mtu));
    }
    if let Some(count) = flags.tuning.workers {
        overlay.workers = Some(Workers::Count(count));
    }
    overlay.queues = flags.tuning.queues.or(overlay.queues);
    if flags.tuning.pin {
        overlay.pin = Some(true);
    }
    if flags.tuning.realtime {
        overlay.realtime = Some(true);
    }
    if let Some(micros) = flags.tuning.busy_poll {
        overlay.busy_poll = Some(micros);
    }
    overlay.io = flags.tuning.io.or(overlay.io);
}

fn in_folder(xmpp: &crate::config::Xmpp, folder: &Path) -> crate::config::Xmpp {
    let password_file = xmpp.password_file.as_ref().map(|file| folder.join(file));
    crate::config::Xmpp { password_file, ..xmpp.clone() }
}

fn address(overlay: &Overlay, default_prefix: Option<&str>) -> Result<Address, Failure> {
    match overlay.address.as_deref() {
        Some("auto") | None => {
            let prefix = overlay.prefix.as_deref().or(default_prefix).ok_or_else(|| {
                Failure::usage(
                    "overlay.address is missing: set it to ADDRESS/PREFIX, or to \"auto\" with \
                     overlay.prefix = \"10.77.0.0/16\"",
                )
            })?;
            let (network, prefix) = cidr4("overlay.prefix", prefix)?;
            Ok(Address::Derived(network, prefix))
        }
        Some(text) => {
            let (address, prefix) = cidr4("overlay.address", text)?;
            Ok(Address::Fixed(address, prefix))
        }
    }
}

fn address6(overlay: &Overlay) -> Result<Option<(std::net::Ipv6Addr, u8)>, Failure> {
    overlay.address6.as_deref().map(|text| cidr6("overlay.address6", text)).transpose()
}

/// The group's ciphers. Plaintext is a policy of its own, not one of several choices.
fn ciphers(file: &ConfigFile, flags: &Up) -> Result<Vec<Cipher>, Failure> {
    let of_file = file.groupvpn.as_ref().map_or(&[][..], |group| &group.ciphers);
    let names = if flags.tuning.ciphers.is_empty() { of_file } else { &flags.tuning.ciphers };
    let ciphers = names.iter().map(|name| {
        Cipher::from_name(name).ok_or_else(|| {
            Failure::usage(format!(
                "groupvpn.ciphers: `{name}` is not a cipher: they are aes-128-gcm, aes-256-gcm, \
                 chacha20-poly1305, aegis-128x4, and plain"
            ))
        })
    });
    let ciphers = ciphers.collect::<Result<Vec<_>, _>>()?;
    if ciphers.len() > 1 && ciphers.contains(&Cipher::Plain) {
        return Err(Failure::usage(
            "groupvpn.ciphers: plain means that nothing is protected, and stands alone",
        ));
    }
    Ok(ciphers)
}

/// Tap queues of each worker; as many as there may be, by default.
fn queues(queues: Option<u8>) -> Result<u8, Failure> {
    let most = ipop_engine::QUEUES_MAX;
    let count = queues.unwrap_or(most);
    if (1..=most).contains(&count) {
        return Ok(count);
    }
    Err(Failure::usage(format!("overlay.queues = {count}: it is 1 to {most}")))
}

/// Number of workers; 0 for one per core.
fn workers(workers: Option<&Workers>) -> Result<u8, Failure> {
    let refused = |said: &str| {
        let text = format!("overlay.workers = {said}: it is \"auto\" or 1 to {WORKERS_MAX}");
        Err(Failure::usage(text))
    };
    match workers {
        None => Ok(0),
        Some(Workers::Text(text)) if text == "auto" => Ok(0),
        Some(Workers::Text(text)) => refused(&format!("`{text}`")),
        Some(Workers::Count(count @ 1..=WORKERS_MAX)) => Ok(*count),
        Some(Workers::Count(count)) => refused(&count.to_string()),
    }
}

fn mtu(mtu: Option<&Mtu>) -> Result<u16, Failure> {
    let bytes = match mtu {
        None => 0,
        Some(Mtu::Text(text)) if text == "auto" => 0,
        Some(Mtu::Text(text)) => {
            return Err(Failure::usage(format!(
                "overlay.mtu = `{text}`: it is \"auto\" or a number of bytes"
            )));
        }
        Some(Mtu::Bytes(bytes)) if *bytes >= MTU_MIN => *bytes,
        Some(Mtu::Bytes(bytes)) => {
            return Err(Failure::usage(format!(
                "overlay.mtu = {bytes}: IPv6 needs at least {MTU_MIN}"
            )));
        }
    };
    Ok(bytes)
}

/// The file with the roots for TURN servers over TLS, named in a file in `folder`. One authority
/// for all servers of a group is usual, so the XMPP server's will do.
pub fn turn_roots(file: &ConfigFile, folder: &Path) -> Option<PathBuf> {
    let of_xmpp = || file.xmpp.as_ref().and_then(|xmpp| xmpp.ca_file.as_ref());
    file.nat.ca_file.as_ref().or_else(of_xmpp).map(|path| folder.join(path))
}

/// The STUN and TURN servers of `[nat]`.
///
/// # Errors
/// Names the URI that is wrong.
pub fn servers(file: &ConfigFile) -> Result<(Vec<Endpoint>, Vec<Relay>), Failure> {
    let stun = file.nat.stun.iter().map(|uri| {
        Endpoint::from_stun_uri(uri).map_err(|error| Failure::usage(format!("nat.stun: {error}")))
    });
    let turn = file.nat.turn.iter().map(|entry| {
        let (endpoint, transport) = Endpoint::from_turn_uri(&entry.uri)
            .map_err(|error| Failure::usage(format!("nat.turn: {error}")))?;
        let (username, password) = (entry.username.clone(), entry.password.clone());
        Ok(Relay { endpoint, transport, username, password })
    });
    Ok((stun.collect::<Result<_, _>>()?, turn.collect::<Result<_, Failure>>()?))
}
