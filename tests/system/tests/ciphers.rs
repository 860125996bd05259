//! The group's policy on ciphers: what it fixes is used, and plaintext only where all want it.

#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Duration;

use ipop_lab::{Impairment, Nat};
use ipop_system_tests::{Stage, eventually, transfer};

const BYTES: u64 = 16 << 20;

/// Two nodes with these lists of allowed ciphers.
fn stage(lists: [&str; 2]) -> Stage {
    let mut stage = Stage::prosody();
    for list in lists {
        let number = stage.add_site(Nat::None, Impairment::default());
        let mut config = stage.config(number);
        config.signalling.push_str(&format!("ciphers = [{list}]\n"));
        stage.start(number, &config);
    }
    stage
}

#[test]
fn a_cipher_that_the_policy_names_is_used() {
    for (list, shown) in [
        ("\"aes-256-gcm\"", "AES-256-GCM"),
        ("\"ChaCha20-Poly1305\"", "ChaCha20-Poly1305"),
        ("\"aegis-128x4\"", "AEGIS-128X4"),
        ("\"plain\"", "NONE: PLAINTEXT, NOT AUTHENTICATED"),
    ] {
        let stage = stage([list, list]);
        stage.await_links();
        let (a, b) = stage.pair();
        assert_eq!(a.link_to(b)["cipher"], shown);
        let text = String::from_utf8_lossy(&a.ipop("status").stdout).into_owned();
        assert!(text.contains(shown), "{text}");
        for (from, to) in [(a, b), (b, a)] {
            let result = transfer(from, to, to.v4(), BYTES);
            assert_eq!((result.bytes, result.corrupted), (BYTES, 0), "{list}");
        }
    }
}

#[test]
fn plaintext_at_one_end_is_no_link_at_all() {
    let stage = stage(["\"plain\"", "\"aes-128-gcm\", \"aes-256-gcm\""]);
    let (a, b) = stage.pair();
    let refused = || {
        // A node that has only just been started has no status yet.
        let said = [a, b].map(|node| node.ipop("status").stdout).concat();
        String::from_utf8_lossy(&said).contains("no common cipher")
    };
    eventually("an error that names the ciphers", Duration::from_secs(20), refused);
    assert!(!a.is_linked_to(b) && !b.is_linked_to(a));
}
