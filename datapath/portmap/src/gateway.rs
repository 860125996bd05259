//! The default route, as the kernel lists it.

use std::net::Ipv4Addr;

/// The routes of this network namespace (proc(5)).
const ROUTES: &str = "/proc/self/net/route";

/// The router of the IPv4 default route with the least metric.
pub(crate) fn default_gateway() -> std::io::Result<Option<Ipv4Addr>> {
    Ok(read(&std::fs::read_to_string(ROUTES)?))
}

/// Columns: interface, destination, gateway, flags, references, use, metric, mask, and more;
/// addresses are hexadecimal in the byte order of the machine.
fn read(table: &str) -> Option<Ipv4Addr> {
    let routes = table.lines().skip(1).filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let number = |at: usize| u32::from_str_radix(words.get(at)?, 16).ok();
        let (destination, gateway, mask) = (number(1)?, number(2)?, number(7)?);
        let metric: u32 = words.get(6)?.parse().ok()?;
        let is_default = destination == 0 && mask == 0 && gateway != 0;
        is_default.then(|| (metric, Ipv4Addr::from(gateway.to_ne_bytes())))
    });
    routes.min_by_key(|(metric, _)| *metric).map(|(_, gateway)| gateway)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t00000000\t0102A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t0002A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
";

    #[test]
    fn the_best_default_route_counts() {
        assert_eq!(read(TABLE), Some(Ipv4Addr::new(192, 168, 2, 1)));
        let without: String = TABLE.lines().filter(|line| !line.contains("A8C0\t0003")).collect();
        assert_eq!(read(&without), None);
        for garbage in ["", "x", "a\nb c d e f g h i", "Iface\neth0\tzz\t0\t0\t0\t0\tq\t0"] {
            assert_eq!(read(garbage), None);
        }
    }
}
