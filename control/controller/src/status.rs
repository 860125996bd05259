//! What observers see of the controller: `key=value` lines in the segment.

use std::net::IpAddr;
use std::time::Instant;

use crate::servers::Unresolved;

/// Longer notes do not fit into the row.
const NOTE_LEN_MAX: usize = 1000;
/// Names that are told one by one.
const NAMES_MAX: usize = 3;

/// The note, line by line.
pub(crate) struct Status {
    pub(crate) row: ipop_shm::RowWriter,
    pub(crate) signalling: String,
    pub(crate) addresses: String,
    /// Peers that were found without signalling.
    pub(crate) regained: String,
    /// Names of servers that do not resolve.
    pub(crate) unresolved: String,
    pub(crate) account: String,
    pub(crate) room: String,
}

impl Status {
    pub(crate) fn show(&mut self) {
        let mut text = format!(
            "account={}\nroom={}\nsignalling={}\naddresses={}\n",
            self.account, self.room, self.signalling, self.addresses
        );
        for (key, value) in [("unresolved", &self.unresolved), ("regained", &self.regained)] {
            if !value.is_empty() {
                text += &format!("{key}={value}\n");
            }
        }
        let text: String = text.chars().take(NOTE_LEN_MAX).collect();
        if let Err(error) = self.row.write(0, text.as_bytes()) {
            tracing::debug!("the note cannot be written: {error}");
        }
    }

    /// Shows which names do not resolve at `now`.
    pub(crate) fn show_unresolved<'a>(
        &mut self,
        now: Instant,
        names: impl Iterator<Item = Unresolved<'a>>,
    ) {
        let text = unresolved(now, names);
        if text != self.unresolved {
            self.unresolved = text;
            self.show();
        }
    }
}

/// Each name: since when, why, and what becomes of it.
fn unresolved<'a>(now: Instant, names: impl Iterator<Item = Unresolved<'a>>) -> String {
    let mut texts: Vec<_> = names.map(|name| unresolved_name(now, &name)).collect();
    let more = texts.len().saturating_sub(NAMES_MAX);
    texts.truncate(NAMES_MAX);
    if more > 0 {
        texts.push(format!("{more} more"));
    }
    // A name may be whatever a server wrote.
    texts.join("; ").replace(char::is_control, " ")
}

fn unresolved_name(now: Instant, name: &Unresolved<'_>) -> String {
    let Unresolved { name, since, text, next, kept } = name;
    let age = now.saturating_duration_since(*since).as_secs();
    let next = match next.map(|at| at.saturating_duration_since(now).as_secs()) {
        Some(pause) => format!("next try in {} s", pause + 1),
        None => "being tried".to_owned(),
    };
    let kept: Vec<_> = kept.iter().map(IpAddr::to_string).collect();
    let kept = match kept.as_slice() {
        [] => String::new(),
        kept => format!(", still used as {}", kept.join(" ")),
    };
    format!("{name} for {age} s ({text}), {next}{kept}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_does_not_resolve_is_told_in_one_line() {
        let start = Instant::now();
        let now = start + Duration::from_secs(12);
        let one = |name, next, kept| Unresolved { name, since: start, text: "no", next, kept };
        let next = Some(now + Duration::from_millis(2500));
        let two = [
            one("a.test", next, vec![]),
            one("b\n=", None, vec!["192.0.2.1".parse().expect("an address")]),
        ];
        assert_eq!(
            unresolved(now, two.into_iter()),
            "a.test for 12 s (no), next try in 3 s; \
             b = for 12 s (no), being tried, still used as 192.0.2.1"
        );
        let many = (0..9).map(|_| one("c.test", None, vec![]));
        assert!(unresolved(now, many).ends_with("; 6 more"));
        assert_eq!(unresolved(now, std::iter::empty()), "");
    }
}
