//! One of the two processes.

use std::fmt;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;

use crate::failure::Failure;
use crate::instance::RunDir;
use crate::settings::InstanceSettings;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The packet side.
    Datapath,
    /// The control side.
    Controller,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Datapath => "datapath",
            Self::Controller => "controller",
        })
    }
}

/// A running process; killed when dropped.
#[derive(Debug)]
pub(super) struct Child {
    process: tokio::process::Child,
    started: Instant,
}

impl Child {
    /// Starts this very program in the other role.
    pub(super) fn start(
        role: Role,
        settings: &InstanceSettings,
        run_dir: &RunDir,
    ) -> Result<Self, Failure> {
        let mut command = Command::new("/proc/self/exe");
        command.arg(role.to_string()).arg("--run-dir").arg(run_dir.path());
        if role == Role::Datapath {
            command
                .args(["--name", &settings.name, "--interface", &settings.interface])
                .arg("--identity")
                .arg(&settings.identity)
                .args(["--port", &settings.port.to_string()])
                .args(["--mtu", &settings.controller.mtu.to_string()])
                .args(cipher_args(settings))
                .args(settings.keys.to_args())
                .args(["--workers", &settings.workers.to_string()])
                .args(["--queues", &settings.queues.to_string()])
                .args(["--busy-poll", &settings.busy_poll.to_string()])
                .args(["--io", settings.io.word()]);
            if !settings.maps_port {
                command.arg("--no-port-mapping");
            }
            if settings.pins {
                command.arg("--pin");
            }
            if settings.real_time {
                command.arg("--realtime");
            }
        }
        // Away from the terminal's process group: Ctrl-C is for the supervisor, which stops the
        // two in their order.
        command.process_group(0).stdin(Stdio::null()).kill_on_drop(true);
        let process = command
            .spawn()
            .map_err(|error| Failure::failed(format!("cannot start the {role}: {error}")))?;
        std::fs::write(
            run_dir.path().join(format!("{role}.pid")),
            format!("{}\n", process.id().unwrap_or_default()),
        )
        .map_err(|error| Failure::failed(format!("cannot write the {role}'s pid: {error}")))?;
        Ok(Self { process, started: Instant::now() })
    }

    /// Waits for its end: exit code (none after a signal) and how long it lived.
    pub(super) async fn ended(&mut self) -> (Option<ExitStatus>, Duration) {
        let status = self.process.wait().await;
        (status.ok(), self.started.elapsed())
    }

    /// Asks it to stop, and kills it when it does not within `patience`.
    pub(super) async fn stop(&mut self, patience: Duration) {
        let Some(pid) = self.process.id().and_then(|id| Pid::from_raw(id.cast_signed())) else {
            return;
        };
        let _ = kill_process(pid, Signal::TERM);
        if tokio::time::timeout(patience, self.process.wait()).await.is_err() {
            tracing::warn!("process {} did not stop in time: killed", pid.as_raw_nonzero());
            let _ = self.process.kill().await;
        }
    }
}

/// The group's ciphers as flags of the datapath.
fn cipher_args(settings: &InstanceSettings) -> Vec<String> {
    settings.ciphers.iter().map(|cipher| format!("--ciphers={}", cipher.name())).collect()
}
