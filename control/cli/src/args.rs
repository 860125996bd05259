//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::config::Io;
use crate::key_limits::KeyLimits;

/// One private network for machines that can only half reach each other.
#[derive(Debug, Parser)]
#[command(name = "ipop", version, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Join a group and stay in it until stopped (foreground).
    Up(Up),
    /// Stop a running instance.
    Down(Instance),
    /// Show an instance's links, paths and drops.
    Status(Status),
    /// Ping a peer through the overlay and show the path.
    Ping(Ping),
    /// Show how links found their paths, step by step, and go on as it happens.
    Trace(Trace),
    /// Write what links carry, decrypted and sealed, into a file for Wireshark.
    Capture(Capture),
    /// Measure the link to a peer, and the network below it.
    Bench(Bench),
    /// Wait until enough peers are linked and answer.
    Wait(Wait),
    /// Find out what the network around this machine allows.
    Netcheck(Netcheck),
    /// Run the embedded rendezvous: XMPP, STUN and TURN in one process.
    Hub(Hub),
    /// Build a small internet on this machine and show a group in it.
    Lab(Lab),
    /// Make a node's key, or show the identity of one.
    Keygen(Keygen),
    /// The packet side of an instance; `ipop up` starts it.
    #[command(hide = true)]
    Datapath(Datapath),
    /// The control side of an instance; `ipop up` starts it.
    #[command(hide = true)]
    Controller(Controller),
}

/// Which instance of this machine.
#[derive(Args, Clone, Debug)]
pub struct Instance {
    /// The instance: its runtime files are under /run/ipop/<INSTANCE>. The only one that runs, if
    /// there is just one.
    #[arg(long, value_name = "INSTANCE")]
    pub name: Option<String>,
}

/// `ipop up`.
#[derive(Args, Debug)]
pub struct Up {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE", required_unless_present = "join", conflicts_with = "join")]
    pub config: Option<PathBuf>,
    /// A hub's join ticket, or @FILE that holds it.
    #[arg(long, value_name = "TICKET")]
    pub join: Option<String>,
    /// Name of the instance.
    #[arg(long, value_name = "INSTANCE")]
    pub name: Option<String>,
    /// Overlay address with prefix length, such as 10.77.0.1/24.
    #[arg(long, value_name = "CIDR")]
    pub address: Option<String>,
    /// Overlay interface.
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    /// How its datapath works.
    #[command(flatten)]
    pub tuning: Tuning,
    /// The node's key; made when it does not exist. Default: /var/lib/ipop/<INSTANCE>/identity.pem
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
}

/// How a datapath works; flags of `ipop up`, and of `ipop lab` for all its nodes.
#[derive(Args, Clone, Debug, Default)]
pub struct Tuning {
    /// Largest packet of the overlay interface, bytes; without it, what the widest link carries.
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u16>,
    /// Ciphers that the group allows: aes-128-gcm, aes-256-gcm, chacha20-poly1305 (all by default),
    /// aegis-128x4; or plain, alone, for a network that is trusted.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub ciphers: Vec<String>,
    /// Workers, each worth a core; one per core by default, at most 8.
    #[arg(long, value_name = "N")]
    pub workers: Option<u8>,
    /// Queues of each worker in front of it, 1 to 8: frames for so many peers do not wait for each
    /// other. One keeps the order of all frames of a worker.
    #[arg(long, value_name = "N")]
    pub queues: Option<u8>,
    /// Keep each worker on a core of its own.
    #[arg(long)]
    pub pin: bool,
    /// Run workers before all ordinary programs (SCHED_RR): short queues under load for CPU time.
    #[arg(long)]
    pub realtime: bool,
    /// Look for packets for so many microseconds before sleeping: lower latency for CPU time.
    #[arg(long, value_name = "US", num_args = 0..=1, default_missing_value = "50")]
    pub busy_poll: Option<u32>,
    /// What carries packets to the kernel and back.
    #[arg(long, value_name = "HOW")]
    pub io: Option<Io>,
}

impl Tuning {
    /// The flags again, for another process.
    pub fn to_args(&self) -> Vec<String> {
        let mut args = Vec::new();
        let mut add = |flag: &str, value: Option<String>| {
            args.extend(value.map(|value| format!("--{flag}={value}")));
        };
        add("mtu", self.mtu.map(|bytes| bytes.to_string()));
        add("ciphers", (!self.ciphers.is_empty()).then(|| self.ciphers.join(",")));
        add("workers", self.workers.map(|count| count.to_string()));
        add("queues", self.queues.map(|count| count.to_string()));
        add("busy-poll", self.busy_poll.map(|micros| micros.to_string()));
        add("io", self.io.map(|io| io.word().to_owned()));
        args.extend(self.pin.then(|| "--pin".to_owned()));
        args.extend(self.realtime.then(|| "--realtime".to_owned()));
        args
    }
}

/// `ipop status`.
#[derive(Args, Debug)]
pub struct Status {
    /// Which instance.
    #[command(flatten)]
    pub instance: Instance,
    /// Say what became of all pairs of addresses, too.
    #[arg(short, long)]
    pub verbose: bool,
    /// For programs.
    #[arg(long)]
    pub json: bool,
}

/// `ipop ping`.
#[derive(Args, Debug)]
pub struct Ping {
    /// Name, overlay address or the first digits of the UID of a peer.
    pub peer: String,
    /// Which instance.
    #[command(flatten)]
    pub instance: Instance,
    /// How many pings.
    #[arg(short, long, default_value_t = 4)]
    pub count: u32,
    /// Pause between pings, seconds.
    #[arg(short, long, default_value = "1", value_parser = seconds)]
    pub interval: Duration,
}

/// `ipop trace`.
#[derive(Args, Debug)]
pub struct Trace {
    /// Name, overlay address or the first digits of the UID of a peer; all links without.
    pub peer: Option<String>,
    /// Which instance.
    #[command(flatten)]
    pub instance: Instance,
    /// End after so many seconds; 0 shows only what was. Without it, Ctrl-C ends.
    #[arg(long = "for", value_name = "S", value_parser = seconds)]
    pub duration: Option<Duration>,
    /// For programs: an object a line.
    #[arg(long)]
    pub json: bool,
}

/// `ipop capture`.
#[derive(Args, Debug)]
pub struct Capture {
    /// Name, overlay address or the first digits of the UID of a peer; all links without.
    pub peer: Option<String>,
    /// Which instance.
    #[command(flatten)]
    pub instance: Instance,
    /// The file (pcapng); `-` for standard output.
    #[arg(short, long, value_name = "FILE")]
    pub write: PathBuf,
    /// Only what is inside: decrypted frames.
    #[arg(long)]
    pub inner: bool,
    /// Only what is outside: sealed datagrams.
    #[arg(long)]
    pub outer: bool,
    /// End after so many seconds. Without it, Ctrl-C ends.
    #[arg(long = "for", value_name = "S", value_parser = seconds)]
    pub duration: Option<Duration>,
    /// End after so many frames.
    #[arg(short, long, value_name = "N")]
    pub count: Option<u64>,
    /// End when the file has so many MiB; 0 for no limit.
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    pub size: u64,
    /// Bytes that are kept of each frame.
    #[arg(long, value_name = "BYTES", default_value_t = 262_144,
        value_parser = clap::value_parser!(u32).range(1..=262_144))]
    pub snaplen: u32,
}

/// `ipop bench`.
#[derive(Args, Debug)]
pub struct Bench {
    /// Name, overlay address or the first digits of the UID of a peer that runs `ipop bench
    /// --serve`.
    #[arg(required_unless_present = "serve", conflicts_with = "serve")]
    pub peer: Option<String>,
    /// Let linked members measure, until Ctrl-C.
    #[arg(long)]
    pub serve: bool,
    /// With --serve: open no port on the machine's own addresses, only on the overlay.
    #[arg(long, requires = "serve")]
    pub overlay_only: bool,
    /// Which instance.
    #[command(flatten)]
    pub instance: Instance,
    /// Seconds of each figure, at most 60.
    #[arg(long, value_name = "S", default_value = "2", value_parser = seconds,
        conflicts_with = "serve")]
    pub seconds: Duration,
    /// TCP port on the overlay where the measuring begins.
    #[arg(long, value_name = "PORT", default_value_t = 7077)]
    pub port: u16,
    /// For programs.
    #[arg(long, conflicts_with = "serve")]
    pub json: bool,
}

/// `ipop wait`.
#[derive(Args, Debug)]
pub struct Wait {
    /// Which instance.
    #[command(flatten)]
    pub instance: Instance,
    /// How many peers have to be linked and answer.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub peers: usize,
    /// How long to wait, seconds.
    #[arg(long, value_name = "S", default_value = "30", value_parser = seconds)]
    pub timeout: Duration,
}

/// `ipop netcheck`.
#[derive(Args, Debug)]
pub struct Netcheck {
    /// Take the STUN and TURN servers from this configuration.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A STUN server, such as stun:198.18.0.20:3478. May be given more than once.
    #[arg(long, value_name = "URI")]
    pub stun: Vec<String>,
    /// A TURN server as URI,USERNAME,PASSWORD. May be given more than once.
    #[arg(long, value_name = "SERVER")]
    pub turn: Vec<String>,
    /// Measure how long the NAT remembers a mapping that is not used, too: takes up to half an
    /// hour, with most NATs a few minutes.
    #[arg(long)]
    pub lifetime: bool,
    /// Which running instance's servers to use, when neither --config nor --stun is given.
    #[command(flatten)]
    pub instance: Instance,
    /// For programs.
    #[arg(long)]
    pub json: bool,
}

/// `ipop hub`.
#[derive(Args, Debug)]
pub struct Hub {
    /// Instance name: makes the default state folder /var/lib/ipop/<INSTANCE>.
    #[arg(long, value_name = "INSTANCE", default_value = "hub")]
    pub name: String,
    /// Address and port of XMPP; `[::]` is all addresses of both families.
    #[arg(long, value_name = "ADDR", default_value = "[::]:5222", value_parser = listen)]
    pub listen: SocketAddr,
    /// UDP port of STUN and TURN.
    #[arg(long, value_name = "PORT", default_value_t = 3478)]
    pub stun_port: u16,
    /// XMPP domain.
    #[arg(long, value_name = "NAME", default_value = "ipop.internal")]
    pub domain: String,
    /// Where certificate, accounts and secrets are kept.
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Write the join ticket to this file too (mode 0600).
    #[arg(long, value_name = "FILE")]
    pub ticket_file: Option<PathBuf>,
    /// Address that nodes reach the hub at, when it is not one of this machine's own.
    #[arg(long, value_name = "HOST")]
    pub advertise: Vec<String>,
    /// Public address of the TURN relay, when it is not one of this machine's own.
    #[arg(long, value_name = "IP")]
    pub relay_address: Vec<std::net::IpAddr>,
    /// Make (or show anew) an account for a standard XMPP client, and end.
    #[arg(long, value_name = "USER")]
    pub add_account: Option<String>,
}

/// `ipop lab`.
#[derive(Args, Debug)]
pub struct Lab {
    /// Instance name: prefix of the nodes' names.
    #[arg(long, value_name = "INSTANCE", default_value = "lab")]
    pub name: String,
    /// How many nodes.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub nodes: usize,
    /// NAT kind of each node, repeated from the start when there are more nodes: none, firewall,
    /// fullcone, addrres, portres, rejecting, hairpin, addrdep, sequential, symmetric, double,
    /// carrier, udpblock, tcponly.
    #[arg(
        long,
        value_name = "KINDS",
        value_delimiter = ',',
        default_value = "portres,portres,symmetric"
    )]
    pub nat: Vec<String>,
    /// One-way delay of each machine's cable, milliseconds. 0: cables as fast as the machine.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub delay: u64,
    /// Seconds of the traffic test of each pair; 0 leaves it out.
    #[arg(long, value_name = "S", default_value_t = 2)]
    pub traffic: u64,
    /// Write the results for programs.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// How the nodes' datapaths work.
    #[command(flatten)]
    pub tuning: Tuning,
    /// Install missing system tools with apt-get.
    #[arg(long)]
    pub install_missing: bool,
    /// Keep the lab up until Ctrl-C.
    #[arg(long)]
    pub keep: bool,
}

/// `ipop keygen`.
#[derive(Args, Debug)]
pub struct Keygen {
    /// Instance name: makes the default file /var/lib/ipop/<INSTANCE>/identity.pem.
    #[arg(long, value_name = "INSTANCE", default_value = "ipop")]
    pub name: String,
    /// Where to write the key; `-` for standard output.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Show the identity of an existing key instead.
    #[arg(long, value_name = "FILE", conflicts_with = "out")]
    pub show: Option<PathBuf>,
}

/// `ipop datapath`.
#[derive(Args, Debug)]
pub struct Datapath {
    /// Instance name.
    #[arg(long)]
    pub name: String,
    /// Where the segment is.
    #[arg(long)]
    pub run_dir: PathBuf,
    /// Overlay interface.
    #[arg(long)]
    pub interface: String,
    /// The node's key.
    #[arg(long)]
    pub identity: PathBuf,
    /// UDP port; 0 for any.
    #[arg(long, default_value_t = 0)]
    pub port: u16,
    /// Largest packet of the overlay interface, bytes; 0 for what the widest link carries.
    #[arg(long, default_value_t = 0)]
    pub mtu: u16,
    /// Ciphers that the group allows, by name; the usual ones, if none.
    #[arg(long, value_delimiter = ',')]
    pub ciphers: Vec<String>,
    /// How long keys are used.
    #[command(flatten)]
    pub keys: KeyLimits,
    /// Number of workers; 0 for one per core.
    #[arg(long, default_value_t = 0)]
    pub workers: u8,
    /// Number of tap queues of each worker.
    #[arg(long, default_value_t = ipop_engine::QUEUES_MAX)]
    pub queues: u8,
    /// Bind each worker to a core.
    #[arg(long)]
    pub pin: bool,
    /// Run workers before all ordinary programs.
    #[arg(long)]
    pub realtime: bool,
    /// How long a worker looks before it sleeps, microseconds.
    #[arg(long, default_value_t = 0)]
    pub busy_poll: u32,
    /// Do not ask the router for a port mapping.
    #[arg(long)]
    pub no_port_mapping: bool,
    /// What carries packets to the kernel and back.
    #[arg(long, value_enum, default_value_t)]
    pub io: Io,
}

/// `ipop controller`.
#[derive(Args, Debug)]
pub struct Controller {
    /// Where the segment and the settings are.
    #[arg(long)]
    pub run_dir: PathBuf,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| format!("`{text}` is not a number of seconds"))?;
    Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    let with_port = text.parse().or_else(|_| text.parse().map(|ip| SocketAddr::new(ip, 5222)));
    with_port.map_err(|_| format!("`{text}` is neither ADDRESS nor ADDRESS:PORT"))
}
