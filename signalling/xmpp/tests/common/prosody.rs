//! Prosody, as Debian packages it.

use super::scratch::Scratch;
use super::{Server, USERS, await_port, terminate};
use std::process::{Child, Command, Stdio};

pub struct Prosody {
    scratch: Scratch,
    process: Option<Child>,
}

impl Prosody {
    pub fn new() -> Self {
        let scratch = Scratch::new("prosody");
        scratch.make_certificates(&["prosody.test"]);
        for user in USERS {
            let file = format!("data/prosody%2etest/accounts/{user}.dat");
            scratch.write(&file, "return { [\"password\"] = \"secret\"; };\n");
        }
        scratch.write("prosody.cfg.lua", &configuration(&scratch));
        let mut prosody = Self { scratch, process: None };
        prosody.start();
        prosody
    }

    /// Makes it stop where it is.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, name: &str) {
        let pid = self.process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }
}

impl Server for Prosody {
    fn domain(&self) -> &'static str {
        "prosody.test"
    }

    fn start(&mut self) {
        let mut process = Command::new("prosody")
            .arg("--config")
            .arg(self.scratch.path("prosody.cfg.lua"))
            .arg("-F")
            .stdin(Stdio::null())
            .spawn()
            .expect("this test needs Debian's package prosody");
        await_port(&mut process, 5223);
        self.process = Some(process);
    }

    fn stop(&mut self) {
        terminate(&mut self.process.take().unwrap());
    }

    fn scratch(&self) -> &Scratch {
        &self.scratch
    }
}

impl Drop for Prosody {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.stop();
        }
    }
}

fn configuration(scratch: &Scratch) -> String {
    let (data, pid) = (scratch.text("data"), scratch.text("pid"));
    let (log, key) = (scratch.text("log"), scratch.text("leaf.key"));
    let certificate = scratch.text("leaf.crt");
    format!(
        r#"
run_as_root = true
data_path = "{data}"
pidfile = "{pid}"
log = {{ debug = "{log}" }}
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ 5222 }}
c2s_direct_tls_ports = {{ 5223 }}
modules_enabled = {{
  "saslauth", "tls", "disco", "ping", "roster", "posix", "limits", "turn_external"
}}
modules_disabled = {{ "s2s" }}
limits = {{ c2s = {{ rate = "10kb/s" }} }}
authentication = "internal_hashed"
c2s_require_encryption = true
ssl = {{ key = "{key}", certificate = "{certificate}" }}
turn_external_host = "turn.prosody.test"
turn_external_secret = "lab-secret"
turn_external_tls_port = 5349
VirtualHost "prosody.test"
Component "conference.prosody.test" "muc"
"#
    )
}
