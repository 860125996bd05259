//! The command line.

use std::path::PathBuf;

use clap::builder::RangedI64ValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};

use crate::figures::Measurement;
use crate::systems::{Kind, Variant};
use crate::traffic;
use crate::underlay::Underlay;

/// Measures ipop and its rivals, side by side on this machine.
#[derive(Debug, Parser)]
#[command(name = "ipop-bench", args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub suite: Suite,
}

/// What to do instead of measuring.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Join results of several runs (report.json) into one report.
    Report(Report),
    #[command(flatten)]
    Traffic(traffic::Tool),
}

/// What to measure, and how.
#[derive(Args, Debug)]
pub(crate) struct Suite {
    /// Rounds; in each, every system is started once and measured. Medians are shown.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = at_least_one())]
    pub runs: u32,
    /// Length of each measurement.
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = at_least_one())]
    pub seconds: u32,
    /// Only these systems, by name. All that are known by default.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub systems: Vec<String>,
    /// Only these underlays.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_enum)]
    pub underlays: Vec<Underlay>,
    /// Only these measurements.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_enum)]
    pub figures: Vec<Measurement>,
    /// Another program to measure, or another build of a known one (its name then replaces that
    /// one): how to drive it and where it is. May be given more than once.
    #[arg(long, value_name = "NAME=KIND:PATH", value_parser = rival)]
    pub rival: Vec<Rival>,
    /// Another variant of ours, with further words for `ipop up`. May be given more than once.
    #[arg(long, value_name = "NAME=WORDS", value_parser = variant)]
    pub ours: Vec<Variant>,
    /// The binary `ipop`. By default it is built first, in the profile of this program.
    #[arg(long, value_name = "PATH")]
    pub ipop: Option<PathBuf>,
    /// Install missing tools and rivals: Debian packages by apt-get, crates by cargo into a folder
    /// of their own.
    #[arg(long)]
    pub install_missing: bool,
    /// Where report.json, report.md and report.html go. Default: `bench` in cargo's target folder.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// `ipop-bench report`.
#[derive(Args, Debug)]
pub(crate) struct Report {
    /// Files that earlier runs wrote.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Where report.json, report.md and report.html go.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// A program that the user brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rival {
    pub name: String,
    pub kind: Kind,
    pub program: PathBuf,
}

fn at_least_one() -> RangedI64ValueParser<u32> {
    value_parser!(u32).range(1..=3600)
}

fn rival(text: &str) -> Result<Rival, String> {
    let parts = text.split_once('=').and_then(|(name, rest)| Some((name, rest.split_once(':')?)));
    let Some((name, (kind, program))) = parts.filter(|(name, _)| !name.is_empty()) else {
        return Err("write NAME=KIND:PATH, such as wireguard-go-new=wireguard-go:/opt/wg-go".into());
    };
    let kind = Kind::from_str(kind, false).map_err(|_| {
        let kinds: Vec<_> = Kind::value_variants()
            .iter()
            .filter_map(|kind| Some(kind.to_possible_value()?.get_name().to_owned()))
            .collect();
        format!("nobody knows how to drive `{kind}`; KIND is one of {}", kinds.join(", "))
    })?;
    Ok(Rival { name: name.into(), kind, program: program.into() })
}

fn variant(text: &str) -> Result<Variant, String> {
    let Some((name, words)) = text.split_once('=').filter(|(name, _)| !name.is_empty()) else {
        return Err("write NAME=WORDS, such as \"ipop-1280=--mtu 1280\"".into());
    };
    Ok(Variant::new(name, words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_rival_has_a_name_a_kind_and_a_path() {
        let parsed = rival("new=wireguard-go:/opt/a:b").unwrap();
        assert_eq!((parsed.name.as_str(), parsed.kind), ("new", Kind::WireguardGo));
        assert_eq!(parsed.program, PathBuf::from("/opt/a:b"));
        assert!(rival("new").unwrap_err().contains("NAME=KIND:PATH"));
        assert!(rival("=nebula:/x").is_err());
        let error = rival("new=raw:/x").unwrap_err();
        assert!(error.contains("`raw`") && error.contains("nebula"), "{error}");
    }

    #[test]
    fn a_variant_has_words_for_ipop_up() {
        let parsed = variant("small=--mtu 1280").unwrap();
        assert_eq!(parsed.up, ["--mtu", "1280"]);
        assert!(variant("small").is_err());
    }
}
