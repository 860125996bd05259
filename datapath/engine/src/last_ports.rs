//! The UDP ports of the last run: with the same ones again, the mappings of NATs and what peers
//! know of this node stay true over a restart.
//!
//! The file holds the workers' ports as a line of numbers. It is a hint: one that cannot be read,
//! or a port that is taken by now, costs nothing but the hint.

use std::path::Path;

/// More numbers than this are no list of ports of ours.
const PORTS_MAX: usize = 256;

/// The ports of the last run, by worker.
pub(crate) fn read(path: &Path) -> Vec<u16> {
    parse(&std::fs::read_to_string(path).unwrap_or_default())
}

/// Notes the ports of this run. A failure is said and costs nothing else.
pub(crate) fn write(path: &Path, ports: &[u16]) {
    if read(path) == ports {
        return;
    }
    let texts: Vec<_> = ports.iter().map(u16::to_string).collect();
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let written = std::fs::write(&new, texts.join(" ") + "\n");
    if let Err(error) = written.and_then(|()| std::fs::rename(&new, path)) {
        tracing::warn!("cannot note the UDP ports in {}: {error}", path.display());
    }
}

fn parse(text: &str) -> Vec<u16> {
    let numbers = text.split_whitespace().take(PORTS_MAX).map(|number| number.parse());
    let ports = numbers.collect::<Result<Vec<u16>, _>>().unwrap_or_default();
    if ports.contains(&0) { Vec::new() } else { ports }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_list_of_ports_is_no_hint() {
        assert_eq!(parse("40001 40002\n"), [40001, 40002]);
        for text in ["", "\n", "0", "40001 x", "70000", "40001 0", "\0\0"] {
            assert!(parse(text).is_empty(), "{text:?}");
        }
    }
}
