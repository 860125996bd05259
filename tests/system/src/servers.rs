//! Servers from Debian's packages, unmodified, each with a configuration of the test's own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipop_lab::Namespace;
use rustix::process::Signal;

use crate::{Certificates, Process, Scratch, eventually};

/// Accounts that every XMPP server has, all with the password `secret`.
pub const USERS: [&str; 6] = ["node1", "node2", "node3", "node4", "node5", "node6"];
/// The domain of both XMPP servers.
const DOMAIN: &str = "lab.test";
/// The secret that TURN credentials are made of.
const SECRET: &str = "lab-secret";
const START_PATIENCE: Duration = Duration::from_secs(30);

/// What the tests need of an XMPP server.
pub trait XmppServer {
    /// The root that its certificate comes from.
    fn root(&self) -> &Path;
    /// The server is killed, without a goodbye.
    fn kill(&mut self);
    /// The server is there again, with its accounts.
    fn start(&mut self);
    /// `[xmpp]` and `[groupvpn]` of a node's configuration.
    fn config(&self, user: &str, server: &str) -> String {
        format!(
            "[xmpp]\njid = \"{user}@{DOMAIN}\"\npassword = \"secret\"\nserver = \"{server}\"\n\
             ca_file = \"{}\"\n[groupvpn]\nroom = \"cluster@conference.{DOMAIN}\"\n",
            self.root().display()
        )
    }
}

/// Prosody with a MUC and, by XEP-0215, a TURN server.
#[derive(Debug)]
pub struct Prosody {
    namespace: String,
    scratch: Scratch,
    certificates: Certificates,
    process: Option<Process>,
    address: SocketAddr,
}

impl Prosody {
    /// Starts it in a namespace, on ports 5222 (STARTTLS) and 5223 (direct TLS) of `address`. It
    /// names `turn` as its TURN server, if there is one.
    pub fn new(namespace: &Namespace, address: Ipv4Addr, turn: Option<Ipv4Addr>) -> Self {
        let turn = turn.map(|host| format!("turn_external_host = \"{host}\"\n"));
        Self::with(namespace, address, turn)
    }

    /// As [`Prosody::new`], and TURN is there over TLS on port 443 as well.
    pub fn with_turn_over_tls(namespace: &Namespace, address: Ipv4Addr, turn: Ipv4Addr) -> Self {
        let lines = format!("turn_external_host = \"{turn}\"\nturn_external_tls_port = 443\n");
        Self::with(namespace, address, Some(lines))
    }

    /// As [`Prosody::new`], and TURN is there over TCP and, on port 443, over TLS as well. Without
    /// Nagle's algorithm, which it runs with by default, no answer waits for a round trip.
    pub fn with_turn_over_all(
        namespace: &Namespace,
        address: Ipv4Addr,
        turn: Ipv4Addr,
        has_nagle: bool,
    ) -> Self {
        let lines = format!(
            "turn_external_host = \"{turn}\"\nturn_external_tcp = true\n\
             turn_external_tls_port = 443\nnetwork_settings = {{ nagle = {has_nagle} }}\n"
        );
        Self::with(namespace, address, Some(lines))
    }

    /// Key and certificate, and their root.
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    fn with(namespace: &Namespace, address: Ipv4Addr, turn: Option<String>) -> Self {
        let scratch = Scratch::new();
        let certificates = Certificates::make(&scratch, DOMAIN);
        scratch.write("data/keep", "");
        let turn = turn.map_or_else(String::new, |lines| {
            format!("{lines}turn_external_secret = \"{SECRET}\"\n")
        });
        let offered = if turn.is_empty() { "" } else { "\"turn_external\";" };
        let folder = scratch.folder().display().to_string();
        let config = format!(
            r#"
pidfile = "{folder}/pid"
data_path = "{folder}/data"
run_as_root = true
modules_enabled = {{ "roster"; "saslauth"; "tls"; "disco"; "ping"; {offered} }}
modules_disabled = {{ "s2s"; }}
{turn}
c2s_require_encryption = true
authentication = "internal_hashed"
log = {{ info = "{folder}/prosody.log" }}
c2s_ports = {{ 5222 }}
c2s_direct_tls_ports = {{ 5223 }}
ssl = {{ key = "{folder}/leaf.key"; certificate = "{folder}/leaf.pem"; }}
VirtualHost "{DOMAIN}"
Component "conference.{DOMAIN}" "muc"
"#
        );
        let path = scratch.write("prosody.cfg.lua", &config);
        for user in USERS {
            ipop_lab::run(&format!(
                "prosodyctl --root --config {} register {user} {DOMAIN} secret",
                path.display()
            ))
            .expect("prosodyctl (Debian's package prosody)");
        }
        let address = SocketAddr::from((address, 5222));
        let namespace = namespace.name().to_owned();
        let mut prosody = Self { namespace, scratch, certificates, process: None, address };
        prosody.start();
        prosody
    }
}

impl XmppServer for Prosody {
    fn root(&self) -> &Path {
        &self.certificates.root
    }

    fn kill(&mut self) {
        kill(&mut self.process);
    }

    fn start(&mut self) {
        let mut command = std::process::Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace, "prosody", "--root", "-F", "--config"])
            .arg(self.scratch.path("prosody.cfg.lua"));
        let process = Process::start(command, self.scratch.path("out"));
        let process = self.process.insert(process);
        await_listener("prosody", process, &self.namespace, self.address);
    }
}

/// ejabberd with a MUC.
#[derive(Debug)]
pub struct Ejabberd {
    namespace: String,
    scratch: Scratch,
    certificates: Certificates,
    process: Option<Process>,
    address: SocketAddr,
}

impl Ejabberd {
    /// Starts it in a namespace, on port 5222 of `address`.
    pub fn new(namespace: &Namespace, address: Ipv4Addr) -> Self {
        let scratch = Scratch::new();
        let certificates = Certificates::make(&scratch, DOMAIN);
        scratch.write("spool/keep", "");
        let folder = scratch.folder().display().to_string();
        scratch.write(
            "ejabberd.yml",
            &format!(
                r#"
hosts: ["{DOMAIN}"]
loglevel: info
acl: {{ local: {{ user_regexp: "" }} }}
access_rules: {{ local: {{ allow: local }} }}
certfiles: ["{folder}/both.pem"]
ca_file: "{folder}/root.pem"
acme: {{ auto: false }}
auth_method: [internal]
auth_password_format: scram
auth_scram_hash: sha256
listen:
  - {{ port: 5222, ip: "{address}", module: ejabberd_c2s, starttls_required: true }}
  - {{ port: 3478, ip: "{address}", transport: udp, module: ejabberd_stun, use_turn: true,
       turn_ipv4_address: "{address}" }}
modules:
  mod_disco: {{}}
  mod_muc: {{}}
  mod_ping: {{}}
  mod_roster: {{}}
  mod_stun_disco: {{}}
"#
            ),
        );
        let address = SocketAddr::from((address, 5222));
        let namespace = namespace.name().to_owned();
        let mut ejabberd = Self { namespace, scratch, certificates, process: None, address };
        ejabberd.start();
        ejabberd
    }
}

impl XmppServer for Ejabberd {
    fn root(&self) -> &Path {
        &self.certificates.root
    }

    fn kill(&mut self) {
        kill(&mut self.process);
    }

    fn start(&mut self) {
        let register = USERS.map(|user| {
            format!("ejabberd_auth:try_register(<<\"{user}\">>, <<\"{DOMAIN}\">>, <<\"secret\">>)")
        });
        let ready = self.scratch.path("ready");
        let _ = std::fs::remove_file(&ready);
        let script = format!(
            "application:ensure_all_started(ejabberd), {}, file:write_file(\"{}\", <<>>).",
            register.join(", "),
            ready.display()
        );
        // Its control script insists on a user of its own: the application is started directly.
        let mut command = std::process::Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace, "erl", "-noinput", "-mnesia", "dir"])
            .arg(format!("\"{}\"", self.scratch.path("spool").display()))
            .args(["-s", "ejabberd", "-eval", &script])
            .env("ERL_LIBS", "/usr/lib/x86_64-linux-gnu")
            .env("HOME", self.scratch.folder())
            .env("EJABBERD_CONFIG_PATH", self.scratch.path("ejabberd.yml"))
            .env("EJABBERD_LOG_PATH", self.scratch.path("ejabberd.log"));
        let process = Process::start(command, self.scratch.path("out"));
        let process = self.process.insert(process);
        eventually("ejabberd has its accounts", START_PATIENCE, || ready.exists());
        await_listener("ejabberd", process, &self.namespace, self.address);
    }
}

/// coturn: STUN on two addresses (RFC 5780) and TURN with the XMPP servers' secret.
#[derive(Debug)]
pub struct Coturn {
    namespace: String,
    words: Vec<String>,
    address: SocketAddr,
    process: Option<Process>,
    scratch: Scratch,
}

impl Coturn {
    /// Starts it in a namespace on port 3478 of `first` and `second`.
    pub fn new(namespace: &Namespace, first: Ipv4Addr, second: Ipv4Addr) -> Self {
        let words = ["--no-tls".to_owned(), format!("--listening-ip={second}")];
        Self::with(namespace, SocketAddr::from((first, 3478)), words)
    }

    /// Starts it in a namespace on port 3478 of `address`, and with TLS on port 443.
    pub fn over_tls(namespace: &Namespace, address: Ipv4Addr, certificates: &Certificates) -> Self {
        Self::with(namespace, SocketAddr::from((address, 443)), tls_words(certificates))
    }

    /// As [`Coturn::over_tls`], with a second address.
    pub fn over_all(
        namespace: &Namespace,
        addresses: [Ipv4Addr; 2],
        certificates: &Certificates,
    ) -> Self {
        let second = format!("--listening-ip={}", addresses[1]);
        let words = tls_words(certificates).into_iter().chain([second]);
        Self::with(namespace, SocketAddr::from((addresses[0], 443)), words)
    }

    /// Starts it in a namespace on port 3478 of `address`, from where it sends its clients to that
    /// of another address.
    pub fn naming_another(namespace: &Namespace, address: Ipv4Addr, other: Ipv4Addr) -> Self {
        let words = ["--no-tls".to_owned(), format!("--alternate-server={other}:3478")];
        Self::with(namespace, SocketAddr::from((address, 3478)), words)
    }

    /// As [`Coturn::over_tls`], but it sends its clients to port 443 of another address.
    pub fn naming_another_over_tls(
        namespace: &Namespace,
        address: Ipv4Addr,
        other: Ipv4Addr,
        certificates: &Certificates,
    ) -> Self {
        let words = [format!("--tls-alternate-server={other}:443")];
        let words = tls_words(certificates).into_iter().chain(words);
        Self::with(namespace, SocketAddr::from((address, 443)), words)
    }

    /// Starts it in a namespace on port 3478 of `address`. It takes no nonce that is older than so
    /// many seconds, and allocations are to be refreshed every `lifetime` seconds.
    pub fn forgetting(namespace: &Namespace, address: Ipv4Addr, nonce: u32, lifetime: u32) -> Self {
        let words = [
            "--no-tls".to_owned(),
            "--verbose".to_owned(),
            format!("--stale-nonce={nonce}"),
            format!("--max-allocate-lifetime={lifetime}"),
        ];
        Self::with(namespace, SocketAddr::from((address, 3478)), words)
    }

    /// Starts it in a namespace on port 3478 of `address`; it lends addresses of `relays`.
    pub fn lending(namespace: &Namespace, address: IpAddr, relays: &[IpAddr]) -> Self {
        let words = relays.iter().filter(|relay| **relay != address);
        let words = words.map(|relay| format!("--relay-ip={relay}")).collect::<Vec<_>>();
        Self::with(
            namespace,
            SocketAddr::from((address, 3478)),
            [vec!["--no-tls".into()], words].concat(),
        )
    }

    fn with(
        namespace: &Namespace,
        address: SocketAddr,
        words: impl IntoIterator<Item = String>,
    ) -> Self {
        let scratch = Scratch::new();
        let usual = ["-n", "--no-cli", "--no-dtls", "--log-file", "stdout"].map(str::to_owned);
        // The second address (RFC 5780) has to come behind the first.
        let first = [format!("--listening-ip={}", address.ip())];
        let words = usual.into_iter().chain(first).chain(words).chain([
            format!("--realm={DOMAIN}"),
            "--use-auth-secret".to_owned(),
            format!("--static-auth-secret={SECRET}"),
            format!("--relay-ip={}", address.ip()),
            format!("--pidfile={}", scratch.path("pid").display()),
            format!("--userdb={}", scratch.path("db").display()),
        ]);
        let (words, namespace) = (words.collect(), namespace.name().to_owned());
        let mut coturn = Self { namespace, words, address, process: None, scratch };
        coturn.start();
        coturn
    }

    /// What it printed.
    pub fn log(&self) -> String {
        self.process.as_ref().map_or_else(String::new, Process::log)
    }

    /// It is killed, without a goodbye.
    pub fn kill(&mut self) {
        kill(&mut self.process);
    }

    /// It is there again, and knows of no allocation.
    pub fn start(&mut self) {
        let mut command = std::process::Command::new("ip");
        // It keeps what it prints to itself for long, if it is not told otherwise.
        command
            .args(["netns", "exec", &self.namespace, "stdbuf", "-oL", "turnserver"])
            .args(&self.words);
        let process = Process::start(command, self.scratch.path("out"));
        let process = self.process.insert(process);
        await_listener("coturn", process, &self.namespace, self.address);
    }
}

fn tls_words(certificates: &Certificates) -> [String; 3] {
    [
        "--tls-listening-port=443".to_owned(),
        format!("--cert={}", certificates.leaf.display()),
        format!("--pkey={}", certificates.key.display()),
    ]
}

/// A user name and password for coturn as the XMPP servers make them (TURN REST API): the user name
/// begins with the time of its end, the password is its HMAC-SHA1.
pub fn turn_credential() -> (String, String) {
    let end = SystemTime::now() + Duration::from_secs(3600);
    let username = format!("{}:lab", end.duration_since(UNIX_EPOCH).unwrap().as_secs());
    let line = format!("printf %s {username} | openssl dgst -sha1 -hmac {SECRET} -binary | base64");
    let output = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
    (username, String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

fn kill(process: &mut Option<Process>) {
    if let Some(mut process) = process.take() {
        process.signal(Signal::KILL);
        process.wait(Duration::from_secs(10)).expect("a killed server ends");
    }
}

/// Waits until the server accepts TCP connections there, seen from inside the namespace.
fn await_listener(what: &str, process: &mut Process, namespace: &str, address: SocketAddr) {
    let path = Path::new("/run/netns").join(namespace);
    eventually(&format!("{what} listens on {address}"), START_PATIENCE, || {
        assert!(process.is_running(), "{what} (Debian's package {what}) ended: {}", process.log());
        ipop_lab::inside(&path, move || {
            TcpStream::connect_timeout(&address, Duration::from_millis(500))
        })
        .is_ok()
    });
}
