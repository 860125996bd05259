//! The client: one task that owns the stream, and keeps coming back.

use crate::backoff::Backoff;
use crate::config::Config;
use crate::conversation::{Clock, Conversation, Input, Output, Settings};
use crate::dial::dial;
use crate::failure::Failure;
use crate::login::{self, Account, Stream};
use crate::offer::Offer;
use crate::stream_error;
use aws_lc_rs::rand;
use ipop_signal::{Action, FatalCause, Happening};
use jid::BareJid;
use minidom::Element;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{sleep_until, timeout};

/// Actions that may wait for the task; more are refused.
const ACTIONS_MAX: usize = 1024;
/// Happenings that may wait for the controller; then the task waits too.
const HAPPENINGS_MAX: usize = 1024;
/// For a connection, for its encryption, for a login, and for a resource.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(30);
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_LONGEST: Duration = Duration::from_secs(60);
/// A stay in the room of this length is a good one, after which the next pause is short again.
const STABLE: Duration = Duration::from_secs(10);
/// How long a stanza waits for another that it can travel with.
const ALONG_PATIENCE: Duration = Duration::from_millis(20);
/// For the server to say goodbye too.
const CLOSE_PATIENCE: Duration = Duration::from_millis(500);

/// The client of one account in one room.
pub struct Client;

/// Where a controller says its [`Action`]s. When the last one is dropped the client leaves the room
/// and ends.
#[derive(Clone, Debug)]
pub struct ActionSender {
    actions: mpsc::Sender<Action>,
    moves: Arc<Notify>,
}

/// Where a controller hears [`Happening`]s.
#[derive(Debug)]
pub struct HappeningReceiver {
    happenings: mpsc::Receiver<Happening>,
    offer: watch::Receiver<Option<Offer>>,
}

/// An action was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Too many wait; say it again later.
    #[error("the signalling client has too much to do")]
    Full,
    /// The client has ended, after [`Happening::Fatal`] or because nobody listened.
    #[error("the signalling client has ended")]
    Ended,
}

impl Client {
    /// Starts the client's task on the current Tokio runtime, which must have its time and I/O
    /// drivers enabled; a current-thread runtime will do.
    ///
    /// It connects at once, enters the room with the first [`Action::Announce`], and comes back
    /// after each interruption until it is stopped (see [`ActionSender`]) or a
    /// [`Happening::Fatal`] ends it. A configuration that cannot work is such an end.
    pub fn start(config: Config) -> (ActionSender, HappeningReceiver) {
        // The generator's first seed takes longer than all else here: it is there when TLS asks.
        std::thread::spawn(|| rand::fill(&mut [0]));
        let (action_sender, actions) = mpsc::channel(ACTIONS_MAX);
        let (happenings, happening_receiver) = mpsc::channel(HAPPENINGS_MAX);
        let (offers, offer) = watch::channel(None);
        let moves = Arc::<Notify>::default();
        let heard = moves.clone();
        tokio::spawn(async move {
            let ended = run(config, actions, &happenings, offers, heard).await;
            if let Err(End::Failed(Failure::Fatal { cause, text })) = ended {
                let _ = happenings.send(Happening::Fatal { cause, text }).await;
            }
        });
        let receiver = HappeningReceiver { happenings: happening_receiver, offer };
        (ActionSender { actions: action_sender, moves }, receiver)
    }
}

impl ActionSender {
    /// Hands an action to the client without waiting.
    ///
    /// # Errors
    /// [`SendError`], when the client is too far behind or has ended.
    pub fn send(&self, action: Action) -> Result<(), SendError> {
        self.actions.try_send(action).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SendError::Full,
            mpsc::error::TrySendError::Closed(_) => SendError::Ended,
        })
    }

    /// This machine has other addresses or routes than before: a connection that stands is put to
    /// the test, and without one the next attempt comes at once.
    pub fn network_moved(&self) {
        self.moves.notify_one();
    }
}

impl HappeningReceiver {
    /// The next happening; `None` once the client has ended.
    pub async fn recv(&mut self) -> Option<Happening> {
        self.happenings.recv().await
    }

    /// The next happening, if there is one already.
    pub fn try_recv(&mut self) -> Option<Happening> {
        self.happenings.try_recv().ok()
    }

    /// What the server offered at the last login that succeeded, to be expected the next time.
    pub fn offer(&self) -> Option<Offer> {
        self.offer.borrow().clone()
    }
}

/// Why the task, or a stream of it, ends.
enum End {
    /// The controller wants it, or is gone.
    Stopped,
    Failed(Failure),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

struct Task<'a> {
    config: &'a Config,
    account: Account,
    conversation: Conversation,
    actions: mpsc::Receiver<Action>,
    /// Notified when the network has moved.
    moves: Arc<Notify>,
    happenings: &'a mpsc::Sender<Happening>,
    backoff: Backoff,
    /// What the server will offer, as far as anybody knows, and who is told.
    expected: Option<Offer>,
    offers: watch::Sender<Option<Offer>>,
    /// Since when we are in the room, on this stream.
    settled: Option<Instant>,
    /// Where the last connection led that did not lead into the room.
    reached: Option<SocketAddr>,
    /// When what is queued has waited long enough.
    flush_at: Option<Instant>,
}

async fn run(
    config: Config,
    actions: mpsc::Receiver<Action>,
    happenings: &mpsc::Sender<Happening>,
    offers: watch::Sender<Option<Offer>>,
    moves: Arc<Notify>,
) -> Result<(), End> {
    let settings = settings(&config)?;
    let task = Task {
        account: account(&config)?,
        backoff: Backoff::hopeful(RETRY_FIRST, RETRY_LONGEST, settings.seed),
        conversation: Conversation::new(settings, Instant::now()),
        actions,
        moves,
        happenings,
        expected: Some(config.expected.clone().unwrap_or_else(Offer::usual)),
        offers,
        settled: None,
        reached: None,
        flush_at: None,
        config: &config,
    };
    task.run().await
}

impl Task<'_> {
    async fn run(mut self) -> Result<(), End> {
        loop {
            let reason = match self.attempt().await {
                Ok(never) => match never {},
                Err(End::Failed(Failure::Retry(reason))) => reason,
                Err(end) => return Err(end),
            };
            tracing::info!(%reason, "signalling is away");
            self.input(Input::Disconnected { reason });
            self.tell(None).await?;
            if let Some(since) = self.settled.take() {
                self.reached = None;
                if since.elapsed() >= STABLE {
                    self.backoff.reset();
                }
            }
            let pause = self.backoff.pause(Instant::now());
            let moves = self.moves.clone();
            if self.meanwhile(timeout(pause, moves.notified())).await?.is_ok() {
                self.backoff.reset();
            }
        }
    }

    /// One stream, from look-up to its end.
    async fn attempt(&mut self) -> Result<std::convert::Infallible, End> {
        let (config, account) = (self.config, self.account.clone());
        let late = |_| Failure::retry("the server takes too long to log us in");
        let mut reached = self.reached;
        let dialled = timeout(LOGIN_TIMEOUT, dial(config, &account.ascii_domain, &mut reached));
        let dialled = self.meanwhile(dialled).await;
        self.reached = reached;
        let dialled = dialled?.map_err(late)??;
        if let Some(server) = reached {
            let rtt = dialled.rtt;
            tracing::debug!(%server, ?rtt, "connected");
            let happening = Happening::Reached { server: server.ip().to_canonical(), rtt };
            self.happenings.send(happening).await.map_err(|_| End::Stopped)?;
        }
        let encrypt = timeout(LOGIN_TIMEOUT, login::encrypt(dialled, config, &account));
        let stream = self.meanwhile(encrypt).await?.map_err(late)??;
        // A login that fails may have failed by what was expected.
        let expected = self.expected.take();
        let login = login::log_in(stream, config, &account, expected.as_ref());
        let login = timeout(LOGIN_TIMEOUT, login);
        let mut entry = self.meanwhile(login).await?.map_err(late)??;
        self.flush_at = None;
        entry.queue_binding(&account);
        self.input(Input::Connected);
        self.tell(Some(&mut entry.stream)).await?;
        timeout(LOGIN_TIMEOUT, entry.bound(&account)).await.map_err(late)??;
        self.expected = Some(entry.offer.clone());
        self.offers.send_replace(Some(entry.offer));
        self.converse(entry.stream).await
    }

    /// Stanzas, actions and timers, until something ends it.
    async fn converse(&mut self, mut stream: Stream) -> Result<std::convert::Infallible, End> {
        let moves = self.moves.clone();
        loop {
            let timer = self.conversation.poll_timeout().map(|(at, _)| at);
            let input = tokio::select! {
                element = stream.next_element() => {
                    let element = element?;
                    if let Some(failure) = stream_error::of(&element) {
                        return Err(failure.into());
                    }
                    Some(Input::Stanza(element))
                }
                action = self.actions.recv() => match action {
                    Some(action) => Some(Input::Action(action)),
                    None => return Err(self.farewell(stream).await),
                },
                () = self.happenings.closed() => return Err(self.farewell(stream).await),
                () = moves.notified() => {
                    if stream.io().get_ref().0.tcp().local_addr().is_ok_and(is_gone) {
                        return Err(Failure::retry("this machine's address has changed").into());
                    }
                    Some(Input::NetworkMoved)
                }
                () = until(self.flush_at) => {
                    self.flush_at = None;
                    stream.flush().await?;
                    continue;
                }
                () = until(timer) => None,
            };
            match input {
                Some(input) => self.input(input),
                None => self.conversation.handle_timeout(Instant::now()),
            }
            self.tell(Some(&mut stream)).await?;
        }
    }

    /// Waits for something else while there is no stream.
    async fn meanwhile<F: Future>(&mut self, future: F) -> Result<F::Output, End> {
        let mut future = pin!(future);
        loop {
            let timer = self.conversation.poll_timeout().map(|(at, _)| at);
            tokio::select! {
                output = &mut future => return Ok(output),
                action = self.actions.recv() => match action {
                    Some(action) => self.input(Input::Action(action)),
                    None => return Err(End::Stopped),
                },
                () = self.happenings.closed() => return Err(End::Stopped),
                () = until(timer) => self.conversation.handle_timeout(Instant::now()),
            }
            self.tell(None).await?;
        }
    }

    fn input(&mut self, input: Input) {
        self.conversation.handle_input(Instant::now(), input);
    }

    /// Carries out what the conversation wants.
    async fn tell(&mut self, mut stream: Option<&mut Stream>) -> Result<(), End> {
        let mut end = None;
        let mut is_urgent = false;
        while let Some(output) = self.conversation.poll_output() {
            match output {
                Output::Send(element) => {
                    is_urgent = true;
                    queue(&mut stream, &element);
                }
                Output::SendAlong(element) => {
                    self.flush_at.get_or_insert_with(|| Instant::now() + ALONG_PATIENCE);
                    queue(&mut stream, &element);
                }
                Output::Happen(happening) => {
                    self.happenings.send(happening).await.map_err(|_| End::Stopped)?;
                }
                Output::Settled => self.settled = Some(Instant::now()),
                Output::Dead => end = Some(Failure::retry("the server has fallen silent")),
                Output::Fatal { cause, text } => end = Some(Failure::Fatal { cause, text }),
            }
        }
        if let Some(failure) = end {
            return Err(failure.into());
        }
        if let Some(stream) = stream.filter(|_| is_urgent || self.flush_at.is_none()) {
            self.flush_at = None;
            stream.flush().await?;
        }
        Ok(())
    }

    async fn farewell(&mut self, mut stream: Stream) -> End {
        self.conversation.farewell(Instant::now());
        while let Some(output) = self.conversation.poll_output() {
            if let Output::Send(element) | Output::SendAlong(element) = output {
                stream.queue(&element);
            }
        }
        stream.close(CLOSE_PATIENCE).await;
        End::Stopped
    }
}

/// Without a stream it is dropped.
fn queue(stream: &mut Option<&mut Stream>, element: &Element) {
    if let Some(stream) = stream {
        stream.queue(element);
    }
}

/// Whether this machine does not have the address any more.
fn is_gone(address: SocketAddr) -> bool {
    let mut any_port = address;
    any_port.set_port(0);
    let bound = std::net::UdpSocket::bind(any_port);
    bound.is_err_and(|error| error.kind() == std::io::ErrorKind::AddrNotAvailable)
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn settings(config: &Config) -> Result<Settings, Failure> {
    let account = bare(&config.account, "account")?;
    let room = bare(&config.room, "room")?;
    let random = u128::from_ne_bytes(config.seed.map_or_else(drawn, Ok)?);
    let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Ok(Settings {
        domain: account.domain().to_string(),
        account: account.to_string(),
        room,
        room_password: config.room_password.clone(),
        instance: format!("{:016x}", random as u64),
        clock: Clock { at: Instant::now(), unix_s },
        seed: (random >> 64) as u64,
    })
}

fn drawn() -> Result<[u8; 16], Failure> {
    let mut random = [0; 16];
    rand::fill(&mut random).map_err(|_| Failure::retry("the system has no random numbers"))?;
    Ok(random)
}

fn account(config: &Config) -> Result<Account, Failure> {
    let jid = bare(&config.account, "account")?;
    let domain = jid.domain().to_string();
    let ascii_domain = idna::domain_to_ascii(&domain).unwrap_or_else(|_| domain.clone());
    let user = jid.node().map(ToString::to_string).unwrap_or_default();
    Ok(Account { user, domain, ascii_domain, resource: config.resource.clone() })
}

fn bare(text: &str, what: &str) -> Result<BareJid, Failure> {
    let shape = if what == "room" { "room@conference.domain" } else { "user@domain" };
    let jid = BareJid::new(text).ok().filter(|jid| jid.node().is_some());
    jid.ok_or_else(|| {
        let text = format!("{text:?} is no {what}: write {shape} in the configuration");
        Failure::fatal(FatalCause::Configuration, text)
    })
}
