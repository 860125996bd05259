//! Which bytes of a Rust file are code, and which are comments, strings and characters.

/// A stretch of a file, by byte offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece {
    Comment { start: usize, end: usize },
    Literal { start: usize, end: usize },
}

/// Finds all comments and all string, byte and character literals, in order.
pub(crate) fn pieces(text: &str) -> Vec<Piece> {
    let bytes = text.as_bytes();
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => line_end(bytes, at),
            b'/' if bytes[at..].starts_with(b"/*") => block_end(bytes, at),
            b'"' => string_end(bytes, at),
            b'\'' => character_end(text, at),
            byte if is_word(byte) => {
                let (end, literal) = word_end(bytes, at);
                if literal {
                    pieces.push(Piece::Literal { start: at, end });
                }
                at = end;
                continue;
            }
            _ => at + 1,
        };
        match bytes[at] {
            b'/' if end > at + 1 => pieces.push(Piece::Comment { start: at, end }),
            b'"' => pieces.push(Piece::Literal { start: at, end }),
            b'\'' if end > at + 1 => pieces.push(Piece::Literal { start: at, end }),
            _ => {}
        }
        at = end;
    }
    pieces
}

pub(crate) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |n| at + n)
}

/// Block comments nest.
fn block_end(bytes: &[u8], at: usize) -> usize {
    let (mut at, mut depth) = (at, 0);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            (at, depth) = (at + 2, depth + 1);
        } else if bytes[at..].starts_with(b"*/") {
            (at, depth) = (at + 2, depth - 1);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], quote: usize) -> usize {
    let mut at = quote + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn raw_string_end(bytes: &[u8], hashes: usize, quote: usize) -> usize {
    let closing: Vec<u8> = [b'"'].into_iter().chain(std::iter::repeat_n(b'#', hashes)).collect();
    let found = bytes[quote + 1..].windows(closing.len()).position(|part| part == closing);
    found.map_or(bytes.len(), |n| quote + 1 + n + closing.len())
}

/// `'a'` and `'\n'` are characters, `'a` alone is a lifetime: then only the quote is taken.
fn character_end(text: &str, quote: usize) -> usize {
    let rest = &text[quote + 1..];
    let mut chars = rest.char_indices();
    match chars.next() {
        Some((_, '\\')) => {
            chars.next();
            let behind = rest.get(2..).unwrap_or_default();
            behind.find('\'').map_or(text.len(), |n| quote + 1 + 2 + n + 1)
        }
        Some((_, first)) if first != '\'' => match chars.next() {
            Some((n, '\'')) => quote + 1 + n + 1,
            _ => quote + 1,
        },
        _ => quote + 1,
    }
}

/// A word ends where it ends, unless it is the prefix of a literal: `r"`, `br#"`, `b'`, `c"`.
fn word_end(bytes: &[u8], start: usize) -> (usize, bool) {
    let length = bytes[start..].iter().position(|byte| !is_word(*byte));
    let end = length.map_or(bytes.len(), |n| start + n);
    let hashes = bytes[end..].iter().take_while(|byte| **byte == b'#').count();
    let quoted = bytes.get(end + hashes) == Some(&b'"');
    match &bytes[start..end] {
        b"r" | b"br" | b"cr" if quoted => (raw_string_end(bytes, hashes, end + hashes), true),
        b"b" | b"c" if quoted && hashes == 0 => (string_end(bytes, end), true),
        b"b" if bytes.get(end) == Some(&b'\'') => (byte_end(bytes, end), true),
        _ => (end, false),
    }
}

fn byte_end(bytes: &[u8], quote: usize) -> usize {
    let first = if bytes.get(quote + 1) == Some(&b'\\') { quote + 3 } else { quote + 2 };
    let rest = bytes.get(first..).unwrap_or_default();
    rest.iter().position(|byte| *byte == b'\'').map_or(bytes.len(), |n| first + n + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literals(text: &str) -> Vec<&str> {
        let only = |piece| match piece {
            Piece::Literal { start, end } => Some(&text[start..end]),
            Piece::Comment { .. } => None,
        };
        pieces(text).into_iter().filter_map(only).collect()
    }

    fn comments(text: &str) -> Vec<&str> {
        let only = |piece| match piece {
            Piece::Comment { start, end } => Some(&text[start..end]),
            Piece::Literal { .. } => None,
        };
        pieces(text).into_iter().filter_map(only).collect()
    }

    #[test]
    fn strings_of_all_kinds_are_literals() {
        assert_eq!(literals(r#"let a = "x // y"; b"#), [r#""x // y""#]);
        assert_eq!(literals(r#"f("a\"b", "c\\")"#), [r#""a\"b""#, r#""c\\""#]);
        assert_eq!(literals("r#\"say \"hi\" \"# + r\"\\\""), ["r#\"say \"hi\" \"#", "r\"\\\""]);
        assert_eq!(literals(r##"b"x" br#"y"# c"z""##), [r#"b"x""#, r##"br#"y"#"##, r#"c"z""#]);
        assert_eq!(literals("\"two\nlines\""), ["\"two\nlines\""]);
    }

    #[test]
    fn characters_are_literals_and_lifetimes_are_not() {
        assert_eq!(literals(r"['a', '\'', '\u{1f600}', 'ä', '\\']").len(), 5);
        assert_eq!(literals("fn f<'a>(x: &'a str, y: &'static u8)"), [""; 0]);
        assert_eq!(literals(r"[b'a', b'\'', b'\\', b'/']").len(), 4);
        assert_eq!(literals("'\"' ; \"x\""), ["'\"'", "\"x\""]);
        assert_eq!(literals("'label: loop { break 'label; }"), [""; 0]);
    }

    #[test]
    fn comments_nest_and_hide_quotes() {
        assert_eq!(comments("a // it's \"odd\nb"), ["// it's \"odd"]);
        assert_eq!(comments("/* a /* b */ c */ d"), ["/* a /* b */ c */"]);
        assert_eq!(comments("a / b"), [""; 0]);
        assert_eq!(comments("\"http://x\""), [""; 0]);
    }

    #[test]
    fn what_is_cut_off_ends_with_the_file() {
        for text in ["\"abc", "r#\"abc", "/* abc", "b'", "'\\", "'", "b\"", "r#", "\"\\"] {
            for piece in pieces(text) {
                let (Piece::Comment { end, .. } | Piece::Literal { end, .. }) = piece;
                assert!(end <= text.len() + 1, "{text}");
            }
        }
    }
}
