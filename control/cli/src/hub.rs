//! `ipop hub`: the embedded rendezvous.

use std::process::ExitCode;

use ipop_hub::{Hub, HubConfig, HubError};
use tokio::signal::unix::{SignalKind, signal};

use crate::args;
use crate::failure::{Code, Failure};
use crate::processes::keep_secrets;
use crate::settings::state_dir;

/// Runs `ipop hub` until it is told to stop.
///
/// # Errors
/// When it cannot listen, or its state cannot be kept.
pub fn run(flags: &args::Hub) -> Result<ExitCode, Failure> {
    keep_secrets();
    let state = flags.state.clone().unwrap_or_else(|| state_dir(&flags.name));
    if let Some(user) = &flags.add_account {
        let password = Hub::add_account(&state, user).map_err(failure)?;
        println!("account  {user}@{}", flags.domain);
        println!("password {password}");
        return Ok(ExitCode::SUCCESS);
    }
    let config = HubConfig {
        listen: flags.listen,
        stun_port: flags.stun_port,
        domain: flags.domain.clone(),
        ticket_file: flags.ticket_file.clone(),
        advertise: flags.advertise.clone(),
        relay_addresses: flags.relay_address.clone(),
        ..HubConfig::new(state)
    };
    serve(config)
}

#[tokio::main(flavor = "current_thread")]
async fn serve(config: HubConfig) -> Result<ExitCode, Failure> {
    let system = |error| Failure::failed(format!("cannot handle signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(system)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system)?;
    let hub = Hub::bind(config).await.map_err(failure)?;
    println!("join with:\n  ipop up --join {}", hub.ticket());
    hub.run(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
    .await;
    Ok(ExitCode::SUCCESS)
}

fn failure(error: HubError) -> Failure {
    Failure::new(Code::Failed, error)
}
