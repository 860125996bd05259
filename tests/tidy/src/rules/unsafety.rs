//! `unsafe` stays in the crates named for it, and every use of it says what makes it sound.

use crate::layers::{Layer, UNSAFE_FILES, layer_of};
use crate::{Finding, RustFile, Source, Tree};

const RULE: &str = "unsafe";

/// Checks where `unsafe` is, its comments, and that all other crates forbid it.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for one in &tree.crates {
        let layer = layer_of(&one.folder);
        for file in &one.files {
            if may_be_unsafe(layer, &file.path) {
                findings.extend(check_facts(&file.path, &file.source));
            } else {
                findings.extend(check_absence(&file.path, &file.source));
            }
        }
        if layer.is_none_or(|layer| !layer.kind.may_be_unsafe()) {
            let level = lint_level(&one.folder);
            findings.extend(one.roots().filter_map(|root| check_root(root, level)));
        }
    }
    findings
}

fn may_be_unsafe(layer: Option<&Layer>, path: &str) -> bool {
    layer.is_some_and(|layer| layer.kind.may_be_unsafe()) || UNSAFE_FILES.contains(&path)
}

/// `forbid` cannot be lifted for one file, so a crate with a named file says `deny`.
fn lint_level(folder: &str) -> &'static str {
    let inside = |file: &&str| file.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    if UNSAFE_FILES.iter().any(inside) { "deny" } else { "forbid" }
}

fn check_root(root: &RustFile, level: &str) -> Option<Finding> {
    if says_level(&root.source, level) {
        return None;
    }
    let advice = format!("write #![{level}(unsafe_code)] at the top of the crate");
    Some(Finding::new(&root.path, 1, RULE, advice))
}

fn says_level(source: &Source, level: &str) -> bool {
    let tokens = source.tokens();
    let begins = |at: usize| {
        let wanted = ["#", "!", "[", level, "("];
        wanted.iter().zip(&tokens[at..]).filter(|(text, token)| token.text == **text).count() == 5
    };
    (0..tokens.len()).filter(|at| begins(*at)).any(|at| {
        let inside = tokens[at..].iter().take_while(|token| token.text != ")");
        inside.into_iter().any(|token| token.text == "unsafe_code")
    })
}

/// Checks a file that may hold no `unsafe`.
pub fn check_absence(path: &str, source: &Source) -> Vec<Finding> {
    let tokens = source.tokens();
    let found = tokens.iter().filter(|token| token.text == "unsafe");
    let advice = "no `unsafe` here; put it into ipop-uring or ipop-shm behind a safe type";
    found.map(|token| Finding::new(path, token.line, RULE, advice.to_owned())).collect()
}

/// Checks that every `unsafe` in a file is explained.
pub fn check_facts(path: &str, source: &Source) -> Vec<Finding> {
    let tokens = source.tokens();
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let mut findings = Vec::new();
    for (at, token) in tokens.iter().enumerate().filter(|(_, token)| token.text == "unsafe") {
        let function = if text(at + 1) == "extern" { at + 2 } else { at + 1 };
        let is_type = text(function) == "fn" && text(function + 1) == "(";
        let is_contract = text(function) == "fn" || text(at + 1) == "trait";
        let comment = comment_above(source, token.line);
        let advice = match () {
            () if is_type => continue,
            () if is_contract && comment.contains("# Safety") => continue,
            () if is_contract => "say under `# Safety` what the caller must hold to",
            () if says_facts(&comment) => continue,
            () => "write the facts that make it sound above it, after `SAFETY:`",
        };
        findings.push(Finding::new(path, token.line, RULE, advice.to_owned()));
    }
    findings
}

fn says_facts(comment: &str) -> bool {
    let facts = comment.split_once("SAFETY:").map_or("", |(_, facts)| facts);
    facts.chars().any(char::is_alphanumeric)
}

/// The comment on this line, or else that above the statement to which the line belongs.
fn comment_above(source: &Source, line: usize) -> String {
    let code = source.code_lines();
    let comment = |line: usize| {
        let mut own = source.comments().iter().filter(|comment| comment.line == line);
        own.next().map(|comment| comment.text.as_str())
    };
    if let Some(text) = comment(line) {
        return text.to_owned();
    }
    let is_blank = |line: usize| code.get(line - 1).is_none_or(|code| code.trim().is_empty());
    let mut above = line - 1;
    while above > 0 && !is_blank(above) {
        let code = code[above - 1].trim();
        if !code.starts_with("#[") && code.ends_with([';', '{', '}']) {
            return String::new();
        }
        above -= 1;
    }
    let mut block = Vec::new();
    while above > 0 && is_blank(above) {
        let Some(text) = comment(above) else { break };
        block.push(text);
        above -= 1;
    }
    block.reverse();
    block.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unexplained(text: &str) -> Vec<usize> {
        let findings = check_facts("a.rs", &Source::new(text));
        findings.into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn blocks_and_impls_need_facts() {
        assert_eq!(unexplained("// SAFETY: the file is open.\nlet a = unsafe { f() };"), []);
        assert_eq!(
            unexplained("// SAFETY: it is open\n// and ours.\nlet a =\n  unsafe { f() };"),
            []
        );
        assert_eq!(unexplained("// SAFETY: two integers.\nunsafe impl Send for A {}"), []);
        assert_eq!(unexplained("let a = unsafe { f() };"), [1]);
        assert_eq!(unexplained("// SAFETY:\nlet a = unsafe { f() };"), [2]);
        assert_eq!(unexplained("// It is fine.\nunsafe impl Send for A {}"), [2]);
        assert_eq!(unexplained("// SAFETY: open.\nf();\nlet a = unsafe { f() };"), [3]);
        assert_eq!(unexplained("// SAFETY: open.\n\nlet a = unsafe { f() };"), [3]);
        assert_eq!(unexplained("let s = \"SAFETY: no\";\nunsafe { f() };"), [2]);
    }

    #[test]
    fn functions_need_a_contract() {
        assert_eq!(unexplained("/// A.\n///\n/// # Safety\n/// Open.\npub unsafe fn f() {}"), []);
        assert_eq!(unexplained("/// A.\n/// # Safety\n/// B.\n#[inline]\nunsafe fn f() {}"), []);
        assert_eq!(unexplained("/// A.\npub unsafe fn f() {}"), [2]);
        assert_eq!(unexplained("// SAFETY: yes.\nunsafe trait T {}"), [2]);
        assert_eq!(unexplained("type F = unsafe fn(u8);\ntype G = unsafe extern \"C\" fn();"), []);
    }

    #[test]
    fn absence_means_in_code() {
        let count = |text| check_absence("a.rs", &Source::new(text)).len();
        assert_eq!(count("// unsafe\nlet s = \"unsafe {}\"; #![forbid(unsafe_code)]"), 0);
        assert_eq!(count("#[cfg(test)] mod t { fn f() { unsafe { g() } } }"), 1);
    }

    #[test]
    fn levels_are_read_from_attributes_only() {
        let says = |text| says_level(&Source::new(text), "forbid");
        assert!(says("//! A.\n#![forbid(unsafe_code)]"));
        assert!(says("#![forbid(missing_docs, unsafe_code)]"));
        assert!(!says("// #![forbid(unsafe_code)]"));
        assert!(!says("#![deny(unsafe_code)]"));
        assert_eq!(lint_level("control/lab"), "deny");
        assert_eq!(lint_level("control/cli"), "forbid");
    }
}
