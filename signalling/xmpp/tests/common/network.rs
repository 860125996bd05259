//! A network that nothing else is in: the test runs itself once more inside fresh namespaces, so
//! that ports are free, servers cannot be reached from elsewhere, and none outlives its test.

use std::os::unix::process::CommandExt;
use std::process::Command;

const INSIDE: &str = "IPOP_TEST_NETWORK";

/// Runs the body inside; `test` is the full name of the calling test.
pub fn private(test: &str, body: impl Future<Output = ()>) {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(body);
    }
    let mut unshare = Command::new("unshare");
    if std::fs::metadata("/proc/self")
        .is_ok_and(|own| std::os::linux::fs::MetadataExt::st_uid(&own) != 0)
    {
        unshare.args(["--user", "--map-root-user"]);
    }
    let status = unshare
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c"])
        .arg("ip link set lo up && exec \"$@\"")
        .arg("sh")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads", "1", "--include-ignored"])
        .env(INSIDE, "1")
        .arg0("unshare")
        .status()
        .expect("this test needs unshare and ip");
    assert!(status.success(), "{test} failed inside its network");
}
