//! The tap interface: opened with all offloads the kernel has, named, addressed, brought up.
//!
//! [`Tap::open`] gives two things: the [`Tap`], a handle for settings that any thread may own,
//! and one [`TapQueue`] per worker, whose file descriptor carries the frames. The interface is
//! not persistent: when the last queue is closed (its port dropped), the kernel removes it.

use std::fs::OpenOptions;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::ioctl::{IntegerSetter, Opcode, Setter, Updater, ioctl};

use crate::netlink::{LinkChange, RouteSocket};
use crate::port::VNET_HEADER_LEN;

const DEVICE: &str = "/dev/net/tun";
/// The interfaces of this thread's network namespace and what they have counted.
const DEVICES: &str = "/proc/thread-self/net/dev";
/// Which number of an interface there counts frames that were dropped on their way out.
const DROPPED: usize = 11;
/// Longest interface name; the kernel's 16 bytes end with a zero.
const NAME_LEN_MAX: usize = 15;
/// How long a name stays "busy" at most after a process with an io_uring on it was killed.
const BUSY_PATIENCE: Duration = Duration::from_secs(2);
const BUSY_PAUSE: Duration = Duration::from_millis(20);

const TUNSETIFF: Opcode = libc::TUNSETIFF as Opcode;
const TUNSETOFFLOAD: Opcode = libc::TUNSETOFFLOAD as Opcode;
const TUNSETVNETHDRSZ: Opcode = libc::TUNSETVNETHDRSZ as Opcode;
const TUNSETVNETLE: Opcode = libc::TUNSETVNETLE as Opcode;

/// Handle for the settings of a tap interface, for as long as its queues are open.
#[derive(Debug)]
pub struct Tap {
    name: String,
    index: u32,
    offloads: Offloads,
    route: RouteSocket,
}

/// One queue of a tap: what a port reads frames from and writes them to.
#[derive(Debug)]
pub struct TapQueue(OwnedFd);

impl TapQueue {
    /// Another handle of the same queue, which stays open until both are closed.
    ///
    /// # Errors
    /// When the process may have no more files.
    pub fn try_clone(&self) -> io::Result<TapQueue> {
        self.0.try_clone().map(TapQueue)
    }

    /// For ports that read and write by themselves.
    pub(crate) fn set_nonblocking(&self) -> io::Result<()> {
        Ok(rustix::io::ioctl_fionbio(&self.0, true)?)
    }
}

impl AsFd for TapQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What a tap frame may leave undone, as the kernel agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Offloads {
    /// Finished frames only.
    None,
    /// Checksums may be missing.
    Checksum,
    /// And TCP may come as super-segments.
    Tso,
    /// And so may UDP (Linux 6.2).
    TsoUso,
}

impl Offloads {
    /// From the best to the least; the kernel refuses masks with a bit that it does not know.
    const DESCENDING: [Offloads; 4] =
        [Offloads::TsoUso, Offloads::Tso, Offloads::Checksum, Offloads::None];

    fn mask(self) -> libc::c_uint {
        let tso = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
        match self {
            Offloads::None => 0,
            Offloads::Checksum => libc::TUN_F_CSUM,
            Offloads::Tso => tso,
            Offloads::TsoUso => tso | libc::TUN_F_USO4 | libc::TUN_F_USO6,
        }
    }
}

/// Why a tap could not be opened or set.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// There is no `/dev/net/tun`.
    #[error(
        "{DEVICE} is missing: load the module (`modprobe tun`), or in a container pass the \
         device in (`--device {DEVICE}`)"
    )]
    DeviceMissing,
    /// Not privileged.
    #[error(
        "not permitted to {action}: run as root, or give the binary CAP_NET_ADMIN \
         (`setcap cap_net_admin+ep`), or run it in a user and network namespace of its own"
    )]
    NotPermitted {
        /// What was attempted.
        action: String,
    },
    /// The name is not one that Linux accepts.
    #[error("'{name}' is not an interface name: 1 to 15 bytes without '/', ':' or space")]
    InvalidName {
        /// The name asked for.
        name: String,
    },
    /// Somebody has it.
    #[error(
        "interface {name} is in use: another instance runs with this name, or an interface of \
         another sort has it (`ip link show {name}`); stop that one or choose another name"
    )]
    NameTaken {
        /// The name asked for.
        name: String,
    },
    /// The system has IPv6 switched off.
    #[error(
        "interface {name} takes no IPv6 address: IPv6 is switched off here (see the sysctl \
         net.ipv6.conf.{name}.disable_ipv6), or its MTU is below 1280"
    )]
    NoIpv6 {
        /// The interface.
        name: String,
    },
    /// Anything else the kernel said.
    #[error("cannot {action}: {source}")]
    Refused {
        /// What was attempted.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// The alias of every overlay interface (`ip link` shows it), by which other instances on the
/// machine know it.
const ALIAS: &str = "ipop overlay";

/// Whether an interface is an overlay's, of whichever instance; `false` where `/sys` does not show
/// this network namespace.
pub fn is_overlay(interface: &str) -> bool {
    let alias = std::fs::read_to_string(format!("/sys/class/net/{interface}/ifalias"));
    alias.is_ok_and(|alias| alias.trim_end() == ALIAS)
}

impl Tap {
    /// Creates the interface `name` (a `%d` in it is numbered by the kernel) with `queues`
    /// queues, 12-byte virtio-net headers in little endian, and the given MAC address. It is
    /// down: set MTU and addresses first, then [`set_up`](Tap::set_up).
    ///
    /// # Errors
    /// [`TapError`] says what is missing and what to do. A name that is busy is tried for two
    /// seconds, because the kernel holds it a while after a predecessor was killed.
    pub fn open(name: &str, queues: usize, mac: [u8; 6]) -> Result<(Tap, Vec<TapQueue>), TapError> {
        let first = open_queue(name, queues > 1)?;
        let name = first.name;
        let mut fds = vec![TapQueue(first.fd)];
        while fds.len() < queues {
            fds.push(TapQueue(open_queue(&name, true)?.fd));
        }
        let offloads = configure_queue(&name, &fds[0])?;
        let failed = |errno| refused(format!("look up interface {name}"), errno);
        let socket = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::DGRAM,
            None,
        );
        let index = socket
            .and_then(|socket| rustix::net::netdevice::name_to_index(socket, &name))
            .map_err(failed)?;
        let route = RouteSocket::open().map_err(failed)?;
        let mut tap = Tap { name, index, offloads, route };
        tap.silence_ipv6();
        let own = LinkChange { mac: Some(mac), alias: Some(ALIAS), ..LinkChange::default() };
        tap.change("set the MAC address", &own)?;
        Ok((tap, fds))
    }

    /// Name as created.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Interface index.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// What the kernel agreed to.
    pub fn offloads(&self) -> Offloads {
        self.offloads
    }

    /// Sets the MTU, in bytes of IP packet.
    ///
    /// # Errors
    /// [`TapError`]; the kernel takes 68 to 65521.
    pub fn set_mtu(&mut self, mtu: u16) -> Result<(), TapError> {
        let change = LinkChange { mtu: Some(u32::from(mtu)), ..LinkChange::default() };
        self.change(&format!("set the MTU to {mtu}"), &change)
    }

    /// Sets how many packets wait for the datapath before the kernel drops.
    ///
    /// # Errors
    /// [`TapError`].
    pub fn set_queue_len(&mut self, packets: u32) -> Result<(), TapError> {
        let change = LinkChange { queue_len: Some(packets), ..LinkChange::default() };
        self.change(&format!("set the queue length to {packets}"), &change)
    }

    /// Frames that found the queue full since the interface was made; `None` if the kernel does not
    /// say.
    pub fn overflows(&self) -> Option<u64> {
        dropped(&std::fs::read_to_string(DEVICES).ok()?, &self.name)
    }

    /// Sets how many segments a super-segment has at most, so that one tap read fits one send.
    ///
    /// # Errors
    /// [`TapError`].
    pub fn set_gso_segments_max(&mut self, segments: u32) -> Result<(), TapError> {
        let change = LinkChange { gso_segments_max: Some(segments), ..LinkChange::default() };
        self.change(&format!("set gso_max_segs to {segments}"), &change)
    }

    /// Brings the interface up or down.
    ///
    /// # Errors
    /// [`TapError`].
    pub fn set_up(&mut self, up: bool) -> Result<(), TapError> {
        let change = LinkChange { up: Some(up), ..LinkChange::default() };
        self.change(if up { "bring it up" } else { "bring it down" }, &change)
    }

    /// Adds an address with its on-link route; one that is there already is fine.
    ///
    /// # Errors
    /// [`TapError`].
    pub fn add_address(&mut self, address: IpAddr, prefix: u8) -> Result<(), TapError> {
        match self.route.add_address(self.index, address, prefix) {
            // Four ways in which kernels say that IPv6 is off on this interface.
            Err(Errno::ACCESS | Errno::NODEV | Errno::INVAL | Errno::OPNOTSUPP)
                if address.is_ipv6() && prefix <= 128 =>
            {
                Err(TapError::NoIpv6 { name: self.name.clone() })
            }
            result => result.map_err(|errno| self.refused("add", address, prefix, errno)),
        }
    }

    /// Removes an address; one that is not there is fine.
    ///
    /// # Errors
    /// [`TapError`].
    pub fn remove_address(&mut self, address: IpAddr, prefix: u8) -> Result<(), TapError> {
        let result = self.route.remove_address(self.index, address, prefix);
        result.map_err(|errno| self.refused("remove", address, prefix, errno))
    }

    /// Nobody advertises routes on the overlay, and who has which address is settled by the
    /// controllers, so router solicitations and duplicate address detection are only traffic
    /// and delay. Without IPv6, or with a read-only `/proc/sys`, nothing is lost.
    fn silence_ipv6(&self) {
        for setting in
            ["accept_ra", "autoconf", "router_solicitations", "accept_dad", "dad_transmits"]
        {
            let path = format!("/proc/sys/net/ipv6/conf/{}/{setting}", self.name);
            let _ = std::fs::write(path, "0");
        }
    }

    fn change(&mut self, what: &str, change: &LinkChange) -> Result<(), TapError> {
        let result = self.route.change_link(self.index, change);
        result.map_err(|errno| refused(format!("{what} on interface {}", self.name), errno))
    }

    fn refused(&self, verb: &str, address: IpAddr, prefix: u8, errno: Errno) -> TapError {
        refused(format!("{verb} address {address}/{prefix} on interface {}", self.name), errno)
    }
}

/// What an interface has dropped, of a table that has a line for each.
fn dropped(devices: &str, interface: &str) -> Option<u64> {
    let numbers = devices.lines().find_map(|line| {
        let (name, numbers) = line.split_once(':')?;
        (name.trim() == interface).then_some(numbers)
    })?;
    numbers.split_whitespace().nth(DROPPED)?.parse().ok()
}

/// `struct ifreq` as TUNSETIFF reads and writes it.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; NAME_LEN_MAX + 1],
    flags: libc::c_short,
    padding: [u8; 22],
}

const _: () = assert!(size_of::<InterfaceRequest>() == size_of::<libc::ifreq>());

struct OpenedQueue {
    fd: OwnedFd,
    name: String,
}

fn open_queue(name: &str, multi_queue: bool) -> Result<OpenedQueue, TapError> {
    let deadline = Instant::now() + BUSY_PATIENCE;
    loop {
        match attach(name, multi_queue)? {
            Some(queue) => return Ok(queue),
            None if Instant::now() < deadline => thread::sleep(BUSY_PAUSE),
            None => return Err(TapError::NameTaken { name: name.to_owned() }),
        }
    }
}

/// One attempt; `None` when the name is busy.
fn attach(name: &str, multi_queue: bool) -> Result<Option<OpenedQueue>, TapError> {
    // Blocking mode, until a port wants it otherwise: io_uring polls by itself.
    let file = OpenOptions::new().read(true).write(true).open(DEVICE);
    let fd = OwnedFd::from(file.map_err(open_failed)?);
    let mut request = interface_request(name, multi_queue)?;
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, whose size the request has.
    let result = unsafe { ioctl(&fd, Updater::<TUNSETIFF, _>::new(&mut request)) };
    match result {
        Ok(()) => {
            let end = request.name.iter().position(|byte| *byte == 0).unwrap_or(NAME_LEN_MAX);
            let name = String::from_utf8_lossy(&request.name[..end]).into_owned();
            Ok(Some(OpenedQueue { fd, name }))
        }
        Err(Errno::BUSY) => Ok(None),
        Err(Errno::INVAL) => Err(TapError::NameTaken { name: name.to_owned() }),
        Err(errno) => Err(refused(format!("create interface {name}"), errno)),
    }
}

fn interface_request(name: &str, multi_queue: bool) -> Result<InterfaceRequest, TapError> {
    let forbidden = |byte: u8| byte == b'/' || byte == b':' || byte <= b' ';
    let dots = name == "." || name == "..";
    if name.is_empty() || name.len() > NAME_LEN_MAX || dots || name.bytes().any(forbidden) {
        return Err(TapError::InvalidName { name: name.to_owned() });
    }
    let queues = if multi_queue { libc::IFF_MULTI_QUEUE } else { 0 };
    let flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | queues) as libc::c_short;
    let mut request = InterfaceRequest { name: [0; NAME_LEN_MAX + 1], flags, padding: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    Ok(request)
}

/// Header size, byte order and offloads belong to the device: setting them on one queue is
/// enough.
fn configure_queue(name: &str, queue: &TapQueue) -> Result<Offloads, TapError> {
    let len = VNET_HEADER_LEN as libc::c_int;
    // SAFETY: TUNSETVNETHDRSZ reads one int.
    unsafe { ioctl(queue, Setter::<TUNSETVNETHDRSZ, _>::new(len)) }
        .map_err(|errno| refused(format!("set the virtio-net header size of {name}"), errno))?;
    // SAFETY: TUNSETVNETLE reads one int.
    unsafe { ioctl(queue, Setter::<TUNSETVNETLE, libc::c_int>::new(1)) }
        .map_err(|errno| refused(format!("set the virtio-net byte order of {name}"), errno))?;
    for offloads in Offloads::DESCENDING {
        // SAFETY: TUNSETOFFLOAD takes its mask by value.
        let setter = unsafe { IntegerSetter::<TUNSETOFFLOAD>::new_usize(offloads.mask() as usize) };
        // SAFETY: as above; no memory is involved.
        match unsafe { ioctl(queue, setter) } {
            Ok(()) => return Ok(offloads),
            Err(Errno::INVAL) => {}
            Err(errno) => return Err(refused(format!("set the offloads of {name}"), errno)),
        }
    }
    Ok(Offloads::None)
}

fn open_failed(error: io::Error) -> TapError {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TapError::DeviceMissing,
        Some(libc::EACCES | libc::EPERM) => {
            TapError::NotPermitted { action: format!("open {DEVICE}") }
        }
        _ => TapError::Refused { action: format!("open {DEVICE}"), source: error },
    }
}

fn refused(action: String, errno: Errno) -> TapError {
    match errno {
        Errno::PERM | Errno::ACCESS => TapError::NotPermitted { action },
        _ => TapError::Refused { action, source: errno.into() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_interface_dropped_is_found_in_the_table() {
        let table = "Inter-|   Receive                            |  Transmit\n \
                     face |bytes packets errs drop fifo|bytes packets errs drop fifo\n    \
                     lo:       1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n \
                     ipop0: 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36\n";
        assert_eq!(dropped(table, "ipop0"), Some(32));
        assert_eq!(dropped(table, "ipop"), None);
        assert_eq!(dropped("ipop0: 1 2", "ipop0"), None);
        assert_eq!(dropped("", "ipop0"), None);
    }
}
