//! A directory for one test, with certificates in it.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Goes with its value.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        // Process ids repeat from one namespace to the next.
        let mut random = [0; 8];
        aws_lc_rs::rand::fill(&mut random).unwrap();
        let unique = u64::from_ne_bytes(random);
        let path = std::env::temp_dir().join(format!("ipop-{name}-{unique:016x}"));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// A root (`ca.crt`) and a certificate signed by it (`leaf.crt`, `leaf.key`).
    pub fn make_certificates(&self, domains: &[&str]) {
        let names: Vec<_> = domains.iter().map(|domain| format!("DNS:{domain}")).collect();
        let names = names.join(",");
        self.write("leaf.ext", &format!("subjectAltName={names}\nbasicConstraints=CA:FALSE\n"));
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        self.openssl(&format!(
            "req -x509 {key} -keyout ca.key -out ca.crt -days 30 -subj /CN=root"
        ));
        self.openssl(&format!("req {key} -keyout leaf.key -out leaf.csr -subj /CN=leaf"));
        self.openssl(
            "x509 -req -in leaf.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 \
             -extfile leaf.ext -out leaf.crt",
        );
    }

    /// The leaf certificate's SHA-256, as an operator would find it out.
    pub fn leaf_sha256(&self) -> [u8; 32] {
        self.openssl("x509 -in leaf.crt -outform DER -out leaf.der");
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.read("leaf.der"));
        digest.as_ref().try_into().unwrap()
    }

    fn openssl(&self, arguments: &str) {
        let status = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(&self.0)
            .stderr(Stdio::null())
            .status()
            .expect("this test needs openssl");
        assert!(status.success(), "openssl {arguments}");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::env::var_os("IPOP_KEEP_SCRATCH").is_none() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}
