//! What a round is run in.

use std::time::Duration;

use ipop_lab::Impairment;

/// The conditions of a round.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// For reports.
    pub name: &'static str,
    /// What the cable of the first machine does.
    pub cable: fn() -> Impairment,
    /// Whether the tunnel's datagrams go over IPv6.
    pub is_underlay_v6: bool,
    /// MTU of each node's interface, bytes; 0 is the node's own choice. Above what the underlay
    /// carries, frames are sent in pieces and TCP segments cut anew.
    pub mtus: [u16; 2],
    /// How both hosts' TCP is set.
    pub tcp: Tcp,
}

/// Settings of the hosts' TCP, `net.ipv4.tcp_*`.
#[derive(Clone, Copy, Debug)]
pub struct Tcp {
    /// Timestamp option.
    pub timestamps: bool,
    /// Selective acknowledgements.
    pub sack: bool,
    /// Explicit congestion notification is asked for.
    pub ecn: bool,
}

const USUAL: Tcp = Tcp { timestamps: true, sack: true, ecn: false };

const CLEAR: Weather = Weather {
    name: "clear",
    cable: Impairment::default,
    is_underlay_v6: false,
    mtus: [0, 0],
    tcp: USUAL,
};

/// All weathers, the clear one first.
pub const WEATHERS: [Weather; 12] = [
    CLEAR,
    Weather { name: "clear, IPv6 underlay", is_underlay_v6: true, ..CLEAR },
    Weather { name: "joined datagrams", cable: joined, ..CLEAR },
    Weather { name: "loss", cable: loss, tcp: Tcp { ecn: true, ..USUAL }, ..CLEAR },
    Weather { name: "loss without SACK", cable: loss, tcp: Tcp { sack: false, ..USUAL }, ..CLEAR },
    Weather { name: "reordering", cable: reordering, ..CLEAR },
    Weather { name: "duplication", cable: duplication, tcp: PLAIN, ..CLEAR },
    Weather { name: "storm", cable: storm, ..CLEAR },
    Weather { name: "storm, IPv6 underlay", cable: storm, is_underlay_v6: true, ..CLEAR },
    Weather { name: "storm of single datagrams", cable: storm_of_singles, tcp: PLAIN, ..CLEAR },
    Weather { name: "storm, small and usual MTU", cable: storm, mtus: [1280, 0], ..CLEAR },
    Weather { name: "storm, large and usual MTU", cable: storm, mtus: [9000, 0], ..CLEAR },
];

/// TCP as it was once.
const PLAIN: Tcp = Tcp { timestamps: false, sack: false, ecn: true };

fn joined() -> Impairment {
    Impairment { delay: Duration::from_micros(100), joins: true, ..Impairment::default() }
}

fn loss() -> Impairment {
    Impairment { loss: 0.001, ..joined() }
}

fn reordering() -> Impairment {
    Impairment { reorder: 0.002, ..joined() }
}

fn duplication() -> Impairment {
    Impairment { duplicate: 0.02, ..joined() }
}

fn storm() -> Impairment {
    Impairment {
        loss: 0.0005,
        duplicate: 0.005,
        reorder: 0.0005,
        corrupt: 0.0002,
        truncate: 0.0002,
        ..joined()
    }
}

fn storm_of_singles() -> Impairment {
    Impairment { joins: false, ..storm() }
}

impl Weather {
    /// Whether datagrams may be lost on the way.
    pub fn is_lossy(&self) -> bool {
        let cable = (self.cable)();
        [cable.loss, cable.corrupt, cable.truncate].iter().any(|share| *share > 0.0)
    }

    /// Whether datagrams may overtake each other on the way.
    pub fn reorders(&self) -> bool {
        (self.cable)().reorder > 0.0
    }

    /// Whether damaged datagrams reach the nodes.
    pub fn damages(&self) -> bool {
        let cable = (self.cable)();
        cable.corrupt > 0.0 || cable.truncate > 0.0
    }
}
