//! The sockets that a port on io_uring is given while it runs.
//!
//! They are not registered files: a send or receive looks its file up, which is a few dozen
//! nanoseconds for up to 64 datagrams, and none of the port's own sockets is disturbed. Whoever is
//! detached stays here until the kernel has taken all that was queued with its file, and its
//! receive has ended: neither a file number nor a place may come to mean another socket before.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use io_uring::types::Fd;

use crate::port::ATTACHED_MAX;
use crate::udp::{Family, UdpSocket};

/// One socket.
pub(crate) struct Guest {
    pub(crate) socket: Arc<UdpSocket>,
    /// A receive is queued or running.
    pub(crate) is_armed: bool,
    /// Failed receives in a row.
    pub(crate) failures: u32,
    pub(crate) leaving: Leaving,
}

/// How far a guest is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaving {
    No,
    Asked,
    /// Its receive is being cancelled.
    Cancelled,
}

impl Guest {
    pub(crate) fn fd(&self) -> Fd {
        Fd(self.socket.as_fd().as_raw_fd())
    }
}

/// All of them, at places that receives are known by.
#[derive(Default)]
pub(crate) struct Attached {
    places: [Option<Guest>; ATTACHED_MAX],
    count: usize,
}

impl Attached {
    pub(crate) fn add(&mut self, socket: Arc<UdpSocket>) -> bool {
        let Some(place) = self.places.iter_mut().find(|place| place.is_none()) else {
            return false;
        };
        *place = Some(Guest { socket, is_armed: false, failures: 0, leaving: Leaving::No });
        self.count += 1;
        true
    }

    /// Whether there is none, as there mostly is.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn get_mut(&mut self, place: u16) -> Option<&mut Guest> {
        self.places.get_mut(usize::from(place))?.as_mut()
    }

    /// The socket to send from what names this port.
    #[inline]
    pub(crate) fn find(&self, port: u16, family: Family) -> Option<&Guest> {
        if self.is_empty() {
            return None;
        }
        let fits = |guest: &&Guest| {
            guest.socket.port() == port
                && guest.socket.family() == family
                && guest.leaving == Leaving::No
        };
        self.places.iter().flatten().find(fits)
    }

    /// Places and guests.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u16, &mut Guest)> {
        let places = self.places.iter_mut().enumerate();
        places.filter_map(|(place, guest)| Some((place as u16, guest.as_mut()?)))
    }

    pub(crate) fn ask_to_leave(&mut self, port: u16) {
        for (_, guest) in self.iter_mut().filter(|(_, guest)| guest.socket.port() == port) {
            if guest.leaving == Leaving::No {
                guest.leaving = Leaving::Asked;
            }
        }
    }

    /// Drops those that leave and have no receive. All that was queued must have been submitted.
    pub(crate) fn let_go(&mut self) {
        let is_gone = |guest: &Guest| guest.leaving != Leaving::No && !guest.is_armed;
        for place in &mut self.places {
            if place.as_ref().is_some_and(is_gone) {
                *place = None;
                self.count -= 1;
            }
        }
    }
}
