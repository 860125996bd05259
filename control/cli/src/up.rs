//! `ipop up`: the supervisor of a datapath and a controller.
//!
//! It holds no state of the overlay: whichever of the two dies is started again. A controller that
//! comes back finds the links as they were; after the datapath has died its controller is started
//! again too, because all links are gone. Stopping goes the other way round: the controller says
//! goodbye while the links still stand, then the datapath takes the interface away.

mod child;
mod join;

use std::process::{ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::Up;
use crate::failure::Failure;
use crate::instance::RunDir;
use crate::settings::{InstanceSettings, from_file};

use child::{Child, Role};

/// How long a process may take to stop before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(3);
/// First pause before a process that died is started again; doubles while it keeps dying.
const RESTART_FIRST: Duration = Duration::from_millis(100);
/// Longest pause between starts.
const RESTART_LONGEST: Duration = Duration::from_secs(30);
/// A process that ran this long was not dying at start: its pauses begin anew.
const HEALTHY: Duration = Duration::from_secs(20);

/// Runs `ipop up` until it is told to stop.
///
/// # Errors
/// When the instance cannot run at all: configuration, permissions, or a login that a person has
/// to mend.
pub fn run(flags: &Up) -> Result<ExitCode, Failure> {
    crate::preflight::check()?;
    let mut settings = match (&flags.config, &flags.join) {
        (Some(path), _) => from_file(path, flags)?,
        (None, Some(ticket)) => join::settings(ticket, flags)?,
        (None, None) => return Err(Failure::usage("give --config FILE or --join TICKET")),
    };
    let identity = join::ensure_identity(&settings.identity)?;
    settings.controller.account.resource = format!("ipop-{}", &identity.uid_hex()[..16]);
    let run_dir = RunDir::of(&settings.name)?;
    run_dir.claim()?;
    let result = supervise(&settings, &run_dir);
    run_dir.remove();
    result
}

#[tokio::main(flavor = "current_thread")]
async fn supervise(settings: &InstanceSettings, run_dir: &RunDir) -> Result<ExitCode, Failure> {
    let text = serde_json::to_string(&settings.controller).map_err(Failure::failed)?;
    run_dir
        .write(ipop_controller::SETTINGS_FILE, &text)
        .map_err(|error| Failure::failed(format!("cannot write the settings: {error}")))?;
    let mut signals = Signals::new()?;
    tracing::info!("instance `{}` starts (process {})", settings.name, std::process::id());
    let mut pair = Pair::start(settings, run_dir)?;
    let result = loop {
        tokio::select! {
            () = signals.stop() => break Ok(ExitCode::SUCCESS),
            event = pair.died() => {
                if let Err(failure) = pair.restart(event, settings, run_dir, &mut signals).await {
                    break failure;
                }
            }
        }
    };
    pair.stop().await;
    tracing::info!("instance `{}` stopped", settings.name);
    result
}

/// SIGTERM, SIGINT and SIGHUP all mean stop.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> Result<Self, Failure> {
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
        let [a, b, c] = kinds.map(signal);
        let all = || Ok::<_, std::io::Error>([a?, b?, c?]);
        all().map(Self).map_err(|error| Failure::failed(format!("cannot handle signals: {error}")))
    }

    async fn stop(&mut self) {
        let [a, b, c] = &mut self.0;
        tokio::select! {
            _ = a.recv() => {}
            _ = b.recv() => {}
            _ = c.recv() => {}
        }
    }
}

/// The two processes.
struct Pair {
    datapath: Child,
    controller: Child,
    pause: Duration,
}

/// What ended, and how.
struct Death {
    role: Role,
    status: Option<ExitStatus>,
    lived: Duration,
}

/// The whole instance ends, well or not.
type End = Result<ExitCode, Failure>;

impl Pair {
    fn start(settings: &InstanceSettings, run_dir: &RunDir) -> Result<Self, Failure> {
        Ok(Self {
            datapath: Child::start(Role::Datapath, settings, run_dir)?,
            controller: Child::start(Role::Controller, settings, run_dir)?,
            pause: RESTART_FIRST,
        })
    }

    async fn died(&mut self) -> Death {
        tokio::select! {
            (status, lived) = self.datapath.ended() => {
                Death { role: Role::Datapath, status, lived }
            }
            (status, lived) = self.controller.ended() => {
                Death { role: Role::Controller, status, lived }
            }
        }
    }

    /// Starts what died again. The error is the end of the instance.
    async fn restart(
        &mut self,
        death: Death,
        settings: &InstanceSettings,
        run_dir: &RunDir,
        signals: &mut Signals,
    ) -> Result<(), End> {
        if let Some(failure) = final_failure(&death) {
            return Err(Err(failure));
        }
        self.pause = if death.lived > HEALTHY {
            RESTART_FIRST
        } else {
            (self.pause * 2).min(RESTART_LONGEST)
        };
        let how = death.status.map_or("no status".to_owned(), |status| status.to_string());
        tracing::warn!(
            "the {} ended ({how}); it starts again in {} ms",
            death.role,
            self.pause.as_millis()
        );
        if death.role == Role::Datapath {
            self.controller.stop(STOP_PATIENCE).await;
        }
        tokio::select! {
            () = signals.stop() => return Err(Ok(ExitCode::SUCCESS)),
            () = tokio::time::sleep(self.pause) => {}
        }
        let start = |role| Child::start(role, settings, run_dir).map_err(Err);
        if death.role == Role::Datapath {
            self.datapath = start(Role::Datapath)?;
        }
        self.controller = start(Role::Controller)?;
        Ok(())
    }

    async fn stop(&mut self) {
        let begin = Instant::now();
        self.controller.stop(STOP_PATIENCE).await;
        self.datapath.stop(STOP_PATIENCE).await;
        tracing::debug!("stopped in {} ms", begin.elapsed().as_millis());
    }
}

/// An end that no new start mends: its process has said why.
fn final_failure(death: &Death) -> Option<Failure> {
    let what = match (death.role, death.status?.code()?) {
        (Role::Controller, ipop_controller::EXIT_FATAL) => "the login or the settings are refused",
        (Role::Datapath, ipop_engine::EXIT_FATAL) => "the datapath cannot run",
        _ => return None,
    };
    Some(Failure::failed(format!("{what}: see the message above")))
}
