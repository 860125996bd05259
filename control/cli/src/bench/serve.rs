//! The answering end's door: `ipop bench --serve` lets linked members in, one at a time.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::args::Bench;
use crate::failure::{Code, Failure};
use crate::instance::RunDir;
use crate::signals::on_stop;
use crate::snapshot::{Link, Snapshot};

use super::session::Session;
use super::streams::Listener;
use super::words::{Conversation, Reply, Request, Underlay};

/// How often the signals and the interface are looked at.
const STEP: Duration = Duration::from_millis(200);
/// How long a session that ends may take to close its ports.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long one who is turned away may take to say what he wants.
const REFUSAL_PATIENCE: Duration = Duration::from_millis(500);

/// Answers members until it is told to stop.
///
/// # Errors
/// When the port is taken, the instance has no interface, or it has stopped.
pub fn run(instance: &RunDir, flags: &Bench) -> Result<ExitCode, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    on_stop(stop.clone())
        .map_err(|error| Failure::failed(format!("cannot handle signals: {error}")))?;
    let mut door = Door::open(instance, flags)?;
    println!("members may measure through {}, port {}, until Ctrl-C", door.interface, flags.port);
    // A session that still runs ends with the process, and so do its ports.
    while !stop.load(Ordering::Relaxed) {
        if !door.listener.is_attached() {
            door = door.reopened(instance, flags)?;
        }
        match door.listener.accept(STEP) {
            Ok((stream, from)) => door.answer(stream, from),
            // Nobody came, or whoever did has gone again.
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(Failure::failed(format!("port {}: {error}", flags.port))),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
    matches!(error.kind(), WouldBlock | ConnectionAborted | Interrupted)
}

/// Where members knock.
struct Door {
    instance: RunDir,
    interface: String,
    overlay_only: bool,
    listener: Listener,
    guest: Option<Guest>,
}

/// Who measures now.
struct Guest {
    name: String,
    thread: JoinHandle<()>,
}

impl Door {
    fn open(instance: &RunDir, flags: &Bench) -> Result<Self, Failure> {
        let snapshot = Snapshot::of(instance)?;
        let interface = snapshot
            .datapath
            .get("interface")
            .filter(|_| snapshot.datapath_alive)
            .ok_or_else(|| Failure::new(Code::NotRunning, "the datapath is not running"))?;
        let port = flags.port;
        let listener = Listener::open(Some(interface), port).map_err(|error| {
            Failure::failed(format!(
                "cannot listen on port {port} of {interface}: {error}; take another --port, and \
                 tell it to those who measure"
            ))
        })?;
        Ok(Self {
            instance: instance.clone(),
            interface: interface.clone(),
            overlay_only: flags.overlay_only,
            listener,
            guest: None,
        })
    }

    /// The door of the interface that came after this one's: the datapath was started again.
    fn reopened(self, instance: &RunDir, flags: &Bench) -> Result<Self, Failure> {
        if instance.supervisor().is_none() {
            let text = format!("instance `{}` has stopped", instance.name());
            return Err(Failure::new(Code::NotRunning, text));
        }
        Ok(Self::open(instance, flags).unwrap_or_else(|failure| {
            tracing::debug!("not yet: {failure}");
            self
        }))
    }

    fn answer(&mut self, stream: TcpStream, from: SocketAddr) {
        let deadline = Instant::now() + FAREWELL;
        while self.guest.take_if(|guest| guest.thread.is_finished()).is_none()
            && self.guest.is_some()
            && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(10));
        }
        let refusal = match (&self.guest, self.member(from)) {
            (_, None) => format!("{} is no address of a linked member", from.ip()),
            (Some(guest), Some(_)) => format!("{} measures just now, try again later", guest.name),
            (None, Some(link)) => return self.guest = Some(self.begin(stream, from, link)),
        };
        tracing::warn!("{from} is turned away: {refusal}");
        if let Err(error) = refuse(stream, refusal) {
            tracing::debug!("{from}: {error}");
        }
    }

    fn begin(&self, stream: TcpStream, from: SocketAddr, link: Link) -> Guest {
        let below = match link.direct_remote() {
            _ if self.overlay_only => Err("the peer keeps it closed"),
            None => Err("the path is relayed, as the peer sees it"),
            Some(below) => Ok(below.ip()),
        };
        let (instance, interface) = (self.instance.clone(), self.interface.clone());
        let name = link.name.clone();
        println!("{name} measures");
        let thread = std::thread::spawn(move || {
            let below = below.map_err(|why| Underlay::Closed(why.to_owned()));
            let session = Session::begin(stream, instance, &interface, from.ip(), below);
            match session.and_then(Session::answer) {
                Ok(()) => println!("{} is done", link.name),
                Err(error) => println!("{} ended: {error}", link.name),
            }
        });
        Guest { name, thread }
    }

    /// The linked member that has this overlay address. The datapath has dropped what came under an
    /// address that is not its sender's.
    fn member(&self, from: SocketAddr) -> Option<Link> {
        let snapshot = Snapshot::of(&self.instance).ok()?;
        snapshot.up().find(|link| link.addresses.contains(&from.ip())).cloned()
    }
}

fn refuse(stream: TcpStream, why: String) -> io::Result<()> {
    let mut conversation = Conversation::new(stream, REFUSAL_PATIENCE)?;
    // What is not read before the end would take the answer with it.
    conversation.hear::<Request>()?;
    conversation.say(&Reply::Refused(why))
}
