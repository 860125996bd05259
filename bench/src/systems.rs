//! The systems under test: one module each, and the list of them.
//!
//! A system is started anew in every round. [`System::prepare`] makes keys and configuration and
//! starts servers that would be there anyway; the [`Launch`] that it returns starts both nodes,
//! and the time to the first packet counts from there.

mod boringtun;
mod easytier;
mod fastd;
mod kernel;
mod nebula;
mod openvpn;
mod ours;
mod tinc;
mod vpncloud;
mod wireguard;
mod wireguard_go;

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;

use crate::error::BenchError;
use crate::install::{Need, find, hint};
use crate::stage::Stage;
use crate::tunnel::Tunnel;

pub(crate) use ours::{Group, Variant};

/// Starts both nodes of a system that is prepared.
pub(crate) type Launch<'a> = Box<dyn FnOnce() -> Result<Tunnel, BenchError> + 'a>;

/// How a system is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// The cable itself.
    #[value(skip)]
    Raw,
    /// The kernel's VXLAN: no encryption.
    #[value(skip)]
    Vxlan,
    /// The kernel's WireGuard.
    #[value(skip)]
    Wireguard,
    /// `ipop` in some variant.
    #[value(skip)]
    Ours,
    /// WireGuard in Go.
    WireguardGo,
    /// WireGuard in Rust.
    Boringtun,
    /// Nebula, AES.
    Nebula,
    /// Tinc 1.0 with its defaults.
    Tinc,
    /// OpenVPN over UDP, AES-256-GCM, without kernel offload.
    Openvpn,
    /// Fastd, salsa2012+umac.
    Fastd,
    /// Fastd's method `null`: no encryption.
    FastdNull,
    /// VpnCloud with the cipher that it chooses.
    Vpncloud,
    /// EasyTier over UDP.
    Easytier,
}

/// A system by name.
#[derive(Clone, Debug)]
pub(crate) struct System {
    /// Its name in flags and reports.
    pub name: String,
    /// How it is driven.
    pub kind: Kind,
    /// Its main program, where the user named one, or it is ours.
    program: Option<PathBuf>,
    /// What differs between our own variants.
    variant: Option<Variant>,
}

impl System {
    /// All that this program knows, in the order of reports; `ours` is the binary `ipop`.
    pub(crate) fn all(ours: &Path) -> Vec<Self> {
        let known = |name: &str, kind| Self::new(name, kind, None);
        let mut systems = vec![known("raw", Kind::Raw), known("vxlan", Kind::Vxlan)];
        systems.extend(ours::variants().into_iter().map(|variant| Self::ours(variant, ours)));
        systems.extend([
            known("wireguard", Kind::Wireguard),
            known("wireguard-go", Kind::WireguardGo),
            known("boringtun", Kind::Boringtun),
            known("nebula", Kind::Nebula),
            known("tinc", Kind::Tinc),
            known("openvpn", Kind::Openvpn),
            known("fastd", Kind::Fastd),
            known("fastd-null", Kind::FastdNull),
            known("vpncloud", Kind::Vpncloud),
            known("easytier", Kind::Easytier),
        ]);
        systems
    }

    /// A system with another main program than the one on the PATH.
    pub(crate) fn new(name: &str, kind: Kind, program: Option<PathBuf>) -> Self {
        Self { name: name.to_owned(), kind, program, variant: None }
    }

    /// A variant of ours.
    pub(crate) fn ours(variant: Variant, program: &Path) -> Self {
        let name = variant.name.clone();
        Self { name, kind: Kind::Ours, program: Some(program.into()), variant: Some(variant) }
    }

    /// How ours runs; none of a rival.
    pub(crate) fn variant(&self) -> Option<&Variant> {
        self.variant.as_ref()
    }

    /// The programs that it takes; the main one first.
    pub(crate) fn needs(&self) -> &'static [Need] {
        match self.kind {
            Kind::Raw | Kind::Vxlan | Kind::Ours => &[],
            Kind::Wireguard => wireguard::NEEDS,
            Kind::WireguardGo => wireguard_go::NEEDS,
            Kind::Boringtun => boringtun::NEEDS,
            Kind::Nebula => nebula::NEEDS,
            Kind::Tinc => tinc::NEEDS,
            Kind::Openvpn => openvpn::NEEDS,
            Kind::Fastd | Kind::FastdNull => fastd::NEEDS,
            Kind::Vpncloud => vpncloud::NEEDS,
            Kind::Easytier => easytier::NEEDS,
        }
    }

    /// Programs to install: all that it takes but the one that the user named.
    pub(crate) fn installable(&self) -> &'static [Need] {
        let needs = self.needs();
        if self.program.is_some() { needs.get(1..).unwrap_or_default() } else { needs }
    }

    /// Whether its traffic can be read on the cable.
    pub(crate) fn is_plain(&self) -> bool {
        match self.kind {
            Kind::Raw | Kind::Vxlan | Kind::FastdNull => true,
            Kind::Ours => self.variant.as_ref().is_some_and(|variant| variant.is_plain),
            _ => false,
        }
    }

    /// Why it cannot run on this machine, if it cannot.
    pub(crate) fn check(&self) -> Result<(), BenchError> {
        if let Some(need) = self.installable().iter().find(|need| find(need.program).is_none()) {
            return Err(BenchError::new(hint(*need)));
        }
        if let Some(path) = self.program.as_deref().filter(|path| !path.is_file()) {
            return Err(BenchError::new(format!("{} is not there", path.display())));
        }
        match self.kind {
            Kind::Vxlan => kernel::probe("vxlan", "type vxlan id 1 dstport 4789"),
            Kind::Wireguard => kernel::probe("WireGuard", "type wireguard"),
            _ => Ok(()),
        }
    }

    /// What it says about its version, on one line.
    pub(crate) fn version(&self) -> String {
        let Ok(program) = self.program() else { return kernel::version() };
        let words = match self.kind {
            Kind::Nebula => "-version",
            _ => "--version",
        };
        let output = Command::new(program).arg(words).output();
        let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let has_digit = |line: &&str| line.contains(|c: char| c.is_ascii_digit());
        let line = text.lines().find(has_digit).unwrap_or("unknown");
        // What it was built with is in brackets.
        line.split(" [").next().unwrap_or(line).trim().to_owned()
    }

    /// Makes all that is there before the clock starts.
    pub(crate) fn prepare<'a>(&self, stage: &'a Stage) -> Result<Launch<'a>, BenchError> {
        stage.empty_folder()?;
        match self.kind {
            Kind::Raw => Ok(kernel::raw()),
            Kind::Vxlan => Ok(kernel::vxlan(stage)),
            Kind::Wireguard => wireguard::in_kernel(stage),
            Kind::Ours => {
                let variant = self.variant.clone().unwrap_or_default();
                ours::prepare(stage, self.program()?, variant)
            }
            Kind::WireguardGo => wireguard_go::prepare(stage, self.program()?),
            Kind::Boringtun => boringtun::prepare(stage, self.program()?),
            Kind::Nebula => nebula::prepare(stage, self.program()?),
            Kind::Tinc => tinc::prepare(stage, self.program()?),
            Kind::Openvpn => openvpn::prepare(stage, self.program()?),
            Kind::Fastd => fastd::prepare(stage, self.program()?, "salsa2012+umac"),
            Kind::FastdNull => fastd::prepare(stage, self.program()?, "null"),
            Kind::Vpncloud => vpncloud::prepare(stage, self.program()?),
            Kind::Easytier => easytier::prepare(stage, self.program()?),
        }
    }

    /// The main program.
    fn program(&self) -> Result<PathBuf, BenchError> {
        if let Some(program) = &self.program {
            return Ok(program.clone());
        }
        // The kernel's WireGuard needs a tool, but has no program.
        if self.kind == Kind::Wireguard {
            return Err(BenchError::new("the kernel's own has no program"));
        }
        match self.needs().first() {
            Some(need) => find(need.program).ok_or_else(|| BenchError::new(hint(*need))),
            None => Err(BenchError::new("the kernel's own has no program")),
        }
    }
}

/// The path of a tool that [`System::check`] found.
fn tool(need: Need) -> Result<PathBuf, BenchError> {
    find(need.program).ok_or_else(|| BenchError::new(hint(need)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_ours_is_among_them() {
        let systems = System::all(Path::new("ipop"));
        let mut names: Vec<_> = systems.iter().map(|system| system.name.clone()).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(names.iter().any(|name| name == "ipop"));
    }

    #[test]
    fn a_named_program_need_not_be_installed_but_its_tools_must() {
        let given = System::new("new", Kind::WireguardGo, Some("/x/wireguard-go".into()));
        let programs: Vec<_> = given.installable().iter().map(|need| need.program).collect();
        assert_eq!(programs, ["wg"]);
        let error = given.check().unwrap_err().to_string();
        assert!(error.contains("/x/wireguard-go") || error.contains("`wg`"), "{error}");
    }
}
