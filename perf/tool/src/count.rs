//! Counting instructions under valgrind's callgrind: the same program on the same emulated
//! processor always executes the same, whatever else the machine does and whatever it is.

use std::fs;
use std::hint::black_box;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ipop_crypto::Cipher;
use ipop_stages::{Case, Work, WorkKind};

use crate::callgrind::{self, Instructions};
use crate::error::PerfError;

/// Rounds before counting begins: memory grows and symbols are bound.
const WARM_ROUNDS: usize = 8;
/// Rounds that are counted.
const COUNTED_ROUNDS: usize = 8;
/// Callgrind collects while this function runs.
const TOGGLE: &str = "*ipop_counted_work*";

/// Counts a batch of each piece of work, with a process for each.
pub(crate) struct Counter {
    /// Where profiles go, and stay for `callgrind_annotate`.
    folder: PathBuf,
    program: PathBuf,
    /// What the emulated processor offered, by the last run.
    pub(crate) cpu: String,
}

impl Counter {
    /// # Errors
    /// When the folder for profiles cannot be made.
    pub(crate) fn new() -> Result<Self, PerfError> {
        let program = std::env::current_exe()
            .map_err(|source| PerfError::File { path: "/proc/self/exe".into(), source })?;
        let folder = target_folder(&program).join("callgrind");
        fs::create_dir_all(&folder)
            .map_err(|source| PerfError::File { path: folder.clone(), source })?;
        Ok(Self { folder, program, cpu: String::new() })
    }

    /// Instructions per batch.
    ///
    /// # Errors
    /// When valgrind is missing or fails.
    pub(crate) fn count(&mut self, kind: WorkKind, case: Case) -> Result<Instructions, PerfError> {
        let (kind, case) = (kind.name(), case.name());
        let profile = self.folder.join(format!("{kind} {case}.out").replace(' ', "-"));
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--collect-atstart=no", "--compress-strings=no"])
            .args(["--compress-pos=no", &format!("--toggle-collect={TOGGLE}")])
            .arg(format!("--callgrind-out-file={}", profile.display()))
            .arg(&self.program)
            .args(["work", kind, case])
            // The stack begins behind the environment: the same everywhere.
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .output();
        let stdout = stdout_of("valgrind", "valgrind", output)?;
        self.cpu = stdout.trim().to_owned();
        let text = fs::read_to_string(&profile)
            .map_err(|source| PerfError::File { path: profile.clone(), source })?;
        let sum = callgrind::sum(&text).ok_or_else(|| PerfError::Failed {
            program: "valgrind",
            output: format!("nothing was collected in {}", profile.display()),
        })?;
        let rounds = COUNTED_ROUNDS as f64;
        Ok(Instructions { own: sum.own / rounds, library: sum.library / rounds })
    }
}

/// The folder `target` that a program in `target/release` belongs to.
fn target_folder(program: &Path) -> &Path {
    program.ancestors().nth(2).unwrap_or(Path::new("target"))
}

/// What a program printed, if it ended well.
///
/// # Errors
/// When it is missing or failed.
pub(crate) fn stdout_of(
    program: &'static str,
    package: &'static str,
    output: io::Result<Output>,
) -> Result<String, PerfError> {
    let output = output.map_err(|source| PerfError::Missing { program, package, source })?;
    if !output.status.success() {
        let output = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(PerfError::Failed { program, output });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Does a piece of work; the rounds that count are in a function of their own. Prints what the
/// processor can do.
///
/// # Errors
/// When it cannot be set up.
pub(crate) fn do_work(kind: &str, case: &str) -> Result<(), PerfError> {
    let no_work = |word: &str| PerfError::NoWork(word.to_owned());
    let kind = WorkKind::ALL.into_iter().find(|known| known.name() == kind);
    let kind = kind.ok_or_else(|| no_work("egress, seal, ingress, open, route or ring"))?;
    let known = Case::ALL.into_iter().find(|known| known.name() == case);
    let case = known.ok_or_else(|| no_work(case))?;
    let mut work = ipop_stages::set_up(kind, case, Cipher::Aes128Gcm)?;
    for _ in 0..WARM_ROUNDS {
        work.prepare();
        work.work();
    }
    for _ in 0..COUNTED_ROUNDS {
        work.prepare();
        ipop_counted_work(&mut *work);
    }
    work.verify();
    println!("{}", cpu());
    Ok(())
}

/// Named for [`TOGGLE`]. Not inlined, and not left by a jump.
#[inline(never)]
fn ipop_counted_work(work: &mut dyn Work) {
    work.work();
    black_box(());
}

/// The features by which aws-lc and libc choose their code.
#[cfg(target_arch = "x86_64")]
fn cpu() -> String {
    let features = [
        ("aes", is_x86_feature_detected!("aes")),
        ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
        ("movbe", is_x86_feature_detected!("movbe")),
        ("ermsb", is_x86_feature_detected!("ermsb")),
        ("avx", is_x86_feature_detected!("avx")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("vaes", is_x86_feature_detected!("vaes")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
    ];
    let present = features.into_iter().filter(|(_, is_here)| *is_here);
    ["x86_64"].into_iter().chain(present.map(|(name, _)| name)).collect::<Vec<_>>().join(" ")
}

/// The features by which aws-lc and libc choose their code: not told apart here.
#[cfg(not(target_arch = "x86_64"))]
fn cpu() -> String {
    std::env::consts::ARCH.to_owned()
}
