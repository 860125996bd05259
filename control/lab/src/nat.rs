//! The NAT routers: what each kind does to UDP, as nftables rules.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::LabError;

/// How a site's router treats traffic (RFC 4787 words).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Nat {
    /// No router: the machine has a public address.
    None,
    /// A public address behind a stateful firewall: filtering by address and port, no translation.
    Firewall,
    /// Endpoint-independent mapping and filtering: whoever knows the mapping gets in.
    FullCone,
    /// Endpoint-independent mapping, filtering by address: whoever was sent to gets in from any
    /// port.
    AddressRestricted,
    /// Endpoint-independent mapping, filtering by address and port, unsolicited packets dropped.
    PortRestricted,
    /// As [`Nat::PortRestricted`], but unsolicited packets are answered with ICMP errors, which
    /// leaves an entry behind that moves the next mapping.
    Rejecting,
    /// As [`Nat::PortRestricted`], and machines behind it reach each other by its outside.
    Hairpin,
    /// One port for all ports of a destination, another for each address; filtering by address
    /// and port.
    AddressDependent,
    /// A fresh port for each destination, counted up; filtering by address and port.
    Sequential,
    /// A fresh, random port for each destination; filtering by address and port.
    Symmetric,
    /// A [`Nat::PortRestricted`] home router behind a carrier's of the same kind.
    Double,
    /// A [`Nat::PortRestricted`] home router behind a carrier's [`Nat::Symmetric`] one.
    Carrier,
    /// No UDP at all: only TCP leaves.
    UdpBlocked,
    /// Nothing leaves but TCP to the ports 443 and 5222, as on many a guest network.
    TcpOnly,
}

const NAMES: [(&str, Nat); 14] = [
    ("none", Nat::None),
    ("firewall", Nat::Firewall),
    ("fullcone", Nat::FullCone),
    ("addrres", Nat::AddressRestricted),
    ("portres", Nat::PortRestricted),
    ("rejecting", Nat::Rejecting),
    ("hairpin", Nat::Hairpin),
    ("addrdep", Nat::AddressDependent),
    ("sequential", Nat::Sequential),
    ("symmetric", Nat::Symmetric),
    ("double", Nat::Double),
    ("carrier", Nat::Carrier),
    ("udpblock", Nat::UdpBlocked),
    ("tcponly", Nat::TcpOnly),
];

/// Ports of a [`Nat::Sequential`] before they come round again.
const SEQUENCE_LEN: u16 = 4096;

impl Nat {
    /// Every kind.
    pub fn all() -> [Self; NAMES.len()] {
        NAMES.map(|(_, nat)| nat)
    }

    /// Every kind's name, for messages.
    pub fn names() -> String {
        NAMES.map(|(name, _)| name).join(", ")
    }

    /// True where a router translates addresses, false where the machine itself is public.
    pub fn translates(self) -> bool {
        !matches!(self, Self::None | Self::Firewall)
    }

    /// The kinds of the home router, and of the carrier's in front of it, if there is one.
    pub(crate) fn routers(self) -> (Self, Option<Self>) {
        match self {
            Self::Double => (Self::PortRestricted, Some(Self::PortRestricted)),
            Self::Carrier => (Self::PortRestricted, Some(Self::Symmetric)),
            single => (single, None),
        }
    }

    /// The nftables rules of a router whose outer interface is `wan`, for a machine inside;
    /// `public` is its own address outside. All its other interfaces lead to machines inside.
    pub(crate) fn rules(self, inside: Ipv4Addr, public: Ipv4Addr) -> String {
        if self == Self::None {
            return String::new();
        }
        let (sets, source, destination) = self.translation(inside, public);
        let unsolicited = match self {
            // A new entry is what makes the next mapping move: let the router's own stack answer.
            Self::Rejecting => "iifname wan accept",
            _ => "iifname wan ct state new drop",
        };
        let forward = match self {
            Self::FullCone | Self::AddressRestricted | Self::Hairpin => "ct status dnat accept",
            Self::UdpBlocked => "meta l4proto udp drop",
            Self::TcpOnly => {
                "ct state established,related accept
    iifname wan drop
    tcp dport { 443, 5222 } accept
    drop"
            }
            _ => "",
        };
        let note = match self {
            Self::AddressRestricted => "oifname wan meta l4proto udp update @heard { ip daddr }",
            Self::Hairpin => "oifname wan meta l4proto udp update @inside { udp sport : ip saddr }",
            _ => "",
        };
        format!(
            "table ip lab {{
  {sets}
  chain post {{ type nat hook postrouting priority srcnat; policy accept;
    {source}
  }}
  chain pre {{ type nat hook prerouting priority dstnat; policy accept;
    {destination}
  }}
  chain input {{ type filter hook input priority filter; policy accept;
    {unsolicited}
  }}
  chain forward {{ type filter hook forward priority filter; policy accept;
    {note}
    {forward}
    iifname wan ct state new drop
    iifname != wan oifname != wan ct state new drop
  }}
}}
"
        )
    }

    /// What it needs to remember, and what it does to sources and destinations.
    fn translation(self, inside: Ipv4Addr, public: Ipv4Addr) -> (&'static str, String, String) {
        let udp = "oifname wan meta l4proto udp masquerade to";
        let masquerade = "oifname wan masquerade";
        match self {
            Self::None | Self::Firewall => ("", String::new(), String::new()),
            Self::Symmetric => ("", format!("{masquerade} fully-random"), String::new()),
            Self::Sequential => {
                // A bare number would be taken in the machine's byte order.
                let ports = (0..SEQUENCE_LEN).map(|n| format!("{n} : {}", 20_000 + n));
                let ports = ports.collect::<Vec<_>>().join(", ");
                let counted = format!("{udp} :numgen inc mod {SEQUENCE_LEN} map {{ {ports} }}");
                ("", format!("{counted}\n    {masquerade}"), String::new())
            }
            Self::AddressDependent => {
                let hashed = format!("{udp} :jhash ip daddr . udp sport mod 40000 offset 20000");
                ("", format!("{hashed}\n    {masquerade}"), String::new())
            }
            Self::FullCone => (
                "",
                masquerade.into(),
                format!("iifname wan udp dport 1024-65535 dnat to {inside}"),
            ),
            Self::AddressRestricted => (
                "set heard { type ipv4_addr; size 4096; flags dynamic,timeout; timeout 60s; }",
                masquerade.into(),
                format!("iifname wan ip saddr @heard udp dport 1024-65535 dnat to {inside}"),
            ),
            Self::Hairpin => (
                "map inside { type inet_service : ipv4_addr; size 4096; flags dynamic,timeout; \
                 timeout 60s; }",
                format!("{masquerade}\n    oifname != wan ct status dnat snat to {public}"),
                format!("iifname != wan ip daddr {public} dnat to udp dport map @inside"),
            ),
            _ => ("", masquerade.into(), String::new()),
        }
    }
}

impl fmt::Display for Nat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(_, nat)| nat == self).map_or("?", |(name, _)| name);
        f.write_str(name)
    }
}

impl FromStr for Nat {
    type Err = LabError;

    fn from_str(text: &str) -> Result<Self, LabError> {
        NAMES
            .iter()
            .find(|(name, _)| *name == text.trim())
            .map(|(_, nat)| *nat)
            .ok_or_else(|| LabError::UnknownNat(text.trim().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_an_unknown_one_lists_them() {
        for (name, nat) in NAMES {
            assert_eq!(name.parse::<Nat>().unwrap(), nat);
            assert_eq!(nat.to_string(), name);
        }
        let text = "cone".parse::<Nat>().unwrap_err().to_string();
        assert!(text.contains("`cone`") && text.contains("portres"), "{text}");
    }
}
