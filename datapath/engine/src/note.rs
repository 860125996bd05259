//! What observers see of the process itself: lines of `name=value`.

use std::fmt::Write as _;

use ipop_shm::RowWriter;

use crate::config::DatapathConfig;
use crate::interface::Interface;
use crate::workers::Sockets;

/// The note, whose only line that changes is the interface's MTU.
pub(crate) struct Note {
    row: RowWriter,
    before: String,
    behind: String,
}

impl Note {
    /// Writes what holds from now on; `io` is what carries packets.
    pub(crate) fn new(
        row: RowWriter,
        config: &DatapathConfig,
        interface: &Interface,
        sockets: &[Sockets],
        io: &str,
    ) -> Self {
        let mut before = String::new();
        let fingerprint = config.identity.fingerprint();
        let _ = writeln!(before, "name={}", config.name);
        let _ = writeln!(before, "fingerprint={fingerprint}");
        let _ = writeln!(before, "interface={}", interface.name());
        let mut behind = String::new();
        let _ = writeln!(behind, "offloads={:?}", interface.offloads());
        write_sockets(&mut behind, sockets);
        let _ = writeln!(behind, "io={io}");
        let pinned = if config.pins { ", each on a core of its own" } else { "" };
        let real_time = if config.real_time { ", in real time" } else { "" };
        let _ = writeln!(behind, "workers={}{pinned}{real_time}", sockets.len());
        let mut note = Self { row, before, behind };
        note.show_mtu(interface);
        note
    }

    /// Writes the interface's MTU anew.
    pub(crate) fn show_mtu(&mut self, interface: &Interface) {
        let auto = if interface.is_auto() { " (auto)" } else { "" };
        let text = format!("{}mtu={}{auto}\n{}", self.before, interface.mtu(), self.behind);
        if let Err(error) = self.row.write(0, text.as_bytes()) {
            tracing::debug!("the note cannot be written: {error}");
        }
    }
}

fn write_sockets(note: &mut String, sockets: &[Sockets]) {
    for is_v4 in [true, false] {
        let of = |sockets: &'_ Sockets| (if is_v4 { sockets.v4() } else { sockets.v6() }).cloned();
        let sockets: Vec<_> = sockets.iter().filter_map(of).collect();
        let family = if is_v4 { "v4" } else { "v6" };
        let Some(buffer) = sockets.first().map(|socket| socket.receive_buffer_len()) else {
            continue;
        };
        let ports: Vec<_> = sockets.iter().map(|socket| socket.port().to_string()).collect();
        let ports = ports.join(" ");
        let _ = writeln!(note, "udp_{family}=port {ports}, receive buffer {buffer} bytes");
    }
}
