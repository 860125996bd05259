//! A certificate authority for one test.

use std::path::PathBuf;

use crate::Scratch;

/// A root and a leaf certificate, made by openssl.
#[derive(Debug)]
pub struct Certificates {
    /// The root, PEM.
    pub root: PathBuf,
    /// The leaf, PEM.
    pub leaf: PathBuf,
    /// The leaf's key, PEM.
    pub key: PathBuf,
    /// Leaf and key in one file.
    pub both: PathBuf,
}

impl Certificates {
    /// Makes them for `domain`, its conference service, and the lab's public machine by both its
    /// addresses.
    pub fn make(scratch: &Scratch, domain: &str) -> Self {
        let path = |name: &str| scratch.path(name);
        let text = |name: &str| scratch.path(name).display().to_string();
        openssl(&format!(
            "req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=root -keyout {} -out {}",
            text("root.key"),
            text("root.pem")
        ));
        openssl(&format!(
            "req -newkey rsa:2048 -nodes -subj /CN={domain} -keyout {} -out {}",
            text("leaf.key"),
            text("leaf.csr")
        ));
        let names = format!("DNS:{domain},DNS:conference.{domain},IP:198.18.0.10,IP:198.18.0.11");
        let names = format!("subjectAltName={names}\n");
        scratch.write("leaf.ext", &format!("{names}basicConstraints=CA:FALSE\n"));
        openssl(&format!(
            "x509 -req -days 30 -CAcreateserial -in {} -CA {} -CAkey {} -out {} -extfile {}",
            text("leaf.csr"),
            text("root.pem"),
            text("root.key"),
            text("leaf.pem"),
            text("leaf.ext")
        ));
        let both = format!("{}{}", scratch.read("leaf.pem"), scratch.read("leaf.key"));
        scratch.write("both.pem", &both);
        Self {
            root: path("root.pem"),
            leaf: path("leaf.pem"),
            key: path("leaf.key"),
            both: path("both.pem"),
        }
    }
}

fn openssl(words: &str) {
    ipop_lab::run(&format!("openssl {words}")).expect("openssl (Debian's package openssl)");
}
