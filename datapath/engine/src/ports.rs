//! A worker's port: on io_uring, or a poll loop where io_uring is forbidden.

use ipop_uring::{
    Doorbell, PollPort, PortConfig, PortFeatures, RingError, TapQueues, UringPort, probe,
};

use crate::process::RunError;
use crate::workers::Sockets;

/// What carries packets between kernel and workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Io {
    /// io_uring where it can be used, else a poll loop.
    #[default]
    Auto,
    /// io_uring or nothing.
    Uring,
    /// A poll loop, which takes more CPU.
    Poll,
}

/// A port of either kind. A worker is of one kind for good, so this is taken apart at its start.
#[expect(clippy::large_enum_variant, reason = "one for each worker, moved once")]
pub(crate) enum AnyPort {
    Ring(UringPort),
    Poll(PollPort),
}

/// An open port.
pub(crate) struct Opened {
    pub(crate) port: AnyPort,
    /// Why it is not on io_uring, where that was to be tried.
    pub(crate) fallback: Option<RingError>,
}

/// Opens a worker's port.
///
/// # Errors
/// [`RunError::Ring`] where io_uring is a must and cannot be used; `System` when the kernel has
/// no memory or files for a poll loop.
pub(crate) fn open(
    io: Io,
    queues: TapQueues,
    sockets: &Sockets,
    config: &PortConfig,
) -> Result<Opened, RunError> {
    let ring =
        |queues| UringPort::open(queues, sockets.v4().cloned(), sockets.v6().cloned(), config);
    let fallback = match io {
        Io::Uring => return Ok(Opened { port: AnyPort::Ring(ring(queues)?), fallback: None }),
        Io::Poll => None,
        Io::Auto => {
            let again = queues.try_clone().map_err(failed("keep the tap queues"))?;
            match probe().and_then(|_| ring(again)) {
                Ok(port) => return Ok(Opened { port: AnyPort::Ring(port), fallback: None }),
                Err(error) => Some(error),
            }
        }
    };
    let port = PollPort::open(queues, sockets.v4().cloned(), sockets.v6().cloned(), config);
    let port = AnyPort::Poll(port.map_err(failed("open the poll loop's port"))?);
    Ok(Opened { port, fallback })
}

/// What is in use and why, for status reports: the worst port's.
pub(crate) fn describe(ports: &[Opened]) -> String {
    let fallen = ports.iter().find(|opened| opened.fallback.is_some());
    fallen.or(ports.first()).map(Opened::describe).unwrap_or_default()
}

impl Opened {
    fn describe(&self) -> String {
        let features = self.port.features();
        match &self.fallback {
            Some(error) => format!("{} ({error}), {}", features.driver, features.sockets()),
            None => features.to_string(),
        }
    }
}

impl AnyPort {
    pub(crate) fn doorbell(&self) -> Doorbell {
        match self {
            AnyPort::Ring(port) => port.doorbell(),
            AnyPort::Poll(port) => port.doorbell(),
        }
    }

    fn features(&self) -> PortFeatures {
        match self {
            AnyPort::Ring(port) => port.probe(),
            AnyPort::Poll(port) => port.probe(),
        }
    }
}

fn failed(what: &'static str) -> impl Fn(std::io::Error) -> RunError {
    move |source| RunError::System { what, source }
}
