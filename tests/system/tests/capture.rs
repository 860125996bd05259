//! `ipop capture`, read by tcpdump: what is inside a link, and what of it is outside.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use ipop_lab::{Nat, PacketSocket, RawFrame, VNET_LEN};
use ipop_system_tests::{Node, Stage, binary, eventually, transfer};

const NOT_PERMITTED: i32 = 5;
/// What pings carry, in hexadecimal digits.
const MARK: &str = "6d61726b";
/// An Ethernet frame of the stage's cables.
const FRAME_MAX: usize = 1514;

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// Begins to capture, and returns when it does.
fn capture(node: &Node, file: &Path, words: &str) -> Child {
    let _ = std::fs::remove_file(file);
    let mut command = node.command(binary());
    command.args(["capture", "--name", &node.name, "--write"]).arg(file);
    let child = command.args(words.split_whitespace()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("the capture begins", Duration::from_secs(10), || {
        std::fs::metadata(file).is_ok_and(|file| file.len() > 0)
    });
    child
}

/// Waits for its end; what it said.
fn end(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    text(&output)
}

/// What tcpdump makes of a capture.
fn tcpdump(file: &Path, words: &[&str]) -> String {
    let mut command = Command::new("tcpdump");
    let output = command.arg("-nn").arg("-r").arg(file).args(words).output();
    let output = output.expect("tcpdump: install the package `tcpdump`");
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn ping(from: &Node, to: &Node) {
    let to = to.v4().to_string();
    let words = ["-c", "3", "-i", "0.1", "-p", MARK, &to];
    let output = from.command("ping").args(words).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

/// The digits that `tcpdump -x` shows, in one line.
fn digits(dump: &str) -> String {
    let lines = dump.lines().filter_map(|line| line.trim().strip_prefix("0x")?.split_once(':'));
    lines.flat_map(|(_, digits)| digits.split_whitespace()).collect()
}

#[test]
fn a_ping_is_inside_in_clear_and_outside_sealed() {
    let stage = Stage::prosody().join([Nat::PortRestricted, Nat::None, Nat::None]);
    stage.await_links();
    let (a, b, c) = (&stage.nodes[0], &stage.nodes[1], &stage.nodes[2]);
    eventually("the path is direct", Duration::from_secs(10), || a.link_to(b)["path"] == "direct");
    let file = a.scratch().path("capture.pcapng");
    let child = capture(a, &file, &format!("{} --for 3", b.name));
    ping(a, c);
    ping(a, b);
    let said = end(child);
    assert!(said.contains(", 0 dropped by the kernel"), "{said}");
    let (ours, theirs) = (a.v4(), b.v4());
    for (from, to, kind) in [(ours, theirs, "icmp-echo"), (theirs, ours, "icmp-echoreply")] {
        let filter = format!("icmp[icmptype] == {kind} and src {from} and dst {to}");
        assert_eq!(tcpdump(&file, &[&filter]).lines().count(), 3, "{}", tcpdump(&file, &[]));
    }
    assert_eq!(tcpdump(&file, &["icmp and host", &c.v4().to_string()]), "", "another link's");
    assert!(digits(&tcpdump(&file, &["-x", "icmp"])).contains(MARK));
    let outside = format!("udp and host {}", stage.sites[1].public);
    let sent = tcpdump(&file, &[&format!("{outside} and src {}", site_address(&stage, 0))]);
    let came = tcpdump(&file, &[&format!("{outside} and dst {}", site_address(&stage, 0))]);
    assert!(sent.lines().count() >= 3 && came.lines().count() >= 3, "{sent}{came}");
    assert!(!digits(&tcpdump(&file, &["-x", "udp"])).contains(MARK), "it is sealed");
    let strangers = format!("udp and not host {}", stage.sites[1].public);
    assert_eq!(tcpdump(&file, &[&strangers]), "");
    // The owner's only: what the link encrypts is in it.
    let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    // A file of one side, cut short in length and number.
    let child = capture(a, &file, &format!("{} --inner --for 20 --count 2 --snaplen 40", b.name));
    ping(a, b);
    let said = end(child);
    assert!(said.contains("2 frames inside and 0 datagrams outside"), "{said}");
    assert!(said.contains("the limit is reached"), "{said}");
    assert_eq!(tcpdump(&file, &["icmp"]).lines().count(), 2);
    let kept = tcpdump(&file, &["-xx"]);
    assert_eq!(digits(&kept).len(), 2 * 2 * 40, "{kept}");
}

/// The address of the machine at a site in its own network.
fn site_address(stage: &Stage, site: usize) -> String {
    let local = stage.nodes[site].link_to(&stage.nodes[1 - site])["local"].to_string();
    local.trim_matches('"').rsplit_once(':').unwrap().0.to_owned()
}

#[test]
fn datagrams_are_as_on_the_cable_and_the_capture_follows_a_link() {
    let stage = Stage::prosody().join([Nat::PortRestricted, Nat::None]);
    stage.await_links();
    let (a, b) = stage.pair();
    eventually("the path is direct", Duration::from_secs(10), || a.link_to(b)["path"] == "direct");
    let file = a.scratch().path("capture.pcapng");
    let child = capture(a, &file, &format!("{} --outer --for 4", b.name));
    transfer(a, b, b.v4(), 8 << 20);
    transfer(b, a, a.v4(), 8 << 20);
    let said = end(child);
    let shown = tcpdump(&file, &["-e", "-v"]);
    let lens: Vec<usize> = shown
        .lines()
        .filter_map(|line| line.split(" ethertype IPv4 (0x0800), length ").nth(1))
        .map(|rest| rest.split(':').next().unwrap().parse().unwrap())
        .collect();
    assert!(lens.len() > 10_000, "{} of 16 MiB: {said}", lens.len());
    assert_eq!(lens.iter().find(|len| **len > FRAME_MAX), None, "{said}");
    let bad = tcpdump(&file, &["-vv", "-c", "20000"]);
    assert!(!bad.contains("bad udp cksum") && bad.contains("udp sum ok"), "{}", &bad[..2000]);

    // The peer's process dies: another one has another port, and other keys.
    let child = capture(a, &file, &format!("{} --outer --for 12", b.name));
    ping(a, b);
    let before = b.kill("datapath");
    b.await_successor("datapath", before);
    eventually("a new link", Duration::from_secs(10), || a.is_linked_to(b) && b.is_linked_to(a));
    ping(a, b);
    end(child);
    let to_peer = format!("dst host {}", stage.sites[1].public);
    let shown = tcpdump(&file, &[&to_peer]);
    let port = |line: &str| {
        let target = line.split(" > ").nth(1)?.split(':').next()?;
        Some(target.rsplit_once('.')?.1.to_owned())
    };
    let ports: BTreeSet<_> = shown.lines().filter_map(port).collect();
    assert!(ports.len() >= 2, "{ports:?}");
}

#[test]
fn a_relayed_links_datagrams_go_to_a_pipe_and_no_others() {
    let stage = Stage::prosody().join([Nat::Symmetric, Nat::Symmetric, Nat::Symmetric]);
    stage.await_links();
    let (a, b, c) = (&stage.nodes[0], &stage.nodes[1], &stage.nodes[2]);
    let file = a.scratch().path("piped.pcapng");
    let pipe = format!(
        "'{}' capture '{}' --name '{}' --write - --for 3 | cat >'{}'",
        binary().display(),
        b.name,
        a.name,
        file.display()
    );
    let child = a.command("sh").args(["-c", &pipe]).stderr(Stdio::piped()).spawn().unwrap();
    eventually("the capture begins", Duration::from_secs(10), || {
        std::fs::metadata(&file).is_ok_and(|file| file.len() > 0)
    });
    ping(a, c);
    ping(a, b);
    end(child);
    let relay = stage.internet().hub_address();
    assert!(tcpdump(&file, &["icmp"]).lines().count() == 6, "{}", tcpdump(&file, &[]));
    let outside = tcpdump(&file, &["-x", "udp"]);
    let is_of_relay = outside.lines().filter(|line| line.contains(" > "));
    assert!(is_of_relay.clone().count() >= 6, "{outside}");
    assert!(is_of_relay.clone().all(|line| line.contains(&relay.to_string())), "{outside}");
}

#[test]
fn who_may_not_capture_is_told_so() {
    let stage = Stage::prosody().join([Nat::None]);
    let node = &stage.nodes[0];
    node.addresses();
    let file = node.scratch().path("none.pcapng");
    let output = node
        .command("setpriv")
        .args(["--bounding-set", "-net_raw"])
        .arg(binary())
        .args(["capture", "--name", &node.name, "--write"])
        .arg(&file)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(NOT_PERMITTED), "{}", text(&output));
    assert!(text(&output).contains("CAP_NET_RAW"), "{}", text(&output));
    assert!(!file.exists());
    let output = node.ipop("capture nobody --write /dev/null");
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
}

/// A frame that goes from a machine's interface to another's: a datagram under a VLAN tag, or as
/// many as its payload has parts of `part` bytes.
fn tagged(
    macs: [[u8; 6]; 2],
    tag: (u16, u16),
    [from, to]: [SocketAddrV4; 2],
    payload: &[u8],
    part: usize,
) -> RawFrame {
    let halves = |value: u32| (value >> 16) + (value & 0xffff);
    let len = 8 + payload.len() as u16;
    let [source, destination] = [from, to].map(|end| u32::from(*end.ip()));
    let mut ip = [0x45, 0, 0, 0, 0, 9, 0x40, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    ip[2..4].copy_from_slice(&(20 + len).to_be_bytes());
    ip[12..16].copy_from_slice(&source.to_be_bytes());
    ip[16..20].copy_from_slice(&destination.to_be_bytes());
    let words = ip.chunks_exact(2).map(|half| u32::from(u16::from_be_bytes([half[0], half[1]])));
    let sum = !halves(halves(words.sum())) as u16;
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    // The kernel completes the sum of the pseudo header.
    let pseudo = halves(source) + halves(destination) + 17 + u32::from(len);
    let pseudo = halves(halves(pseudo)) as u16;
    let udp = [from.port(), to.port(), len, pseudo].map(u16::to_be_bytes).concat();
    let link = [&macs[1][..], &macs[0], &tag.0.to_be_bytes(), &tag.1.to_be_bytes(), &[8, 0]];
    let mut vnet = [0; VNET_LEN];
    let words = [(2, 18 + 28), (4, part as u16), (6, 18 + 20), (8, 6)];
    (vnet[0], vnet[1]) = (1, if payload.len() > part { 5 } else { 0 });
    for (at, value) in words {
        vnet[at..at + 2].copy_from_slice(&value.to_ne_bytes());
    }
    RawFrame { vnet, bytes: [&link.concat()[..], &ip, &udp, payload].concat() }
}

/// The kernel takes a tag off what comes in and tells it beside the frame; the file has it where
/// the cable has it.
#[test]
fn vlan_tags_are_in_the_frames_again() {
    let stage = Stage::prosody().join([Nat::None, Nat::None]);
    stage.await_links();
    let (a, b) = stage.pair();
    eventually("the path is direct", Duration::from_secs(10), || a.link_to(b)["path"] == "direct");
    let [first, second] = [0, 1].map(|number| &stage.sites[number].node);
    let middle = stage.internet().middle();
    let row = b.row(a).unwrap();
    let v4 = |end: Option<SocketAddr>| match end {
        Some(SocketAddr::V4(end)) => end,
        other => panic!("{other:?}"),
    };
    let ends = [v4(row.remote), v4(row.local)];

    let file = b.scratch().path("capture.pcapng");
    let child = capture(b, &file, &format!("{} --for 4", a.name));
    let inside = PacketSocket::open(&a.namespace(), "ipop0").unwrap();
    let path = std::path::PathBuf::from("/run/netns").join(middle.name());
    let outside = PacketSocket::open(&path, "site2").unwrap();
    let overlay = [first, second].map(|machine| machine.mac("ipop0").unwrap());
    let cable = [middle.mac("site2").unwrap(), second.mac("eth0").unwrap()];
    let inner = ["10.99.5.1:7", "10.99.5.2:7"].map(|end| end.parse().unwrap());
    for kind in [0x8100, 0x88a8] {
        // Priority 1, number 5.
        inside.send(&tagged(overlay, (kind, 0x2005), inner, b"one", 3)).unwrap();
        outside.send(&tagged(cable, (kind, 0x2007), ends, &[0x5a; 300], 100)).unwrap();
    }
    let said = end(child);
    let shown = tcpdump(&file, &["-e", "-vv"]);
    let shown = shown.replace("\n    ", " ");
    for kind in ["802.1Q (0x8100)", "802.1Q-QinQ (0x88a8)"] {
        for (id, count, port) in [(5, 1, "10.99.5.2.7: "), (7, 3, "length 100")] {
            let marks = [kind, &format!("vlan {id}, p 1, ethertype IPv4"), "udp sum ok", port];
            let has = |line: &&str| marks.iter().all(|mark| line.contains(mark));
            assert_eq!(shown.lines().filter(has).count(), count, "{marks:?}: {said}\n{shown}");
        }
    }
}
