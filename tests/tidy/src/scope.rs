//! Items in a stream of tokens: which lines are tests, where functions begin and end, what `use`
//! declarations bring in.

use crate::source::Token;

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function<'a> {
    pub name: &'a str,
    pub first_line: usize,
    pub last_line: usize,
}

/// The first and last lines of items that are compiled for tests only.
pub(crate) fn test_lines(tokens: &[Token<'_>]) -> Vec<(usize, usize)> {
    let mut lines = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let Some((inner, after)) = attribute(tokens, at) else {
            at += 1;
            continue;
        };
        if !is_test_only(&tokens[inner.0..inner.1]) {
            at = after;
            continue;
        }
        let end = item_end(tokens, after).clamp(after, tokens.len());
        lines.push((tokens[at].line, tokens[end - 1].line));
        at = end;
    }
    lines
}

/// The names of modules that are declared for tests only and whose text is in another file.
pub(crate) fn test_modules<'a>(tokens: &[Token<'a>]) -> Vec<&'a str> {
    let mut names = Vec::new();
    for at in 0..tokens.len() {
        let Some((inner, mut after)) = attribute(tokens, at) else { continue };
        if !is_test_only(&tokens[inner.0..inner.1]) {
            continue;
        }
        while let Some((_, next)) = attribute(tokens, after) {
            after = next;
        }
        let texts = |n: usize| tokens.get(after + n).map_or("", |token| token.text);
        if texts(0) == "mod" && texts(2) == ";" {
            names.push(tokens[after + 1].text);
        }
    }
    names
}

/// All functions that have a body, methods and nested ones too.
pub(crate) fn functions<'a>(tokens: &[Token<'a>]) -> Vec<Function<'a>> {
    let mut functions = Vec::new();
    for (at, pair) in tokens.windows(2).enumerate() {
        if pair[0].text != "fn" || !is_name(pair[1].text) {
            continue;
        }
        let end = item_end(tokens, at);
        if end > at && tokens[end - 1].text == "}" {
            let (first_line, last_line) = (pair[0].line, tokens[end - 1].line);
            functions.push(Function { name: pair[1].text, first_line, last_line });
        }
    }
    functions
}

/// All paths that are written or imported, as `a::b::c`, with the line; groups are taken apart.
pub(crate) fn paths(tokens: &[Token<'_>]) -> Vec<(String, usize)> {
    let mut paths = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let begins = is_name(tokens[at].text) && !follows_colons(tokens, at);
        at = if begins { path(tokens, at, "", &mut paths) } else { at + 1 };
    }
    paths
}

fn path(tokens: &[Token<'_>], at: usize, prefix: &str, found: &mut Vec<(String, usize)>) -> usize {
    let mut whole = format!("{prefix}{}", tokens[at].text);
    let line = tokens[at].line;
    let mut at = at + 1;
    while is_colons(tokens, at) {
        match tokens.get(at + 2).map(|token| token.text) {
            Some("{") => return group(tokens, at + 3, &format!("{whole}::"), found),
            Some(text) if is_name(text) => {
                whole = format!("{whole}::{text}");
                at += 3;
            }
            _ => break,
        }
    }
    found.push((whole, line));
    at
}

fn group(tokens: &[Token<'_>], at: usize, prefix: &str, found: &mut Vec<(String, usize)>) -> usize {
    let mut at = at;
    while at < tokens.len() && tokens[at].text != "}" {
        at = if is_name(tokens[at].text) { path(tokens, at, prefix, found) } else { at + 1 };
    }
    at + 1
}

fn is_colons(tokens: &[Token<'_>], at: usize) -> bool {
    let text = |n: usize| tokens.get(n).map_or("", |token| token.text);
    text(at) == ":" && text(at + 1) == ":"
}

fn follows_colons(tokens: &[Token<'_>], at: usize) -> bool {
    at >= 2 && is_colons(tokens, at - 2)
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// The tokens between the brackets of an outer attribute at `at`, and what comes behind it.
fn attribute(tokens: &[Token<'_>], at: usize) -> Option<((usize, usize), usize)> {
    let text = |n: usize| tokens.get(n).map_or("", |token| token.text);
    if text(at) != "#" || text(at + 1) != "[" {
        return None;
    }
    let end = closing(tokens, at + 1)?;
    Some(((at + 2, end), end + 1))
}

/// The token that closes the bracket at `at`.
fn closing(tokens: &[Token<'_>], at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (n, token) in tokens.iter().enumerate().skip(at) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(n);
                }
            }
            _ => {}
        }
    }
    None
}

/// `test` and `cfg(..)` whose predicate cannot hold without `test`.
fn is_test_only(attribute: &[Token<'_>]) -> bool {
    match attribute {
        [only] => only.text == "test",
        [name, open, inner @ .., _] if name.text == "cfg" && open.text == "(" => needs_test(inner),
        _ => false,
    }
}

fn needs_test(predicate: &[Token<'_>]) -> bool {
    match predicate {
        [only] => only.text == "test",
        [name, open, inner @ .., _] if open.text == "(" => match name.text {
            "all" => arguments(inner).into_iter().any(needs_test),
            "any" => !inner.is_empty() && arguments(inner).into_iter().all(needs_test),
            _ => false,
        },
        _ => false,
    }
}

fn arguments<'a, 'b>(tokens: &'b [Token<'a>]) -> Vec<&'b [Token<'a>]> {
    let mut depth = 0_i32;
    let parts = tokens.split(|token| {
        depth += i32::from(token.text == "(") - i32::from(token.text == ")");
        token.text == "," && depth == 0
    });
    parts.filter(|part| !part.is_empty()).collect()
}

const ITEM_WORDS: [&str; 16] = [
    "async",
    "const",
    "enum",
    "extern",
    "fn",
    "impl",
    "let",
    "macro_rules",
    "mod",
    "pub",
    "static",
    "struct",
    "trait",
    "type",
    "unsafe",
    "use",
];

/// Behind the last token of the item (or field, arm, statement) that begins at `at`.
fn item_end(tokens: &[Token<'_>], mut at: usize) -> usize {
    while let Some((_, after)) = attribute(tokens, at) {
        at = after;
    }
    let is_item = tokens.get(at).is_some_and(|token| ITEM_WORDS.contains(&token.text));
    while at < tokens.len() {
        match tokens[at].text {
            ";" => return at + 1,
            "," if !is_item => return at + 1,
            ")" | "]" | "}" => return at,
            "{" => return closing(tokens, at).map_or(tokens.len(), |end| end + 1),
            "(" | "[" => at = closing(tokens, at).map_or(tokens.len(), |end| end + 1),
            _ => at += 1,
        }
    }
    tokens.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Source;

    fn tests_in(text: &str) -> Vec<(usize, usize)> {
        test_lines(&Source::new(text).tokens())
    }

    #[test]
    fn test_items_are_found_and_end_where_they_end() {
        assert_eq!(tests_in("#[cfg(test)]\nmod tests {\n{}\n}\nfn a() {}"), [(1, 4)]);
        assert_eq!(tests_in("#[cfg(test)]\nmod tests;\nfn a() {}"), [(1, 2)]);
        assert_eq!(tests_in("#[test]\n#[ignore]\nfn a() -> [u8; 2] {\n}\n"), [(1, 4)]);
        assert_eq!(tests_in("#[cfg(all(test, not(loom)))]\nmod a {\n}"), [(1, 3)]);
        assert_eq!(tests_in("#[cfg(test)]\nfn f<A, B>() {\n}\nfn g() {}"), [(1, 3)]);
    }

    #[test]
    fn a_test_field_does_not_swallow_what_follows() {
        let text = "struct A {\n#[cfg(test)]\na: u8,\nb: u8 }\nfn f() {\n}";
        assert_eq!(tests_in(text), [(2, 3)]);
        assert_eq!(tests_in("struct A {\n#[cfg(test)]\na: u8\n}\nfn f() {\n}"), [(2, 3)]);
    }

    #[test]
    fn what_only_looks_like_a_test_is_product() {
        assert_eq!(tests_in("#[cfg(not(test))]\nfn a() {}"), []);
        assert_eq!(tests_in("#[cfg(any(test, loom))]\nfn a() {}"), []);
        assert_eq!(tests_in("#[cfg(feature = \"test\")]\nfn a() {}"), []);
        assert_eq!(tests_in("// #[cfg(test)]\nfn a() {}"), []);
        assert_eq!(tests_in("const A: &str = \"#[cfg(test)]\";\nfn a() {}"), []);
        assert_eq!(tests_in("#![cfg(test)]\nfn a() {}"), []);
        assert_eq!(tests_in("#[cfg_attr(test, allow(x))]\nfn a() {}"), []);
    }

    #[test]
    fn modules_of_tests_in_files_of_their_own() {
        let source =
            Source::new("#[cfg(test)]\n#[path = \"x\"]\nmod a;\nmod b;\n#[test] fn c() {}");
        assert_eq!(test_modules(&source.tokens()), ["a"]);
    }

    #[test]
    fn functions_span_signature_and_body() {
        let text = "trait T { fn no(&self); }\n\
                    fn yes<A>(\n  a: [u8; 3],\n) where A: Fn() {\n  fn in_it() {}\n}";
        let source = Source::new(text);
        let names: Vec<_> = functions(&source.tokens())
            .into_iter()
            .map(|f| (f.name.to_owned(), f.first_line, f.last_line))
            .collect();
        assert_eq!(names, [("yes".to_owned(), 2, 6), ("in_it".to_owned(), 5, 5)]);
        assert_eq!(functions(&Source::new("type F = fn(u8) -> u8;").tokens()), []);
        assert_eq!(functions(&Source::new("// fn a() {}\nlet s = \"fn b() {}\";").tokens()), []);
    }

    #[test]
    fn groups_of_imports_are_taken_apart() {
        let source = Source::new("use std::{fs, net::{IpAddr, UdpSocket}};\nstd::thread::spawn(f)");
        let found: Vec<String> =
            paths(&source.tokens()).into_iter().map(|(path, _)| path).collect();
        for path in ["std::fs", "std::net::IpAddr", "std::net::UdpSocket", "std::thread::spawn"] {
            assert!(found.iter().any(|one| one == path), "{path} in {found:?}");
        }
    }
}
