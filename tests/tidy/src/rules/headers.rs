//! Every crate opens with its design: what it is, and where to begin reading.

use crate::{Finding, Source, Tree, layers};

const RULE: &str = "header";
/// Lines of text that a header has at least.
pub const HEADER_LINES_MIN: usize = 4;

/// Checks the first file of every crate.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for one in &tree.crates {
        let is_tool = |layer: &layers::Layer| layer.kind == layers::Kind::Tool;
        let is_tool = layers::layer_of(&one.folder).is_some_and(is_tool);
        for root in one.roots() {
            let is_library = root.path.ends_with("/lib.rs") && !is_tool;
            findings.extend(check_source(&root.path, &root.source, is_library));
        }
    }
    findings
}

/// Checks one root; libraries of the product also say what to read first.
pub fn check_source(path: &str, source: &Source, is_library: bool) -> Option<Finding> {
    let header = header(source);
    let lines = header.lines().filter(|line| !line.trim().is_empty()).count();
    let header = header.to_lowercase();
    let advice = if lines < HEADER_LINES_MIN {
        "open the crate with `//!`: what it is, what it leaves out, what to read first"
    } else if is_library && !(header.contains("read") && header.contains("first")) {
        "say in the crate's header which two types to read first"
    } else {
        return None;
    };
    Some(Finding::new(path, 1, RULE, advice.to_owned()))
}

/// The `//!` lines before the first token.
fn header(source: &Source) -> String {
    let first_token = source.tokens().first().map_or(usize::MAX, |token| token.line);
    let own = source.comments().iter().filter(|comment| comment.line < first_token);
    let lines: Vec<&str> = own.filter_map(|comment| comment.text.strip_prefix("//!")).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(text: &str) -> bool {
        check_source("a.rs", &Source::new(text), true).is_none()
    }

    #[test]
    fn a_header_says_what_it_is_and_what_to_read() {
        assert!(passes("//! A.\n//! B.\n//!\n//! C.\n//! Read [`D`] first.\nmod d;"));
        assert!(!passes("//! A.\n//! B.\n//! C.\n//! D.\nmod d;"));
        assert!(!passes("//! A.\n//! Read [`D`] first.\nmod d;"));
        assert!(!passes("// A.\n// B.\n// C.\n// D.\n// Read E first.\n"));
        assert!(!passes("mod d;\n//! A.\n//! B.\n//! C.\n//! D.\n//! Read E first.\n"));
    }
}
