//! Which part of a packet's way a sample belongs to, by the names on its stack: what a flame graph
//! shows, summed up to a dozen lines.

/// A part, and how its samples are known: the innermost frame contains one of `leaf`, and any frame
/// one of `stack`; an empty list asks for nothing.
struct Rule {
    part: &'static str,
    is_kernel: bool,
    leaf: &'static [&'static str],
    stack: &'static [&'static str],
}

const COPY: &[&str] = &["copy_to_iter", "copy_from_iter", "copy_user", "rep_movs", "memcpy"];
const TAP_READ: &[&str] = &["tun_do_read", "tun_chr_read"];
const TAP_WRITE: &[&str] = &["tun_get_user", "tun_chr_write"];
const SEND: &[&str] = &["udp_sendmsg", "udpv6_sendmsg"];
const RECEIVE: &[&str] = &["udp_recvmsg", "udpv6_recvmsg"];

const fn ours(part: &'static str, leaf: &'static [&'static str]) -> Rule {
    Rule { part, is_kernel: false, leaf, stack: &[] }
}

const fn kernel(
    part: &'static str,
    leaf: &'static [&'static str],
    stack: &'static [&'static str],
) -> Rule {
    Rule { part, is_kernel: true, leaf, stack }
}

/// The first that fits counts.
const RULES: &[Rule] = &[
    ours("AEAD (aws-lc)", &["aes", "gcm", "aead_", "CRYPTO_", "EVP_", "chacha", "poly1305"]),
    ours("AEAD (aws-lc)", &["iv_len_12"]),
    ours("pipeline: route, cut, join", &["ipop_pipeline"]),
    ours("sealer and opener", &["ipop_crypto", "aws_lc_rs"]),
    ours("port", &["ipop_uring", "io_uring"]),
    ours("worker's turn", &["ipop_engine", "clock_gettime"]),
    ours("copies in user space", &["memmove", "memcpy"]),
    ours("other user space", &[]),
    kernel("tap read: copy", COPY, TAP_READ),
    kernel("tap write: copy", COPY, TAP_WRITE),
    kernel("UDP send: copy", COPY, SEND),
    kernel("UDP receive: copy", COPY, RECEIVE),
    kernel("tap read: the rest", &[], TAP_READ),
    kernel("tap write: TCP and IP of the host", &[], TAP_WRITE),
    kernel("UDP receive: the rest", &[], RECEIVE),
    kernel("UDP send: UDP, IP, device", &[], SEND),
    kernel("sleep and wake", &["finish_task_switch", "schedule"], &[]),
    kernel("sleep and wake", &[], &["schedule"]),
    kernel("interrupts", &[], &["softirq", "irq_exit", "sysvec_"]),
    kernel("io_uring", &[], &["io_"]),
    kernel("other kernel", &[], &[]),
];

/// What a folded stack (`outer;inner_[k] samples`) is part of.
fn part_of(stack: &str) -> &'static str {
    let frames = stack.rsplit_once(' ').map_or(stack, |(frames, _)| frames);
    let leaf = frames.rsplit(';').next().unwrap_or_default();
    let has = |text: &str, names: &[&str]| {
        names.is_empty() || names.iter().any(|name| text.contains(name))
    };
    let fits = |rule: &&Rule| {
        rule.is_kernel == leaf.ends_with("_[k]") && has(leaf, rule.leaf) && has(frames, rule.stack)
    };
    RULES.iter().find(fits).map_or("other", |rule| rule.part)
}

/// Parts with their shares of all samples of the stacks, the largest first.
pub(crate) fn shares(stacks: &[String]) -> Vec<(&'static str, f64)> {
    let mut sums: Vec<(&'static str, f64)> = Vec::new();
    let mut all = 0.0;
    for stack in stacks {
        let samples = stack.rsplit(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
        all += samples;
        let part = part_of(stack);
        match sums.iter_mut().find(|sum| sum.0 == part) {
            Some(sum) => sum.1 += samples,
            None => sums.push((part, samples)),
        }
    }
    sums.iter_mut().for_each(|sum| sum.1 /= f64::max(all, 1.0));
    sums.sort_by(|a, b| b.1.total_cmp(&a.1));
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sample_has_its_part() {
        let parts = [
            ("worker;aws_lc_0_47_0_aes_gcm_encrypt_avx512 5", "AEAD (aws-lc)"),
            ("worker;<ipop_pipeline::Pipeline<S>>::egress 5", "pipeline: route, cut, join"),
            ("worker;io_read_[k];tun_do_read_[k];_copy_to_iter_[k] 5", "tap read: copy"),
            ("worker;io_read_[k];tun_do_read_[k];kfree_skb_[k] 5", "tap read: the rest"),
            ("worker;udp_sendmsg_[k];handle_softirqs_[k] 5", "UDP send: UDP, IP, device"),
            ("worker;io_cqring_wait_[k];schedule_[k];x_[k] 5", "sleep and wake"),
            ("worker;f 5", "other user space"),
        ];
        for (stack, part) in parts {
            assert_eq!(part_of(stack), part, "{stack}");
        }
    }

    #[test]
    fn shares_add_up() {
        let stacks = ["w;f 1", "w;io_x_[k] 2", "w;g 1"].map(str::to_owned);
        assert_eq!(shares(&stacks), [("other user space", 0.5), ("io_uring", 0.5)]);
    }
}
