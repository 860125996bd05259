//! Fastd in tap mode, encrypted or not.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::Launch;
use crate::error::BenchError;
use crate::install::Need;
use crate::process::Process;
use crate::stage::{OUTER, Stage, socket};
use crate::tunnel::Tunnel;

pub(super) const NEEDS: &[Need] = &[Need::debian("fastd", "fastd")];

const PORT: u16 = 10000;

pub(super) fn prepare<'a>(
    stage: &'a Stage,
    program: PathBuf,
    method: &str,
) -> Result<Launch<'a>, BenchError> {
    let keys = [make_key(stage, &program)?, make_key(stage, &program)?];
    for end in [0, 1] {
        let text = configuration(stage, end, method, &keys[end].0, &keys[1 - end].1);
        fs::write(stage.folder().join(format!("{end}.conf")), text)?;
    }
    Ok(Box::new(move || {
        let mut tunnel = Tunnel::new();
        for end in [0, 1] {
            let mut command = stage.ends[end].command(&program);
            command.arg("--config").arg(stage.folder().join(format!("{end}.conf")));
            tunnel.add(end, Process::start(command, stage.folder(), &format!("node-{end}"))?);
        }
        Ok(tunnel)
    }))
}

fn configuration(stage: &Stage, end: usize, method: &str, secret: &str, peer: &str) -> String {
    let (device, mtu) = (stage.interface(end), stage.underlay.inner_mtu());
    let (bind, address) = (socket(OUTER[end], PORT), stage.inner(end));
    // Only one end calls: handshakes of two that start at once get into each other's way, and the
    // next try is many seconds later.
    let remote = match end {
        1 => format!("remote {} port {PORT};", OUTER[0]),
        _ => String::new(),
    };
    format!(
        "log level warn;\nmode tap;\ninterface \"{device}\";\nmtu {mtu};\nbind {bind};\n\
         method \"{method}\";\nsecret \"{secret}\";\n\
         on up \"ip address add {address} dev {device}; ip link set {device} up\";\n\
         peer \"other\" {{ key \"{peer}\"; {remote} }}\n"
    )
}

/// Secret and public key.
fn make_key(stage: &Stage, program: &PathBuf) -> Result<(String, String), BenchError> {
    let mut command = Command::new(program);
    command.arg("--generate-key");
    let text = stage.run(command, "fastd-key", Duration::from_secs(20))?;
    parse_key(&text).ok_or_else(|| BenchError::new(format!("fastd makes no key: {text}")))
}

fn parse_key(text: &str) -> Option<(String, String)> {
    let of = |name| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    Some((of("Secret:")?.to_owned(), of("Public:")?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_pair_is_read() {
        let pair = parse_key("Secret: ab\nPublic: cd\n");
        assert_eq!(pair, Some(("ab".to_owned(), "cd".to_owned())));
        assert_eq!(parse_key("nothing"), None);
    }
}
