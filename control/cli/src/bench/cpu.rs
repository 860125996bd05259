//! What an instance's datapath costs.

use crate::instance::RunDir;

/// `USER_HZ`: clock ticks per second in `/proc`, on every Linux that this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system time of the datapath so far, seconds; none when it does not run.
pub fn datapath_seconds(instance: &RunDir) -> Option<f64> {
    let pid = std::fs::read_to_string(instance.path().join("datapath.pid")).ok()?;
    seconds(&std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).ok()?)
}

/// proc_pid_stat(5). The name may contain blanks and brackets, so fields count from its end.
fn seconds(stat: &str) -> Option<f64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_a_strange_name_is_read() {
        let text = "7 (a) b (c) S 3 7 7 0 -1 4194560 9 0 0 0 120 30 0 0 20 0 1 0 5 6 7";
        assert_eq!(seconds(text), Some(1.5));
        assert_eq!(seconds("7 (a) S"), None);
    }
}
