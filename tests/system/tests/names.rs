//! Names that do not resolve: said, tried again, and found without a restart.

#![allow(missing_docs, clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipop_lab::{Impairment, Nat};
use ipop_system_tests::{Coturn, NameServer, Node, Stage, ended, eventually, turn_credential};
use serde_json::Value;

const NAME: &str = "turn.lab.test";
const XMPP: &str = "xmpp.lab.test";
/// Longer than the longest pause between two look-ups.
const PATIENCE: Duration = Duration::from_secs(90);
/// What the system's resolver says when nobody answers.
const SILENCE: &str = "Temporary failure in name resolution";

/// What the node says of itself, as soon as it says something.
fn controller(node: &Node, key: &str) -> String {
    let status: Value =
        serde_json::from_slice(&node.ipop("status --json").stdout).unwrap_or_default();
    status["controller"][key].as_str().unwrap_or_default().to_owned()
}

/// Waits until the node says so of its names.
fn await_unresolved(node: &Node, words: &[&str]) {
    eventually(&format!("{words:?} in the status"), PATIENCE, || {
        let text = controller(node, "unresolved");
        words.iter().all(|word| text.contains(word))
    });
}

/// Of two machines that no hole can be punched between, one knows a TURN server, and that by name.
/// Both know by STUN what their routers are seen as, which a relay has to be told.
fn stage_with_name() -> (Stage, NameServer) {
    let mut stage = Stage::prosody_and_hidden_coturn();
    let mut names = NameServer::start(stage.internet().hub(), stage.internet().hub_address());
    for number in 0..2 {
        stage.add_site(Nat::Symmetric, Impairment::default());
        names.serve(&stage.sites[number].node);
        let mut config = stage.config(number);
        let (user, password) = turn_credential();
        let turn = format!(
            "turn = [{{ uri = \"turn:{NAME}\", username = \"{user}\", password = \"{password}\" }}]"
        );
        let stun = format!("stun = [\"stun:{}\"]", stage.internet().hub_address());
        config.nat = format!("[nat]\n{stun}\n");
        if number == 0 {
            config.nat += &format!("{turn}\n");
        }
        stage.start(number, &config);
    }
    (stage, names)
}

/// The TURN servers that the node says it uses.
fn relays(node: &Node) -> Vec<String> {
    let text = std::fs::read_to_string(node.run_dir().join("servers.json")).unwrap_or_default();
    let servers: Value = serde_json::from_str(&text).unwrap_or_default();
    let relays = servers["turn"].as_array().cloned().unwrap_or_default();
    relays.iter().map(|relay| relay["address"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_turn_server_whose_name_resolves_late_is_used() {
    let (mut stage, names) = stage_with_name();
    let (a, b) = stage.pair();
    eventually("the group is entered meanwhile", Duration::from_secs(30), || {
        controller(a, "signalling").starts_with("online")
    });
    await_unresolved(a, &[NAME, SILENCE, " s ("]);
    // The last word that was said stays while the next try is under way.
    await_unresolved(a, &["next try in"]);
    assert!(!a.is_linked_to(b), "{}", a.link_to(b));
    names.speak();
    await_unresolved(a, &[NAME, "not known"]);
    let check = a.ipop("netcheck");
    let text = String::from_utf8_lossy(&check.stdout);
    assert!(text.contains(&format!("{NAME} does not resolve")), "{text}");
    let turn = IpAddr::from(stage.internet().hub_address());
    names.tell(NAME, &[turn]);
    for node in [a, b] {
        node.wait_for(1, PATIENCE.as_secs() as u32);
    }
    assert_eq!(a.link_to(b)["path"], "relayed", "{}", a.link_to(b));
    assert_eq!(controller(a, "unresolved"), "");
    assert_eq!(relays(a), [format!("{turn}:3478")]);
    let log = a.log();
    assert!(names.asked(NAME) > 3, "asked {} times", names.asked(NAME));
    assert_eq!(log.matches(&format!("{NAME} does not resolve")).count(), 2, "{log}");
    assert_eq!(log.matches(&format!("{NAME} resolves now")).count(), 1, "{log}");
    follow_to_another_place(&mut stage, &names);
}

/// The server moves, and then the node does: that is when it looks the name up again.
fn follow_to_another_place(stage: &mut Stage, names: &NameServer) {
    let hub = stage.internet().hub();
    let [first, second] = [12, 13].map(|last| stage.internet().add_hub_address(last).unwrap());
    let _elsewhere = Coturn::new(hub, first, second);
    names.tell(NAME, &[IpAddr::from(first)]);
    stage.coturn.as_mut().unwrap().kill();
    stage.sites[0].node.ip("address add 192.168.1.77/24 dev eth0").unwrap();
    let (a, b) = stage.pair();
    eventually("the server is found again", PATIENCE, || {
        relays(a).contains(&format!("{first}:3478"))
    });
    for (node, peer) in [(a, b), (b, a)] {
        eventually("the link goes over it", PATIENCE, || {
            node.ipop(&format!("ping {} --count 1", peer.name)).status.success()
        });
    }
    eventually("its relay is shown", PATIENCE, || {
        [a.link_to(b), b.link_to(a)].iter().any(|link| {
            link["relay"].as_str().is_some_and(|relay| relay == format!("{first}:3478"))
        })
    });
}

/// The name of the XMPP server: silence first, then addresses of which one alone answers.
#[test]
fn an_xmpp_server_whose_name_resolves_late_is_reached() {
    let mut stage = Stage::prosody();
    let hub = stage.internet().hub_address();
    let mut names = NameServer::start(stage.internet().hub(), hub);
    let number = stage.add_site(Nat::PortRestricted, Impairment::default());
    names.serve(&stage.sites[number].node);
    let mut config = stage.config(number);
    config.signalling = stage.server.config("node1", &format!("{XMPP}:5222"));
    let node = stage.start(number, &config);
    eventually("the name is said", PATIENCE, || {
        let text = controller(node, "signalling");
        text.starts_with("offline") && text.contains(XMPP) && text.contains(SILENCE)
    });
    let dead = [14, 15, 16].map(|last| IpAddr::from(Ipv4Addr::new(198, 18, 0, last)));
    let v6 = "2001:db8::5".parse().unwrap();
    names.tell(XMPP, &[&dead[..], &[v6, IpAddr::from(hub)]].concat());
    names.speak();
    eventually("the server is reached", PATIENCE, || {
        controller(node, "signalling").starts_with("online")
    });
    // A node that waits for names ends at once, too.
    assert_eq!(node.stop(), Some(0));
}

/// `ipop netcheck` goes on with what it can ask.
#[test]
fn netcheck_says_which_name_does_not_resolve() {
    let mut stage = Stage::prosody();
    let hub = stage.internet().hub_address();
    let mut names = NameServer::start(stage.internet().hub(), hub);
    names.speak();
    let number = stage.add_site(Nat::None, Impairment::default());
    names.serve(&stage.sites[number].node);
    let mut command = stage.sites[number].node.command(ipop_system_tests::binary());
    command.args(["netcheck", "--stun", "stun:nowhere.lab.test"]);
    command.args(["--stun", &format!("stun:{hub}")]);
    let ended = ended(command);
    assert_eq!(ended.code, Some(0), "{}", ended.text);
    for words in ["nowhere.lab.test does not resolve", "seen as"] {
        assert!(ended.text.contains(words), "no `{words}` in {}", ended.text);
    }
}
