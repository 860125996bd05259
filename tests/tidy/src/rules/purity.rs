//! Pure crates have no clock, socket, thread, file, global or output: what they need is handed in.

use crate::layers::layer_of;
use crate::{Finding, Source, Token, Tree, scope};

const RULE: &str = "purity";

/// Modules of `std` that act on the world.
const MODULES: &[&str] = &["std::env", "std::fs", "std::os", "std::process", "std::thread"];

/// Names that mean the same wherever they come from.
const WORDS: &[(&str, &str)] = &[
    ("LazyLock", "keep state in a value that the caller owns"),
    ("OnceLock", "keep state in a value that the caller owns"),
    ("SystemTime", "take the time as an argument"),
    ("TcpListener", "leave sockets to the edge"),
    ("TcpStream", "leave sockets to the edge"),
    ("ToSocketAddrs", "leave name resolution to the edge"),
    ("UdpSocket", "leave sockets to the edge"),
    ("UnixDatagram", "leave sockets to the edge"),
    ("UnixListener", "leave sockets to the edge"),
    ("UnixStream", "leave sockets to the edge"),
    ("eprintln", "return what is to be said"),
    ("println", "return what is to be said"),
    ("thread_local", "keep state in a value that the caller owns"),
];

/// Short sequences of tokens.
const SEQUENCES: &[(&[&str], &str)] = &[
    (&["Instant", ":", ":", "now"], "take `now` as an argument"),
    (&[".", "elapsed", "("], "take `now` as an argument and subtract"),
    (&["static", "mut"], "keep state in a value that the caller owns"),
];

/// Types that make a `static` a global variable.
const CELLS: &[&str] = &["Cell", "Mutex", "OnceCell", "RefCell", "RwLock", "UnsafeCell"];

/// Checks the product code of all pure crates.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let is_pure = |folder: &str| layer_of(folder).is_some_and(|layer| layer.kind.is_pure());
    let pure = tree.crates.iter().filter(|one| is_pure(&one.folder));
    let mut findings: Vec<Finding> = pure
        .flat_map(|one| one.product())
        .flat_map(|file| check_source(&file.path, &file.source))
        .collect();
    findings.sort();
    findings
}

/// Checks one file of a pure crate.
pub fn check_source(path: &str, source: &Source) -> Vec<Finding> {
    let tokens = source.product_tokens();
    let mut findings = Vec::new();
    let mut add = |line, what: &str, advice: &str| {
        let advice = format!("`{what}` in a pure crate; {advice}");
        findings.push(Finding::new(path, line, RULE, advice));
    };
    for (name, line) in scope::paths(&tokens) {
        let inside = |module: &&&str| {
            name.strip_prefix(**module).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        };
        if MODULES.iter().find(inside).is_some() {
            add(line, &name, "leave it to the edge and take the result as an argument");
        }
    }
    for (at, token) in tokens.iter().enumerate() {
        if let Some((word, advice)) = WORDS.iter().find(|(word, _)| *word == token.text) {
            add(token.line, word, advice);
        }
        for (sequence, advice) in SEQUENCES {
            if begins_with(&tokens[at..], sequence) {
                add(token.line, &sequence.concat(), advice);
            }
        }
        if token.text == "static" && is_global(&tokens[at..]) {
            add(token.line, "static", "keep state in a value that the caller owns");
        }
    }
    findings
}

fn begins_with(tokens: &[Token<'_>], sequence: &[&str]) -> bool {
    tokens.len() >= sequence.len()
        && sequence.iter().zip(tokens).all(|(text, token)| token.text == *text)
}

/// A `static NAME: Type = ..` whose type can change.
fn is_global(tokens: &[Token<'_>]) -> bool {
    let is_item = tokens.get(2).is_some_and(|token| token.text == ":");
    let mut kind = tokens.iter().take_while(|token| !["=", ";"].contains(&token.text));
    is_item && kind.any(|token| token.text.starts_with("Atomic") || CELLS.contains(&token.text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> usize {
        check_source("a.rs", &Source::new(text)).len()
    }

    #[test]
    fn clocks_sockets_threads_files_and_globals_are_found() {
        let wrong = [
            "let now = Instant::now();",
            "let now = std::time::Instant::now;",
            "use std::time::SystemTime;",
            "let age = start.elapsed();",
            "use std::{fmt, fs::File};",
            "std::thread::sleep(d)",
            "use std::net::{IpAddr, UdpSocket};",
            "static mut COUNT: u8 = 0;",
            "static COUNT: AtomicU64 = AtomicU64::new(0);",
            "static ALL: Mutex<u8> = Mutex::new(0);",
            "static KEY: std::sync::OnceLock<u8> = f();",
            "thread_local! { }",
            "println!(\"\")",
            "std::env::var(\"A\")",
        ];
        for text in wrong {
            assert_eq!(found(text), 1, "{text}");
        }
    }

    #[test]
    fn words_in_tests_comments_and_strings_are_not() {
        let right = [
            "// Instant::now()\n",
            "let a = \"Instant::now()\";",
            "#[cfg(test)]\nmod tests {\n fn a() { Instant::now(); }\n}",
            "use std::net::{IpAddr, SocketAddr};",
            "fn f(now: Instant, name: &'static str) {}",
            "static NAMES: [&str; 2] = [\"a\", \"b\"];",
            "let elapsed = now - start;",
            "use std::time::{Duration, Instant};",
            "use std::ostrich;",
            "let thread = node.thread;",
        ];
        for text in right {
            assert_eq!(found(text), 0, "{text}");
        }
    }

    #[test]
    fn the_line_is_right() {
        let findings = check_source("a.rs", &Source::new("\n\nuse std::{\n  fmt,\n  fs,\n};"));
        assert_eq!(findings[0].line, 5);
    }
}
