//! The controller's loop: words in, the policy, words out.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use ipop_group::{GroupConfig, GroupVpn, Input, Notice, Output};
use ipop_signal::{Action, FatalCause, Happening};
use ipop_steer::{Command, Event};
use ipop_xmpp::{ActionSender, Client, HappeningReceiver, SendError};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::cache::Cache;
use crate::datapath::{Datapath, DatapathError, Heard, segment_path, unix_ms};
use crate::last_servers::LastServers;
use crate::network::{NetworkError, config, look_up};
use crate::servers::{self, Resolved, Servers};
use crate::servers_file::ServersFile;
use crate::settings::Settings;
use crate::status::Status;
use crate::{SETTINGS_FILE, fill_random};

/// Exit code of a controller that a new start would not mend.
pub const EXIT_FATAL: i32 = 10;

const HEARTBEAT: Duration = Duration::from_secs(1);
/// Pause before commands that found the ring full are tried again.
const RING_PAUSE: Duration = Duration::from_millis(5);
/// How long goodbyes may take when the controller stops.
const GOODBYE_PATIENCE: Duration = Duration::from_millis(400);
/// Actions that wait while the signalling client is busy.
const ACTIONS_MAX: usize = 4096;
/// Answers to look-ups that wait for the loop; then the look-ups wait.
const ANSWERS_MAX: usize = 16;

/// Why the controller ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The settings cannot be used: a person has to mend them.
    #[error("{0}")]
    Settings(String),
    /// Signalling has ended for good: a person has to mend it.
    #[error("signalling: {0}")]
    Signalling(String),
    /// The datapath is gone or cannot be attached; a new start may find another.
    #[error("datapath: {0}")]
    Datapath(String),
    /// The system refused something.
    #[error("{0}")]
    System(#[from] std::io::Error),
}

impl RunError {
    /// Whether a new start would end the same way.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Settings(_) | Self::Signalling(_))
    }
}

impl From<DatapathError> for RunError {
    fn from(error: DatapathError) -> Self {
        Self::Datapath(error.to_string())
    }
}

impl From<NetworkError> for RunError {
    fn from(error: NetworkError) -> Self {
        Self::Settings(error.to_string())
    }
}

/// Runs the controller of the instance at `run_dir` until SIGTERM.
///
/// # Errors
/// [`RunError`].
pub fn run(run_dir: &Path) -> Result<(), RunError> {
    let path = run_dir.join(SETTINGS_FILE);
    let text = std::fs::read_to_string(&path)
        .map_err(|error| RunError::Settings(format!("{}: {error}", path.display())))?;
    let settings: Settings = serde_json::from_str(&text)
        .map_err(|error| RunError::Settings(format!("{}: {error}", path.display())))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let mut controller = Controller::start(settings, run_dir).await?;
        let result = controller.turn_until_stopped().await;
        controller.say_goodbye().await;
        result
    });
    // Look-ups under way may take the system's resolver long.
    runtime.shutdown_background();
    result
}

struct Controller {
    by_ticket: bool,
    policy: GroupVpn,
    datapath: Datapath,
    events: mpsc::Receiver<Heard>,
    /// None once the controller says goodbye.
    actions: Option<ActionSender>,
    happenings: HappeningReceiver,
    /// Actions that the client had no room for.
    waiting: VecDeque<Action>,
    servers: Servers,
    /// What look-ups found, which go on beside the loop.
    answers: (mpsc::Sender<servers::Input>, mpsc::Receiver<servers::Input>),
    servers_file: ServersFile,
    cache: Cache,
    last: LastServers,
    status: Status,
}

impl Controller {
    async fn start(settings: Settings, run_dir: &Path) -> Result<Self, RunError> {
        let plan = settings.plan().map_err(|error| RunError::Settings(error.to_string()))?;
        let last = LastServers::of(&settings.servers_memory, &settings.account.jid);
        // The login takes some round trips: it begins before the datapath is there.
        let mut config = config(&settings)?;
        let offer = last.known.offer.clone().or(settings.account.offer.clone());
        config.expected = offer.map(Into::into);
        let mut seed = [0; 16];
        fill_random(&mut seed)?;
        config.seed = Some(seed);
        let (actions, happenings) = Client::start(config);
        let segment = segment_path(run_dir);
        let attached = tokio::task::spawn_blocking(move || Datapath::attach(&segment)).await;
        let (datapath, note, events) = attached.map_err(std::io::Error::other)??;
        let ca_file = settings.turn_ca_file.as_deref().map(text_of).unwrap_or_default();
        let policy = GroupVpn::new(GroupConfig {
            name: settings.name.clone(),
            plan,
            mtu: settings.mtu,
            ca_file,
        });
        let servers_file = ServersFile::of(run_dir);
        let servers = servers_of(&settings, &last, servers_file.servers())?;
        let cache = Cache::at(&settings.memory);
        let (memory, complaint) = cache.read();
        if let Some(text) = complaint {
            tracing::warn!("{text}");
            datapath.errors.observe(unix_ms(), &text);
        }
        let policy = policy.remembering(Instant::now(), unix_ms() / 1000, memory);
        let status = Status {
            row: note,
            signalling: "connecting".to_owned(),
            addresses: String::new(),
            regained: String::new(),
            unresolved: String::new(),
            account: settings.account.jid.clone(),
            room: settings.room.clone(),
        };
        let (waiting, answers) = (VecDeque::new(), mpsc::channel(ANSWERS_MAX));
        let actions = Some(actions);
        let mut controller = Self {
            by_ticket: settings.by_ticket,
            policy,
            datapath,
            events,
            actions,
            happenings,
            waiting,
            servers,
            answers,
            servers_file,
            cache,
            last,
            status,
        };
        controller.refill()?;
        controller.heed_servers();
        controller.obey()?;
        controller.status.show();
        Ok(controller)
    }

    async fn turn_until_stopped(&mut self) -> Result<(), RunError> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        loop {
            let due = self.due();
            tokio::select! {
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                _ = heartbeat.tick() => {
                    self.datapath.beat();
                    self.keep_memory();
                    self.show_unresolved();
                }
                heard = self.events.recv() => self.on_heard(heard)?,
                happening = self.happenings.recv() => self.on_happening(happening)?,
                Some(answer) = self.answers.1.recv() => {
                    self.servers.handle_input(Instant::now(), answer);
                }
                () = sleep_until(due) => {
                    self.policy.handle_timeout(Instant::now());
                    self.servers.handle_timeout(Instant::now());
                }
            }
            self.refill()?;
            self.heed_servers();
            self.obey()?;
        }
    }

    /// Writes what is remembered of servers and peers, if that is another than before.
    fn keep_memory(&mut self) {
        if let Some(stun) = self.servers.offered_stun() {
            self.last.known.stun = stun;
        }
        self.last.keep();
        let Some(memory) = self.policy.memory_to_keep(Instant::now()) else { return };
        if let Some(text) = self.cache.write(memory) {
            tracing::warn!("{text}");
            self.datapath.errors.observe(unix_ms(), &text);
        }
    }

    /// When the policy, or something that waits, is due.
    fn due(&self) -> Option<Instant> {
        let is_behind = self.datapath.is_behind() || !self.waiting.is_empty();
        let again = is_behind.then(|| Instant::now() + RING_PAUSE);
        let machines = [self.policy.poll_timeout(), self.servers.poll_timeout()];
        machines.into_iter().flatten().chain(again).min()
    }

    fn on_heard(&mut self, heard: Option<Heard>) -> Result<(), RunError> {
        match heard {
            Some(Heard::Event(Event::Refused { sequence, reason, text })) => {
                let text = format!("request refused ({reason:?}): {text}");
                tracing::warn!("{text} (number {sequence:#x})");
                self.datapath.errors.observe(unix_ms(), &text);
            }
            Some(Heard::Event(event)) => {
                if event == Event::NetworkMoved {
                    self.servers.handle_input(Instant::now(), servers::Input::NetworkMoved);
                    self.actions.iter().for_each(ActionSender::network_moved);
                }
                self.policy.handle_input(Instant::now(), Input::Event(event));
            }
            Some(Heard::Gone) | None => {
                return Err(RunError::Datapath("the datapath has ended".to_owned()));
            }
        }
        Ok(())
    }

    fn on_happening(&mut self, happening: Option<Happening>) -> Result<(), RunError> {
        let Some(happening) = happening else {
            return Err(RunError::Signalling("the client has ended".to_owned()));
        };
        match &happening {
            Happening::Fatal { cause, text } => {
                let told = if self.by_ticket { of_ticket(*cause) } else { None };
                return Err(RunError::Signalling(told.unwrap_or(text).to_owned()));
            }
            Happening::Online { address } => {
                tracing::info!("in the group as {address}");
                self.last.known.offer = self.happenings.offer().map(Into::into);
                self.status.signalling = format!("online as {address}");
                self.status.show();
            }
            Happening::Offline { reason } => {
                tracing::warn!("signalling is away: {reason}; links stay up");
                self.status.signalling = format!("offline: {reason}");
                self.status.show();
                self.datapath.errors.observe(unix_ms(), &format!("signalling is away: {reason}"));
            }
            Happening::Reached { server, .. } => {
                let input = servers::Input::Reached(*server);
                self.servers.handle_input(Instant::now(), input);
            }
            Happening::IceServers(servers) => {
                let offer = servers::Input::Offered(servers.clone());
                self.servers.handle_input(Instant::now(), offer);
            }
            _ => {}
        }
        self.policy.handle_input(Instant::now(), Input::Happening(happening));
        Ok(())
    }

    /// Does what the servers' machine wants.
    fn heed_servers(&mut self) {
        while let Some(output) = self.servers.poll_output() {
            match output {
                servers::Output::LookUp { name, number } => {
                    let sender = self.answers.0.clone();
                    tokio::spawn(async move {
                        let result = look_up(&name).await;
                        let _ = sender.send(servers::Input::Answer { name, number, result }).await;
                    });
                }
                servers::Output::Use(Resolved { stun, turn }) => {
                    self.policy.handle_input(Instant::now(), Input::Servers { stun, turn });
                }
                servers::Output::Failing { name, text } => {
                    tracing::warn!("STUN/TURN server {name} does not resolve: {text}");
                    self.show_unresolved();
                }
                servers::Output::Mended { name } => {
                    tracing::info!("STUN/TURN server {name} resolves now");
                    self.show_unresolved();
                }
            }
        }
    }

    fn show_unresolved(&mut self) {
        self.status.show_unresolved(Instant::now(), self.servers.unresolved());
        self.servers_file.put_unresolved(self.servers.unresolved());
        self.servers_file.keep();
    }

    fn refill(&mut self) -> Result<(), RunError> {
        let mut bytes = vec![0; self.policy.random_len_wanted()];
        fill_random(&mut bytes)?;
        self.policy.refill(&bytes);
        Ok(())
    }

    /// Does what the policy wants.
    fn obey(&mut self) -> Result<(), RunError> {
        while let Some(output) = self.policy.poll_output() {
            match output {
                Output::Command(command) => {
                    if let Command::SetIceServers { stun, turn, ca_file } = &command {
                        self.servers_file.put_servers(stun, turn, ca_file);
                        self.servers_file.keep();
                    }
                    self.datapath.send(command)?;
                }
                Output::Action(action) if self.waiting.len() < ACTIONS_MAX => {
                    self.waiting.push_back(action);
                }
                Output::Action(_) => tracing::warn!("signalling is too far behind: dropped"),
                Output::Notice(notice) => self.tell(&notice),
            }
        }
        self.datapath.flush()?;
        while let (Some(action), Some(actions)) = (self.waiting.front(), &self.actions) {
            match actions.send(action.clone()) {
                Ok(()) => drop(self.waiting.pop_front()),
                Err(SendError::Full) => break,
                // `Fatal`, which says why, comes by the other channel.
                Err(SendError::Ended) => self.waiting.clear(),
            }
        }
        Ok(())
    }

    fn tell(&mut self, notice: &Notice) {
        match notice {
            Notice::LinkUp { .. } => {
                tracing::info!("{notice}");
                self.show_regained();
            }
            Notice::Addresses(addresses) => {
                tracing::info!("{notice}");
                let texts = addresses.iter().map(|a| format!("{}/{}", a.address, a.prefix));
                self.status.addresses = texts.collect::<Vec<_>>().join(" ");
                self.status.show();
            }
            _ => {
                tracing::warn!("{notice}");
                self.datapath.errors.observe(unix_ms(), &notice.to_string());
                self.show_regained();
            }
        }
    }

    fn show_regained(&mut self) {
        let regained = self.policy.regained().join(" ");
        if regained != self.status.regained {
            self.status.regained = regained;
            self.status.show();
        }
    }

    /// Tells peers and room that this node goes.
    async fn say_goodbye(&mut self) {
        self.keep_memory();
        self.policy.leave();
        if self.obey().is_err() {
            return;
        }
        // Dropping the sender makes the client leave the room and close the stream.
        self.actions = None;
        let closed = async { while self.happenings.recv().await.is_some() {} };
        let _ = tokio::time::timeout(GOODBYE_PATIENCE, closed).await;
    }
}

/// The servers that are known at start: round trips to them go with those of the login.
fn servers_of(
    settings: &Settings,
    last: &LastServers,
    in_use: Resolved,
) -> Result<Servers, RunError> {
    let mut seed = [0; 8];
    fill_random(&mut seed)?;
    // A datapath that is older than this controller goes on with what it has.
    let mut likely = in_use;
    likely.stun.extend(last.known.stun.iter().chain(&settings.likely_stun));
    let seed = u64::from_ne_bytes(seed);
    Ok(Servers::new(Instant::now(), &settings.stun, &settings.turn, likely, seed))
}

/// The path for the datapath, which runs in another folder perhaps.
fn text_of(path: &Path) -> String {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    whole.to_string_lossy().into_owned()
}

/// What a refusal means to somebody who has nothing but a ticket.
fn of_ticket(cause: FatalCause) -> Option<&'static str> {
    match cause {
        FatalCause::Authentication => Some(
            "the hub refuses the password that this ticket makes: the ticket is not, or no longer, \
             good for this hub; get a new one where `ipop hub` runs",
        ),
        FatalCause::Certificate => Some(
            "the hub's certificate is not the one that the ticket names: get a new ticket where \
             `ipop hub` runs; if that says the same, somebody may be in between",
        ),
        _ => None,
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
