//! An interface from below its host's network stack: every frame that passes, and frames of one's
//! own, both with their offloads as they are.

use std::io;
use std::path::Path;
use std::time::Duration;

use ipop_packets::RawSocket;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::SendFlags;

use crate::{LabError, sys};

/// Bytes of the virtio-net header in front of a frame (VIRTIO 1.2 section 5.1.6).
pub const VNET_LEN: usize = 10;
/// Bytes of frames that may wait to be read: a capture should miss none.
const BUFFER_LEN: usize = 256 << 20;
/// The largest super-segment with its headers.
const FRAME_MAX: usize = 1 << 17;

/// A frame with what its host knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawFrame {
    /// Checksum and segmentation as a virtio-net header says them, in the machine's byte order;
    /// offsets count from the front of `bytes`.
    pub vnet: [u8; VNET_LEN],
    /// From the destination's hardware address on, VLAN tags included.
    pub bytes: Vec<u8>,
}

/// An open interface.
#[derive(Debug)]
pub struct PacketSocket {
    socket: RawSocket,
    buffer: Vec<u8>,
}

impl PacketSocket {
    /// Opens an interface of the namespace that the file at `namespace` names.
    ///
    /// # Errors
    /// When there is no such interface, or no right to open it.
    pub fn open(namespace: &Path, interface: &str) -> Result<Self, LabError> {
        let socket = open(namespace, interface.to_owned()).map_err(|source| {
            let what = format!("cannot open `{interface}` in {}", namespace.display());
            LabError::system(what, source)
        })?;
        Ok(Self { socket, buffer: vec![0; FRAME_MAX] })
    }

    /// Puts a frame on the interface, as if the host sent it.
    ///
    /// # Errors
    /// What the kernel says: the frame is too large, or its two headers contradict each other.
    pub fn send(&self, frame: &RawFrame) -> io::Result<()> {
        let whole = [&frame.vnet[..], &frame.bytes].concat();
        rustix::net::send(&self.socket, &whole, SendFlags::empty())?;
        Ok(())
    }

    /// The next frame that came in, or went out where `is_outgoing`; frames of the other way are
    /// skipped. `None` when nothing passes for as long as `patience`.
    ///
    /// # Errors
    /// When the interface is gone.
    pub fn next(&mut self, is_outgoing: bool, patience: Duration) -> io::Result<Option<RawFrame>> {
        let patience = Timespec {
            tv_sec: patience.as_secs().cast_signed(),
            tv_nsec: patience.subsec_nanos().into(),
        };
        loop {
            let mut files = [PollFd::new(&self.socket, PollFlags::IN)];
            if poll(&mut files, Some(&patience))? == 0 {
                return Ok(None);
            }
            let passed = self.socket.receive(&mut self.buffer)?;
            if passed.is_cut {
                return Err(io::Error::other("a frame larger than any interface has"));
            }
            if passed.is_outgoing == is_outgoing
                && let Some((vnet, bytes)) = self.buffer[..passed.len].split_first_chunk()
            {
                return Ok(Some(restored(*vnet, bytes, passed.vlan)));
            }
        }
    }
}

/// Opens an interface there; it keeps what [`BUFFER_LEN`] bytes hold.
fn open(namespace: &Path, interface: String) -> io::Result<RawSocket> {
    sys::inside(namespace, move || {
        let socket = RawSocket::unbound()?;
        let index = rustix::net::netdevice::name_to_index(&socket, &interface)?;
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER_LEN)?;
        socket.bind(index)?;
        Ok(socket)
    })
}

/// Puts back the VLAN tag, if the kernel took one off: protocol and number with priority.
fn restored(mut vnet: [u8; VNET_LEN], bytes: &[u8], vlan: Option<(u16, u16)>) -> RawFrame {
    const TAG_AT: usize = 12;
    const CSUM_START: std::ops::Range<usize> = 6..8;
    let mut bytes = bytes.to_vec();
    if let Some((protocol, number)) = vlan
        && bytes.len() >= TAG_AT
    {
        let tag = [protocol.to_be_bytes(), number.to_be_bytes()].concat();
        let length = tag.len() as u16;
        bytes.splice(TAG_AT..TAG_AT, tag);
        if vnet[0] & 1 != 0 {
            let start = u16::from_ne_bytes([vnet[CSUM_START.start], vnet[CSUM_START.start + 1]]);
            vnet[CSUM_START].copy_from_slice(&(start + length).to_ne_bytes());
        }
    }
    RawFrame { vnet, bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_put_back_and_offsets_move() {
        let mut vnet = [0; VNET_LEN];
        vnet[0] = 1;
        vnet[6..8].copy_from_slice(&34_u16.to_ne_bytes());
        let frame = restored(vnet, &[9; 14], Some((0x8100, 5)));
        assert_eq!(frame.bytes[10..18], [9, 9, 0x81, 0, 0, 5, 9, 9]);
        assert_eq!(frame.vnet[6..8], 38_u16.to_ne_bytes());
    }
}
