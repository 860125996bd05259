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
    /// Endpoint-independent mapping, filtering by address and port, unsolicited packets dropped.
    PortRestricted,
    /// As [`Nat::PortRestricted`], but unsolicited packets are answered with ICMP errors, which
    /// leaves an entry behind that moves the next mapping.
    Rejecting,
    /// A fresh, random port for each destination; filtering by address and port.
    Symmetric,
    /// No UDP at all: only TCP leaves.
    UdpBlocked,
    /// Nothing leaves but TCP to the ports 443 and 5222, as on many a guest network.
    TcpOnly,
}

const NAMES: [(&str, Nat); 8] = [
    ("none", Nat::None),
    ("firewall", Nat::Firewall),
    ("fullcone", Nat::FullCone),
    ("portres", Nat::PortRestricted),
    ("rejecting", Nat::Rejecting),
    ("symmetric", Nat::Symmetric),
    ("udpblock", Nat::UdpBlocked),
    ("tcponly", Nat::TcpOnly),
];

impl Nat {
    /// Every kind's name, for messages.
    pub fn names() -> String {
        NAMES.map(|(name, _)| name).join(", ")
    }

    /// True where a router translates addresses, false where the machine itself is public.
    pub fn translates(self) -> bool {
        !matches!(self, Self::None | Self::Firewall)
    }

    /// The nftables rules of a router whose outer interface is `wan` and inner one `lan`.
    pub(crate) fn rules(self, inside: Ipv4Addr) -> String {
        let (source, destination) = match self {
            Self::None => return String::new(),
            Self::Firewall => (String::new(), String::new()),
            Self::Symmetric => ("oifname wan masquerade fully-random".into(), String::new()),
            Self::FullCone => (
                "oifname wan masquerade".into(),
                format!("iifname wan udp dport 1024-65535 dnat to {inside}"),
            ),
            _ => ("oifname wan masquerade".into(), String::new()),
        };
        let unsolicited = match self {
            // A new entry is what makes the next mapping move: let the router's own stack answer.
            Self::Rejecting => "iifname wan accept",
            _ => "iifname wan ct state new drop",
        };
        let forward = match self {
            Self::FullCone => "ct status dnat accept\n    iifname wan ct state new drop",
            Self::UdpBlocked => "meta l4proto udp drop\n    iifname wan ct state new drop",
            Self::TcpOnly => {
                "ct state established,related accept
    iifname wan drop
    tcp dport { 443, 5222 } accept
    drop"
            }
            _ => "iifname wan ct state new drop",
        };
        format!(
            "table ip lab {{
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
    {forward}
  }}
}}
"
        )
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
