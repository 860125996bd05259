//! A Rust file as tokens, with its comments beside them.

use crate::scan::{Piece, is_word, pieces};
use crate::scope;

/// A word, a number or one character of punctuation. Comments and literals are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'a> {
    /// As written.
    pub text: &'a str,
    /// Where it begins, in bytes.
    pub offset: usize,
    /// The line, counted from 1.
    pub line: usize,
}

/// One line of a comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comment {
    /// The line, counted from 1.
    pub line: usize,
    /// The text with its slashes or stars.
    pub text: String,
}

/// A Rust file, read.
#[derive(Debug)]
pub struct Source {
    text: String,
    code: String,
    comments: Vec<Comment>,
    line_starts: Vec<usize>,
    test_lines: Vec<(usize, usize)>,
}

impl Source {
    /// Reads the text of a file.
    pub fn new(text: &str) -> Self {
        let line_starts: Vec<usize> =
            [0].into_iter().chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let mut code = text.as_bytes().to_vec();
        let mut comments = Vec::new();
        for piece in pieces(text) {
            let (Piece::Comment { start, end } | Piece::Literal { start, end }) = piece;
            let end = end.min(text.len());
            for byte in code[start..end].iter_mut().filter(|byte| **byte != b'\n') {
                *byte = b' ';
            }
            if matches!(piece, Piece::Comment { .. }) {
                let first = line_of(&line_starts, start);
                let lines = text[start..end].lines().enumerate();
                comments.extend(
                    lines.map(|(n, text)| Comment { line: first + n, text: text.to_owned() }),
                );
            }
        }
        let code = String::from_utf8(code).expect("whole characters were blanked");
        let mut source =
            Self { text: text.to_owned(), code, comments, line_starts, test_lines: Vec::new() };
        source.test_lines = scope::test_lines(&source.tokens());
        source
    }

    /// The lines of the file as written.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.text.lines()
    }

    /// The lines with comments and literals blanked.
    pub fn code_lines(&self) -> Vec<&str> {
        self.code.lines().collect()
    }

    /// All comments, line by line.
    pub fn comments(&self) -> &[Comment] {
        &self.comments
    }

    /// Does this line belong to an item under `#[cfg(test)]`?
    pub fn is_test(&self, line: usize) -> bool {
        self.test_lines.iter().any(|(first, last)| (*first..=*last).contains(&line))
    }

    /// How many lines the file has without items under `#[cfg(test)]`.
    pub fn product_lines(&self) -> usize {
        (1..=self.text.lines().count()).filter(|line| !self.is_test(*line)).count()
    }

    /// All tokens.
    pub fn tokens(&self) -> Vec<Token<'_>> {
        let bytes = self.code.as_bytes();
        let mut tokens = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let length = match bytes[at] {
                byte if byte.is_ascii_whitespace() => {
                    at += 1;
                    continue;
                }
                byte if is_word(byte) => bytes[at..].iter().take_while(|b| is_word(**b)).count(),
                _ => 1,
            };
            let text = &self.code[at..at + length];
            tokens.push(Token { text, offset: at, line: line_of(&self.line_starts, at) });
            at += length;
        }
        tokens
    }

    /// The tokens outside items under `#[cfg(test)]`.
    pub fn product_tokens(&self) -> Vec<Token<'_>> {
        let mut tokens = self.tokens();
        tokens.retain(|token| !self.is_test(token.line));
        tokens
    }
}

fn line_of(line_starts: &[usize], offset: usize) -> usize {
    line_starts.partition_point(|start| *start <= offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_leave_out_comments_and_literals() {
        let source = Source::new("let a = \"unsafe\"; // unsafe\nb('x', 2)");
        let texts: Vec<&str> = source.tokens().iter().map(|token| token.text).collect();
        assert_eq!(texts, ["let", "a", "=", ";", "b", "(", ",", "2", ")"]);
        assert_eq!(source.tokens()[4].line, 2);
    }

    #[test]
    fn comments_are_told_line_by_line() {
        let source = Source::new("a\n/* b\n c */\n// d\n");
        let lines: Vec<usize> = source.comments().iter().map(|comment| comment.line).collect();
        assert_eq!(lines, [2, 3, 4]);
    }

    #[test]
    fn product_lines_are_those_outside_tests() {
        let source = Source::new("fn a() {}\n\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\n");
        assert_eq!(source.product_lines(), 2);
        assert!(source.is_test(3) && source.is_test(5) && !source.is_test(1));
    }
}
