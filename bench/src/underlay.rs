//! The cables that everything is measured on.

use clap::ValueEnum;

use ipop_lab::Namespace;

use crate::error::BenchError;

/// What kind of cable joins both ends. Always one veth pair, without a hop between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Underlay {
    /// MTU 1500, as the kernel makes it: super-segments cross uncut, TCP's and UDP's.
    Default,
    /// MTU 1500, and every packet really crosses at that size: segmentation offloads are off, so
    /// the kernel cuts before the cable, and joins (GRO) behind it, as with a plain network card.
    Segmenting,
    /// MTU 9000, as the kernel makes it.
    Jumbo,
}

impl Underlay {
    /// Its name in flags and reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Segmenting => "segmenting",
            Self::Jumbo => "jumbo",
        }
    }

    /// Largest packet of the cable, bytes.
    pub(crate) fn mtu(self) -> u16 {
        match self {
            Self::Default | Self::Segmenting => 1500,
            Self::Jumbo => 9000,
        }
    }

    /// Largest packet inside, for all systems that have to be told: room for the largest header
    /// among them (WireGuard's over IPv6), so that all carry the same.
    pub(crate) fn inner_mtu(self) -> u16 {
        self.mtu() - 80
    }

    /// Joins two namespaces by a cable of this kind; both ends are called `name`.
    pub(crate) fn join(self, ends: [&Namespace; 2], name: &str) -> Result<(), BenchError> {
        let [a, b] = ends;
        let mtu = self.mtu();
        a.ip(&format!(
            "link add {name} mtu {mtu} type veth peer name {name} mtu {mtu} netns {}",
            b.name()
        ))?;
        for end in ends {
            if self == Self::Segmenting {
                end.run(&format!("ethtool -K {name} tso off tx-udp-segmentation off gro on"))?;
            }
            end.ip(&format!("link set {name} up"))?;
        }
        Ok(())
    }
}
