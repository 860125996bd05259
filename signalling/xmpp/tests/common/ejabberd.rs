//! ejabberd, as Debian packages it. Its control script insists on a user of its own, so its
//! Erlang application is started directly.

use super::scratch::Scratch;
use super::{Server, USERS, await_port, terminate};
use std::process::{Child, Command, Stdio};

pub struct Ejabberd {
    scratch: Scratch,
    process: Option<Child>,
}

impl Ejabberd {
    pub fn new() -> Self {
        let scratch = Scratch::new("ejabberd");
        scratch.make_certificates(&["ejabberd.test"]);
        let both = [scratch.read("leaf.crt"), scratch.read("leaf.key")].concat();
        scratch.write("leaf.pem", &String::from_utf8(both).unwrap());
        scratch.write("spool/keep", "");
        scratch.write("ejabberd.yml", &configuration(&scratch));
        let mut ejabberd = Self { scratch, process: None };
        ejabberd.start();
        ejabberd
    }
}

impl Server for Ejabberd {
    fn domain(&self) -> &'static str {
        "ejabberd.test"
    }

    fn start(&mut self) {
        let register = USERS.map(|user| {
            format!(
                "ejabberd_auth:try_register(<<\"{user}\">>, <<\"ejabberd.test\">>, <<\"secret\">>)"
            )
        });
        let ready = self.scratch.path("ready");
        let _ = std::fs::remove_file(&ready);
        let script = format!(
            "application:ensure_all_started(ejabberd), {}, file:write_file(\"{}\", <<>>).",
            register.join(", "),
            ready.display()
        );
        let mut process = Command::new("erl")
            .args(["-noinput", "-mnesia", "dir"])
            .arg(format!("\"{}\"", self.scratch.text("spool")))
            .args(["-s", "ejabberd", "-eval"])
            .arg(script)
            .env("ERL_LIBS", "/usr/lib/x86_64-linux-gnu")
            .env("HOME", self.scratch.path(""))
            .env("EJABBERD_CONFIG_PATH", self.scratch.path("ejabberd.yml"))
            .env("EJABBERD_LOG_PATH", self.scratch.path("log"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("this test needs Debian's package ejabberd");
        await_port(&mut process, 5223);
        while !ready.exists() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        self.process = Some(process);
    }

    fn stop(&mut self) {
        terminate(&mut self.process.take().unwrap());
    }

    fn scratch(&self) -> &Scratch {
        &self.scratch
    }
}

impl Drop for Ejabberd {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.stop();
        }
    }
}

fn configuration(scratch: &Scratch) -> String {
    let certificate = scratch.text("leaf.pem");
    format!(
        r#"
hosts: ["ejabberd.test"]
loglevel: info
acl: {{ local: {{ user_regexp: "" }} }}
access_rules: {{ local: {{ allow: local }} }}
certfiles: ["{certificate}"]
ca_file: "{ca}"
acme: {{ auto: false }}
auth_method: [internal]
auth_password_format: scram
auth_scram_hash: sha256
listen:
  - {{ port: 5222, ip: "127.0.0.1", module: ejabberd_c2s, starttls_required: true,
       max_stanza_size: 262144, shaper: normal }}
  - {{ port: 5223, ip: "127.0.0.1", module: ejabberd_c2s, tls: true,
       max_stanza_size: 262144, shaper: normal }}
shaper:
  normal: {{ rate: 3000, burst_size: 20000 }}
modules:
  mod_disco: {{}}
  mod_muc: {{}}
  mod_ping: {{}}
  mod_roster: {{}}
  mod_stun_disco:
    secret: "lab-secret"
    services:
      - {{ host: 203.0.113.3, type: stun, transport: udp }}
      - {{ host: "2001:db8::3", type: turn, transport: udp, restricted: true }}
      - {{ host: 203.0.113.3, type: turn, transport: udp, restricted: true }}
"#,
        ca = scratch.text("ca.crt"),
    )
}
