//! Documents point at what is there: files, headings, and paths between backticks.

use crate::{Document, Finding, Tree};

const RULE: &str = "links";
/// A code span that begins so names a path of the tree.
const AREAS: &[&str] =
    &[".ci/", "bench/", "control/", "datapath/", "perf/", "signalling/", "tests/"];

/// Checks all Markdown files.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let parsed: Vec<(&str, Document)> =
        tree.documents.iter().map(|(path, text)| (path.as_str(), Document::parse(text))).collect();
    let exists = |path: &str| tree.has(path);
    parsed
        .iter()
        .flat_map(|(path, document)| check_document(path, document, &parsed, &exists))
        .collect()
}

/// Checks one document against the others and the files that exist.
pub fn check_document(
    path: &str,
    document: &Document,
    all: &[(&str, Document)],
    exists: &dyn Fn(&str) -> bool,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (target, line) in &document.links {
        if let Some(advice) = dead(path, target, all, exists) {
            findings.push(Finding::new(path, *line, RULE, advice));
        }
    }
    for (span, line) in document.code_spans.iter().filter(|(span, _)| is_path(span)) {
        if !exists(span) {
            let advice = format!("`{span}` is not in the tree; name what took its place");
            findings.push(Finding::new(path, *line, RULE, advice));
        }
    }
    findings
}

/// Why a link leads nowhere, if so.
fn dead(
    from: &str,
    target: &str,
    all: &[(&str, Document)],
    exists: &dyn Fn(&str) -> bool,
) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = if file.is_empty() { Some(from.to_owned()) } else { resolve(from, file) };
    let Some(path) = path else {
        return Some(format!("({target}) leads out of the tree; link to its public address"));
    };
    if !exists(&path) {
        return Some(format!("({target}) leads nowhere; there is no {path}"));
    }
    let document = all.iter().find(|(other, _)| *other == path);
    match document {
        Some((_, document)) if !anchor.is_empty() => {
            let known = document.anchors.iter().any(|other| other == anchor);
            (!known).then(|| format!("({target}) leads nowhere; {path} has no such heading"))
        }
        _ => None,
    }
}

/// The path from the root that a link in a file means.
fn resolve(from: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    if target.starts_with('/') {
        parts.clear();
    }
    for part in target.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            parts.pop()?;
        } else {
            parts.push(part);
        }
    }
    Some(parts.join("/"))
}

fn is_path(span: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    AREAS.iter().any(|area| span.starts_with(area)) && span.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead_lines(text: &str) -> Vec<usize> {
        let all = [
            ("a.md", Document::parse(text)),
            ("docs/b.md", Document::parse("# One two\n[up](../a.md) [no](../../x)")),
        ];
        let files = ["a.md", "docs", "docs/b.md", "docs/c.rs", "control/cli/src/up.rs"];
        let exists = |path: &str| files.contains(&path.trim_end_matches('/'));
        let findings = check_document("a.md", &all[0].1, &all, &exists);
        findings.into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn what_is_there_passes() {
        let text = "# Top\n[a](docs/b.md) [b](docs/b.md#one-two) [c](#top) [d](./docs/c.rs)\n\
                    [e](https://example.org/x#y) [f](docs/) `control/cli/src/up.rs` `tests/*.rs`";
        assert_eq!(dead_lines(text), []);
    }

    #[test]
    fn what_is_not_there_is_found() {
        let text = "[a](docs/x.md)\n[b](docs/b.md#three)\n[c](#low)\n[d](../a.md)\n`control/x.rs`";
        assert_eq!(dead_lines(text), [1, 2, 3, 4, 5]);
    }
}
