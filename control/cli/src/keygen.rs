//! `ipop keygen`: makes a node's key, or shows whose a key is.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::ExitCode;

use ipop_crypto::Identity;

use crate::args::Keygen;
use crate::config::require_private;
use crate::failure::Failure;
use crate::settings::state_dir;

/// Runs `ipop keygen`.
///
/// # Errors
/// When the file exists already, or cannot be written or read.
pub fn run(flags: &Keygen) -> Result<ExitCode, Failure> {
    if let Some(path) = &flags.show {
        return show(&read(path)?);
    }
    let default = state_dir(&flags.name).join("identity.pem");
    let path = flags.out.as_deref().unwrap_or(&default);
    if path == Path::new("-") {
        print!("{}", generate()?.to_pkcs8_pem().as_str());
        return Ok(ExitCode::SUCCESS);
    }
    let identity = create(path)?;
    println!("key written to {}", path.display());
    show(&identity)
}

/// Reads a key file.
///
/// # Errors
/// Names the file and what is wrong with it.
pub fn read(path: &Path) -> Result<Identity, Failure> {
    require_private(path, "is a private key")?;
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
    Identity::from_pkcs8_pem(&text).map_err(|error| {
        Failure::usage(format!(
            "{}: {error}; `ipop keygen --out FILE` makes a new one",
            path.display()
        ))
    })
}

/// Makes a new key and writes it to `path`, which must not exist.
///
/// # Errors
/// Names the file and the system's reason.
pub fn create(path: &Path) -> Result<Identity, Failure> {
    let identity = generate()?;
    let wrong = |error: std::io::Error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AlreadyExists => "; a key is never overwritten: move it away first",
            _ => "",
        };
        Failure::usage(format!("cannot write the key {}: {error}{hint}", path.display()))
    };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(wrong)?;
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(wrong)?;
    file.write_all(identity.to_pkcs8_pem().as_bytes()).map_err(wrong)?;
    Ok(identity)
}

fn generate() -> Result<Identity, Failure> {
    let mut seed = [0; 32];
    ipop_controller::fill_random(&mut seed)
        .map_err(|error| Failure::failed(format!("the system gives no randomness: {error}")))?;
    Ok(Identity::generate(&seed))
}

fn show(identity: &Identity) -> Result<ExitCode, Failure> {
    println!("fingerprint {}", identity.fingerprint());
    println!("uid         {}", identity.fingerprint().uid_hex());
    Ok(ExitCode::SUCCESS)
}
