//! Reads what callgrind writes: how many instructions each function executed itself. The format is
//! in chapter 6 of the manual, "Callgrind Format Specification"; names are uncompressed here.

/// Instructions, by whose they are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Instructions {
    /// Of Rust code: ours, and what of other crates was inlined into it.
    pub(crate) own: f64,
    /// Of C and assembler: the ciphers of aws-lc, and libc's copying.
    pub(crate) library: f64,
}

/// Sums a profile up; `None` when it is none, or nothing was collected.
pub(crate) fn sum(profile: &str) -> Option<Instructions> {
    let mut sum = Instructions::default();
    let mut is_rust = false;
    let mut is_of_callee = false;
    for line in profile.lines() {
        if let Some(name) = line.strip_prefix("fn=") {
            is_rust = name.contains("::");
        } else if line.starts_with("calls=") {
            // The next line has what the callee took, which is counted with the callee.
            is_of_callee = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit()) {
            let cost = line.split_ascii_whitespace().nth(1).unwrap_or("0").parse::<f64>().ok()?;
            match (std::mem::take(&mut is_of_callee), is_rust) {
                (true, _) => {}
                (false, true) => sum.own += cost,
                (false, false) => sum.library += cost,
            }
        }
    }
    (sum.own > 0.0).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = "\
version: 1
creator: callgrind-3.19.0
positions: line
events: Ir
summary: 1260

ob=/bin/ipop-perf
fl=/src/seal.rs
fn=ipop_crypto::seal::Sealer::seal
10 100
fi=/src/chain.rs
20 50
fe=/src/seal.rs
11 10
cob=/lib/libc.so.6
cfi=???
cfn=memcpy
calls=4 0
12 400

fl=???
fn=aws_lc_0_32_0_EVP_AEAD_CTX_seal_scatter
0 700

ob=/lib/libc.so.6
fn=__memmove_avx_unaligned_erms
0 400
totals: 1260
";

    #[test]
    fn each_instruction_is_counted_once_and_with_its_owner() {
        assert_eq!(sum(PROFILE), Some(Instructions { own: 160.0, library: 1100.0 }));
    }

    #[test]
    fn what_is_no_profile_is_none() {
        assert_eq!(sum(""), None);
        assert_eq!(sum("fn=a::b\n1 x\n"), None);
    }
}
