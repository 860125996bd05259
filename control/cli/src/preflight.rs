//! What the machine must offer, said before anything is started.

use std::fs::{self, OpenOptions};
use std::io;

use crate::failure::{Code, Failure};

const TUN: &str = "/dev/net/tun";
const CAP_NET_ADMIN: u32 = 12;

/// Checks permission and device.
///
/// # Errors
/// Names what is missing and the way out.
pub fn check() -> Result<(), Failure> {
    if !has_net_admin() {
        return Err(Failure::new(
            Code::NotPermitted,
            "making a network interface needs CAP_NET_ADMIN: run as root (`sudo ipop up ...`), or \
             give the program the capability",
        ));
    }
    match OpenOptions::new().read(true).write(true).open(TUN) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::new(Code::NotPermitted, tun_text(&error))),
    }
}

fn tun_text(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!(
            "{TUN} is missing: load the module with `modprobe tun`, or in a container start it \
             with `--device {TUN}`"
        ),
        io::ErrorKind::PermissionDenied => {
            format!("{TUN} may not be opened: run as root, or allow the device to the container")
        }
        _ => format!("{TUN} cannot be opened: {error}; is the tun module loaded?"),
    }
}

fn has_net_admin() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & (1 << CAP_NET_ADMIN) != 0)
}
