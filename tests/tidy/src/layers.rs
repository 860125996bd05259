//! Which crate may import which: the walls of the house, in one table.
//!
//! A crate is listed below all that it imports. To import something new, change the row here and
//! say why in the commit; `laws` below says what no row may ever allow.

/// What a crate may do besides computing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: no clock, socket, thread, file, global or randomness of its own.
    Pure,
    /// `unsafe`, for instructions of the processor; pure besides.
    Instructions,
    /// `unsafe`, within the crate; and system calls.
    Unsafe,
    /// System calls.
    Edge,
    /// It tests or measures the product and is no part of it.
    Tool,
}

impl Kind {
    /// Whether the rules for pure crates hold.
    pub fn is_pure(self) -> bool {
        matches!(self, Kind::Pure | Kind::Instructions)
    }

    /// Whether there may be `unsafe`.
    pub fn may_be_unsafe(self) -> bool {
        matches!(self, Kind::Unsafe | Kind::Instructions)
    }
}

/// A row: a crate, and all it may import besides `std`.
#[derive(Debug, Clone, Copy)]
pub struct Layer {
    /// Where it lies, from the root of the tree.
    pub folder: &'static str,
    /// The package's name.
    pub package: &'static str,
    /// What it may do.
    pub kind: Kind,
    /// Crates of this workspace.
    pub inner: &'static [&'static str],
    /// Crates of others.
    pub outer: &'static [&'static str],
}

/// Finds the row of the crate in a folder.
pub fn layer_of(folder: &str) -> Option<&'static Layer> {
    LAYERS.iter().find(|layer| layer.folder == folder)
}

const fn row(
    folder: &'static str,
    package: &'static str,
    kind: Kind,
    inner: &'static [&'static str],
    outer: &'static [&'static str],
) -> Layer {
    Layer { folder, package, kind, inner, outer }
}

use Kind::{Edge, Instructions, Pure, Tool, Unsafe};

/// All crates, each below what it imports.
#[rustfmt::skip]
pub const LAYERS: &[Layer] = &[
    // The words and the bytes that both processes share. Neither knows the other.
    row("control/steer", "ipop-steer", Pure, &[], &["thiserror"]),
    row("control/shm", "ipop-shm", Unsafe, &[],
        &["libc", "loom", "rustix", "thiserror"]),

    // The datapath: packets and links. It knows no signalling network and no policy.
    row("datapath/wire", "ipop-wire", Pure, &[], &["thiserror", "zerocopy"]),
    row("datapath/gcm", "ipop-gcm", Instructions, &[], &["zeroize"]),
    row("datapath/crypto", "ipop-crypto", Pure, &["ipop-gcm", "ipop-wire"],
        &["aegis", "aws-lc-rs", "base64", "rustls", "thiserror", "zeroize"]),
    row("datapath/stun", "ipop-stun", Pure, &[], &["aws-lc-rs", "stun-rs", "thiserror"]),
    row("datapath/ice", "ipop-ice", Pure, &["ipop-stun"], &["thiserror"]),
    row("datapath/link", "ipop-link", Pure,
        &["ipop-wire", "ipop-crypto", "ipop-stun", "ipop-ice"], &["thiserror", "zeroize"]),
    row("datapath/pipeline", "ipop-pipeline", Pure, &["ipop-wire", "ipop-crypto"],
        &["zerocopy"]),
    row("datapath/uring", "ipop-uring", Unsafe, &[],
        &["io-uring", "libc", "quinn-udp", "rustix", "thiserror"]),
    row("datapath/portmap", "ipop-portmap", Edge, &[],
        &["igd-next", "rustix", "thiserror", "tracing"]),
    row("datapath/engine", "ipop-engine", Edge,
        &["ipop-wire", "ipop-crypto", "ipop-stun", "ipop-ice", "ipop-link", "ipop-pipeline",
          "ipop-portmap", "ipop-uring", "ipop-steer", "ipop-shm"],
        // TURN over TLS is the bridge's; what it carries is sealed anyway.
        &["crossbeam-queue", "getifaddrs", "quinn-udp", "rustix", "rustls", "rustls-native-certs",
          "signal-hook", "socket2", "thiserror", "tracing"]),

    // Signalling: who is there, and how to reach them. It knows no packet and no shared memory.
    row("signalling/signal", "ipop-signal", Pure, &[], &["thiserror"]),
    row("signalling/jingle", "ipop-jingle", Pure, &["ipop-signal"],
        &["minidom", "thiserror", "xmpp-parsers", "xso"]),
    row("signalling/stream", "ipop-stream", Pure, &[],
        &["aws-lc-rs", "base64", "minidom", "thiserror"]),
    row("signalling/xmpp", "ipop-xmpp", Edge, &["ipop-signal", "ipop-jingle", "ipop-stream"],
        &["aws-lc-rs", "base64", "hickory-resolver", "idna", "jid", "minidom", "rustix", "rustls",
          "rustls-native-certs", "socket2", "stringprep", "thiserror", "tokio", "tokio-rustls",
          "tracing"]),
    row("signalling/hub", "ipop-hub", Edge, &["ipop-signal", "ipop-jingle", "ipop-stream"],
        &["aws-lc-rs", "base64", "getifaddrs", "jid", "minidom", "quinn-udp", "rcgen", "rustix",
          "rustls", "serde", "socket2", "thiserror", "tokio", "tokio-rustls", "toml", "tracing",
          "turn-server-proto"]),

    // Control: policies, what runs them, and the program.
    row("control/group", "ipop-group", Pure, &["ipop-steer", "ipop-signal"], &["thiserror"]),
    row("control/controller", "ipop-controller", Edge,
        &["ipop-steer", "ipop-shm", "ipop-group", "ipop-signal", "ipop-xmpp"],
        &["rustix", "serde", "serde_json", "thiserror", "tokio", "tracing"]),
    // Packet sockets, for `ipop capture` and the lab.
    row("control/packets", "ipop-packets", Unsafe, &[], &["libc", "rustix"]),
    row("control/lab", "ipop-lab", Edge, &["ipop-packets"],
        &["libc", "rustix", "serde", "thiserror"]),
    // Where all is put together: processes, keys (crypto), `netcheck` (stun), `capture` (wire).
    row("control/cli", "ipop", Edge,
        &["ipop-engine", "ipop-controller", "ipop-hub", "ipop-lab", "ipop-packets", "ipop-crypto",
          "ipop-stun", "ipop-wire", "ipop-shm", "ipop-steer"],
        &["clap", "indicatif", "libc", "nix", "rustix", "serde", "serde_json", "socket2",
          "thiserror", "tokio", "toml", "tracing", "tracing-subscriber"]),

    // Other people's programs are only run; packets in batches are nix's and rustix's.
    row("bench", "ipop-bench", Tool, &["ipop-lab"],
        &["clap", "indicatif", "nix", "rustix", "serde", "serde_json", "signal-hook",
          "thiserror"]),
    row("perf/stages", "ipop-stages", Tool,
        &["ipop-crypto", "ipop-pipeline", "ipop-shm", "ipop-wire"], &["thiserror"]),
    row("perf/tool", "ipop-perf", Tool, &["ipop-crypto", "ipop-stages"],
        &["clap", "inferno", "perf-event2", "serde", "thiserror", "toml"]),
    row("tests/system", "ipop-system-tests", Tool,
        &["ipop-ice", "ipop-lab", "ipop-shm", "ipop-steer", "ipop-stun"],
        &["clap", "quinn-udp", "rustix", "seccompiler", "serde_json", "socket2"]),
    row("tests/tidy", "ipop-tidy", Tool, &[], &[]),
];

/// Files that may hold `unsafe` outside crates of [`Kind::Unsafe`]: the lab's system calls.
pub const UNSAFE_FILES: &[&str] = &["control/lab/src/sys.rs"];

#[cfg(test)]
mod laws {
    use super::*;

    fn area(folder: &str) -> &str {
        folder.split('/').next().unwrap()
    }

    fn imports<'a>(layer: &'a Layer) -> impl Iterator<Item = &'static Layer> + 'a {
        let by_name = |name: &&str| LAYERS.iter().find(|other| other.package == *name).unwrap();
        layer.inner.iter().map(by_name)
    }

    /// All imports from one area into another, as `importer -> imported`.
    fn crossings(from: &str, to: &str) -> Vec<String> {
        let rows = LAYERS.iter().filter(|layer| area(layer.folder) == from);
        rows.flat_map(|layer| imports(layer).map(move |other| (layer, other)))
            .filter(|(_, other)| area(other.folder) == to)
            .map(|(layer, other)| format!("{} -> {}", layer.package, other.package))
            .collect()
    }

    #[test]
    fn each_crate_stands_below_what_it_imports() {
        for (at, layer) in LAYERS.iter().enumerate() {
            for name in layer.inner {
                let above = LAYERS[..at].iter().any(|other| other.package == *name);
                assert!(above, "{} imports {name}", layer.package);
            }
        }
    }

    #[test]
    fn pure_crates_import_pure_crates_and_nothing_that_does_io() {
        let doing = [
            "crossbeam-queue",
            "getifaddrs",
            "getrandom",
            "hickory-resolver",
            "io-uring",
            "libc",
            "mio",
            "nix",
            "parking_lot",
            "rand",
            "rustix",
            "socket2",
            "tokio",
            "tokio-rustls",
            "tokio-xmpp",
            "tracing",
        ];
        for layer in LAYERS.iter().filter(|layer| layer.kind.is_pure()) {
            assert!(imports(layer).all(|other| other.kind.is_pure()), "{}", layer.package);
            let found = layer.outer.iter().find(|name| doing.contains(name));
            assert_eq!(found, None, "{}", layer.package);
        }
    }

    #[test]
    fn the_processes_share_words_and_bytes_only() {
        let expected = ["ipop-engine -> ipop-steer", "ipop-engine -> ipop-shm"];
        assert_eq!(crossings("datapath", "control"), expected);
        let shared = ["ipop-steer", "ipop-shm"];
        for layer in LAYERS.iter().filter(|layer| shared.contains(&layer.package)) {
            assert!(layer.inner.is_empty(), "{}", layer.package);
        }
    }

    #[test]
    fn only_the_program_imports_the_datapath() {
        let of_cli = |crossing: &String| crossing.starts_with("ipop -> ");
        assert!(crossings("control", "datapath").iter().all(of_cli));
    }

    #[test]
    fn signalling_and_packets_never_meet() {
        assert_eq!(crossings("datapath", "signalling"), [""; 0]);
        assert_eq!(crossings("signalling", "datapath"), [""; 0]);
        assert_eq!(crossings("signalling", "control"), [""; 0]);
    }

    #[test]
    fn no_async_runtime_in_the_datapath_and_no_ring_outside_it() {
        for layer in LAYERS {
            let uses = |name| layer.outer.contains(&name);
            let in_datapath = area(layer.folder) == "datapath";
            assert!(!(in_datapath && uses("tokio")), "{}", layer.package);
            assert!(!uses("io-uring") || layer.package == "ipop-uring", "{}", layer.package);
        }
    }

    #[test]
    fn xml_stays_in_signalling() {
        for layer in LAYERS.iter().filter(|layer| area(layer.folder) != "signalling") {
            for name in ["minidom", "xmpp-parsers", "xso", "jid", "tokio-xmpp"] {
                assert!(!layer.outer.contains(&name), "{}", layer.package);
            }
        }
    }
}
