//! Files, functions and lines stay short enough to be read in one go. Tests may be as long as what
//! they tell, but not as wide.

use crate::{Finding, RustFile, Source, Tree, scope};

const RULE: &str = "size";
/// Lines of a file, without its tests.
pub const FILE_LINES_MAX: usize = 600;
/// Lines of a function, from `fn` to the closing brace.
pub const FUNCTION_LINES_MAX: usize = 70;
/// Characters of a line.
pub const LINE_COLUMNS_MAX: usize = 100;

/// Checks all files.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for one in &tree.crates {
        for RustFile { path, source, .. } in one.product() {
            findings.extend(check_length(path, source));
        }
        findings.extend(one.files.iter().flat_map(|file| check_width(&file.path, &file.source)));
    }
    findings
}

/// Checks the length of a file and of its functions.
pub fn check_length(path: &str, source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let lines = source.product_lines();
    if lines > FILE_LINES_MAX {
        let advice = format!("{lines} lines, {FILE_LINES_MAX} are the most; split it by noun");
        findings.push(Finding::new(path, FILE_LINES_MAX + 1, RULE, advice));
    }
    for function in scope::functions(&source.product_tokens()) {
        let lines = function.last_line - function.first_line + 1;
        if lines > FUNCTION_LINES_MAX {
            let name = function.name;
            let advice = format!(
                "`{name}` has {lines} lines, {FUNCTION_LINES_MAX} are the most; name its parts"
            );
            findings.push(Finding::new(path, function.first_line, RULE, advice));
        }
    }
    findings
}

/// Checks the width of all lines.
pub fn check_width(path: &str, source: &Source) -> Vec<Finding> {
    let widths = source.lines().map(|line| line.chars().count()).enumerate();
    widths
        .filter(|(_, width)| *width > LINE_COLUMNS_MAX)
        .map(|(at, width)| {
            let advice = format!("{width} columns, {LINE_COLUMNS_MAX} are the most; break it");
            Finding::new(path, at + 1, RULE, advice)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(text: &str) -> Vec<usize> {
        let findings = check_length("a.rs", &Source::new(text));
        findings.into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn functions_are_measured_in_lines() {
        let of = |lines: usize| format!("\nfn f() {{\n{}}}\n", "a;\n".repeat(lines - 2));
        assert_eq!(long(&of(70)), []);
        assert_eq!(long(&of(71)), [2]);
        assert_eq!(long(&format!("#[cfg(test)]\nmod t {{\n{}}}", of(80))), []);
    }

    #[test]
    fn files_are_measured_without_their_tests() {
        assert_eq!(long(&"a!();\n".repeat(600)), []);
        assert_eq!(long(&"a!();\n".repeat(601)), [601]);
        let tests = format!("#[cfg(test)]\nmod t {{\n{}}}\n", "a!();\n".repeat(100));
        assert_eq!(long(&format!("{}{tests}", "a!();\n".repeat(600))), []);
    }

    #[test]
    fn width_is_in_characters() {
        assert!(check_width("a.rs", &Source::new(&"ä".repeat(100))).is_empty());
        assert_eq!(check_width("a.rs", &Source::new(&format!("\n{}", "a".repeat(101))))[0].line, 2);
    }
}
