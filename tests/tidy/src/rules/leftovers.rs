//! Nothing half done: no marks for later, no placeholders, no debugging aids in the product.

use crate::{Finding, Source, Tree};

const RULE: &str = "leftovers";
const MACROS: &[&str] = &["dbg", "todo", "unimplemented"];
const MARKS: &[&str] = &["FIXME", "TODO", "XXX"];

/// Checks all product code.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let files = tree.crates.iter().flat_map(|one| one.product());
    files.flat_map(|file| check_source(&file.path, &file.source)).collect()
}

/// Checks one file.
pub fn check_source(path: &str, source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for called in source.product_tokens().windows(3) {
        let opens = ["(", "[", "{"].contains(&called[2].text);
        if MACROS.contains(&called[0].text) && called[1].text == "!" && opens {
            let advice = format!("`{}!` in the product; do it or leave it out", called[0].text);
            findings.push(Finding::new(path, called[0].line, RULE, advice));
        }
    }
    for comment in source.comments().iter().filter(|comment| !source.is_test(comment.line)) {
        let mut words = comment.text.split(|c: char| !c.is_alphanumeric() && c != '_');
        if let Some(mark) = words.find(|word| MARKS.contains(word)) {
            let advice = format!("`{mark}` in a comment; do it, or open an issue");
            findings.push(Finding::new(path, comment.line, RULE, advice));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> usize {
        check_source("a.rs", &Source::new(text)).len()
    }

    #[test]
    fn marks_and_placeholders_are_found() {
        for text in ["todo!()", "unimplemented ! (\"\")", "dbg!(a)", "// TODO: a", "/* FIXME */"] {
            assert_eq!(found(text), 1, "{text}");
        }
    }

    #[test]
    fn words_that_look_like_them_are_not() {
        let right = [
            "let a = \"TODO\";",
            "// todo lists are data",
            "let todo = todo != 1;",
            "// TODOS",
            "#[cfg(test)]\nmod t {\n // TODO\n fn f() { todo!() }\n}",
        ];
        for text in right {
            assert_eq!(found(text), 0, "{text}");
        }
    }
}
