//! What a person got wrong: each names itself, its place and the way out, and has its exit code.

#![allow(missing_docs, clippy::unwrap_used)]

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use ipop_lab::{Impairment, Namespace, Nat};
use ipop_system_tests::{Ended, IO_URING, Node, Scratch, Stage, binary, ended, without_calls};

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const NOT_PERMITTED: i32 = 5;

/// A configuration that is right but for the server, which nobody is.
fn config(name: &str) -> String {
    format!(
        "name = \"{name}\"\n[overlay]\naddress = \"10.77.0.1/24\"\n[xmpp]\n\
         jid = \"node1@lab.test\"\npassword = \"secret\"\nserver = \"127.0.0.1:1\"\n[groupvpn]\n\
         room = \"cluster@conference.lab.test\"\n"
    )
}

/// A machine with nobody else, and a place for files.
struct Alone {
    machine: Namespace,
    scratch: Scratch,
}

impl Alone {
    fn new() -> Self {
        Self { machine: Namespace::create("alone").unwrap(), scratch: Scratch::new() }
    }

    fn up(&self, config: &str) -> Ended {
        self.up_file(&self.scratch.write("node.toml", config))
    }

    fn up_file(&self, file: &PathBuf) -> Ended {
        let mut command = self.machine.command(binary());
        command.args(["up", "--identity"]).arg(self.scratch.path("identity.pem"));
        command.arg("--config").arg(file);
        ended(command)
    }

    /// Runs `ipop up` of an instance behind a shell's `preparation`.
    fn up_after(&self, name: &str, wrapper: &[&str], preparation: &str) -> Ended {
        let file = self.scratch.write("node.toml", &config(name));
        let up = format!(
            "{preparation} exec {} up --config {} --identity {}",
            binary().display(),
            file.display(),
            self.scratch.path("identity.pem").display()
        );
        let mut command = self.machine.command(wrapper[0]);
        command.args(&wrapper[1..]).args(["sh", "-c", &up]);
        ended(command)
    }
}

fn assert_says(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{}", ended.text);
    for word in words {
        assert!(ended.text.contains(word), "`{word}` is not in: {}", ended.text);
    }
    assert!(!ended.text.contains("panicked"), "{}", ended.text);
}

fn assert_nothing_left(name: &str) {
    assert!(!PathBuf::from("/run/ipop").join(name).exists(), "/run/ipop/{name} is left");
}

#[test]
fn an_unknown_key_names_its_line() {
    let alone = Alone::new();
    let text = config("alone").replace("address", "adress");
    assert_says(&alone.up(&text), USAGE, &["node.toml", "line 3", "adress", "address"]);
}

#[test]
fn wrong_values_name_their_key() {
    let alone = Alone::new();
    let cases = [
        ("10.77.0.1/24", "10.77.0.1", "overlay.address"),
        ("10.77.0.1/24", "10.77.0.255/24", "10.77.0.255"),
        ("10.77.0.1/24", "auto", "overlay.prefix"),
        ("10.77.0.1/24\"", "10.77.0.1/24\"\nqueues = 9", "overlay.queues"),
        ("node1@lab.test", "lab test", "jid"),
        ("cluster@conference.lab.test", "conference.lab.test", "room"),
        ("127.0.0.1:1", "127.0.0.1:no", "server"),
        ("\"alone\"", "\"a/b\"", "a/b"),
    ];
    for (right, wrong, named) in cases {
        let ended = alone.up(&config("alone").replace(right, wrong));
        assert!(matches!(ended.code, Some(FAILED | USAGE)), "{wrong}: {ended:?}");
        assert!(ended.text.contains(named), "`{wrong}` does not name {named}: {}", ended.text);
    }
    assert_nothing_left("alone");
}

#[test]
fn a_missing_file_or_section_is_named() {
    let alone = Alone::new();
    let ended = alone.up_file(&alone.scratch.path("none.toml"));
    assert_says(&ended, USAGE, &["none.toml", "No such file"]);
    let text = config("alone").replace("[groupvpn]", "").replace("room", "#room");
    assert_says(&alone.up(&text), USAGE, &["node.toml", "[groupvpn]"]);
}

#[test]
fn a_password_that_others_may_read_is_refused() {
    let alone = Alone::new();
    let file = alone.scratch.write("node.toml", &config("alone"));
    set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let way_out = format!("chmod 600 {}", file.display());
    assert_says(&alone.up_file(&file), USAGE, &["0644", "password", &way_out]);
    let secret = alone.scratch.write("password", "secret\n");
    set_permissions(&secret, Permissions::from_mode(0o640)).unwrap();
    let text = config("alone").replace("password = \"secret\"", "password_file = \"password\"");
    let way_out = format!("chmod 600 {}", secret.display());
    assert_says(&alone.up(&text), USAGE, &["0640", &way_out]);
}

#[test]
fn a_machine_without_tun_is_told() {
    let alone = Alone::new();
    let hidden = alone.scratch.folder().display().to_string();
    let hide = format!("mount --bind {hidden} /dev/net &&");
    let ended = alone.up_after("tunless", &["unshare", "-m"], &hide);
    assert_says(&ended, NOT_PERMITTED, &["/dev/net/tun", "modprobe tun"]);
    assert_nothing_left("tunless");
}

#[test]
fn a_user_without_the_right_is_told() {
    let alone = Alone::new();
    let ended = alone.up_after("rightless", &["setpriv", "--bounding-set", "-net_admin"], "");
    assert_says(&ended, NOT_PERMITTED, &["CAP_NET_ADMIN", "root"]);
    assert_nothing_left("rightless");
}

#[test]
fn a_machine_without_io_uring_is_told_when_it_is_a_must() {
    let alone = Alone::new();
    let text = config("ringless").replace("[xmpp]", "io = \"uring\"\n[xmpp]");
    let ended = without_calls(&IO_URING, || alone.up(&text));
    let way_out = "overlay.io = \"auto\"";
    assert_says(&ended, FAILED, &["io_uring is not permitted (EPERM)", "seccomp", way_out]);
    assert_nothing_left("ringless");
}

#[test]
fn a_taken_interface_name_is_told() {
    let alone = Alone::new();
    alone.machine.ip("link add ipop0 type veth peer name other").unwrap();
    assert_says(&alone.up(&config("taken")), FAILED, &["ipop0", "in use", "overlay.interface"]);
    assert_nothing_left("taken");
}

#[test]
fn a_port_in_use_is_told() {
    let alone = Alone::new();
    let socket = alone.machine.inside(|| std::net::UdpSocket::bind("0.0.0.0:41000")).unwrap();
    let text = config("port").replace("[xmpp]", "port = 41000\n[xmpp]");
    assert_says(&alone.up(&text), FAILED, &["41000", "in use", "overlay.port"]);
    assert_nothing_left("port");
    drop(socket);
}

#[test]
fn a_wrong_password_is_told() {
    let mut stage = Stage::prosody();
    stage.add_site(Nat::None, Impairment::default());
    let mut config = stage.config(0);
    config.signalling = config.signalling.replace("\"secret\"", "\"guess\"");
    let node = stage.start(0, &config);
    let text = assert_ends(node, FAILED);
    for word in ["node1@lab.test", "password"] {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
    assert!(!text.contains("guess"), "a password in a log: {text}");
}

#[test]
fn an_untrusted_certificate_is_told() {
    let mut stage = Stage::prosody();
    stage.add_site(Nat::None, Impairment::default());
    let mut config = stage.config(0);
    let own_root = config.signalling.lines().find(|line| line.starts_with("ca_file")).unwrap();
    let system_roots = config.signalling.replace(own_root, "");
    config.signalling = system_roots;
    let text = assert_ends(stage.start(0, &config), FAILED);
    for word in ["certificate", "lab.test", "ca_file"] {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}

/// The node ends on its own with this code; returns what it printed.
fn assert_ends(node: &mut Node, code: i32) -> String {
    let status = node.process().wait(Duration::from_secs(20));
    let text = node.log();
    assert_eq!(status.expect("it ends").code(), Some(code), "{text}");
    assert_nothing_left(&node.name);
    text
}

#[test]
fn a_name_that_runs_already_is_told() {
    let mut stage = Stage::prosody();
    stage.add(Nat::None);
    stage.add(Nat::None);
    stage.await_links();
    let (first, second) = stage.pair();
    // On the second's machine, so that the name is all that is taken twice.
    let file = first.scratch().path("node.toml");
    let mut command = second.command(binary());
    command.args(["up", "--interface", "ipop9", "--config"]).arg(&file);
    let way_out = format!("ipop down --name {}", first.name);
    assert_says(&ended(command), FAILED, &[&first.name, "already", &way_out]);
    // The one that runs is not disturbed.
    assert!(first.run_dir().join("segment").exists());
    first.wait_for(1, 5);
}
