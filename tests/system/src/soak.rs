//! Much traffic in bad weather: two nodes, streams and datagrams both ways at once, and every byte
//! checked where it arrives.
//!
//! A [`Weather`] says what the underlay does and how the hosts are set; [`Place`] builds the
//! machines for it; [`Place::round`] lets traffic run and counts in [`Sums`] what came of it.

mod flow;
mod place;
mod stream;
mod sums;
mod weather;

pub use place::{Limit, Place};
pub use sums::Sums;
pub use weather::{Tcp, WEATHERS, Weather};

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use stream::Route;

/// How long nothing may arrive before a transfer counts as stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// A stream of so many bytes, and then a flow of so many datagrams, from one namespace to an
/// address in another; both are named by files. `mtu` is that of the sender's interface.
pub fn exchange(
    [from, to]: [&Path; 2],
    address: IpAddr,
    mtu: u16,
    (bytes, datagrams): (u64, u64),
    seed: u64,
) -> Sums {
    let route = Route { from: from.to_owned(), to: to.to_owned(), address };
    let mut sums = stream::send_many(&route, bytes, None, seed);
    sums += flow::send(&route, mtu, datagrams, None, seed);
    sums
}

/// Whether a limit in time is over.
fn is_over(until: Option<Instant>) -> bool {
    until.is_some_and(|until| Instant::now() >= until)
}
