//! A Markdown file: its links, its headings' anchors, and the paths it names.

/// A Markdown file, read. Fenced code is no prose and is left out.
#[derive(Debug, Default)]
pub struct Document {
    /// Targets of links and images as written, with the line.
    pub links: Vec<(String, usize)>,
    /// What `#anchor` may name, as the usual renderers make it from headings.
    pub anchors: Vec<String>,
    /// What stands between backticks, with the line.
    pub code_spans: Vec<(String, usize)>,
}

impl Document {
    /// Reads the text of a file.
    pub fn parse(text: &str) -> Self {
        let mut document = Self::default();
        let mut fence: Option<String> = None;
        for (at, line) in text.lines().enumerate() {
            let trimmed = line.trim_start();
            let marks: String = trimmed.chars().take_while(|c| "`~".contains(*c)).collect();
            match &fence {
                Some(open) if marks.starts_with(open.as_str()) => fence = None,
                Some(_) => {}
                None if marks.len() >= 3 => fence = Some(marks),
                None => document.line(trimmed, at + 1),
            }
        }
        document
    }

    fn line(&mut self, text: &str, line: usize) {
        let (prose, spans) = split_code(text);
        self.code_spans.extend(spans.into_iter().map(|span| (span, line)));
        let hashes = text.chars().take_while(|c| *c == '#').count();
        if (1..=6).contains(&hashes) && text[hashes..].starts_with(' ') {
            self.add_heading(&text[hashes..]);
        }
        for attribute in ["id=\"", "name=\""] {
            let named = prose.split(attribute).skip(1).filter_map(|rest| rest.split('"').next());
            self.anchors.extend(named.map(str::to_owned));
        }
        self.links.extend(link_targets(&prose).into_iter().map(|target| (target, line)));
    }

    /// A heading that comes twice is numbered from the second on.
    fn add_heading(&mut self, heading: &str) {
        let slug = slug(heading);
        let same = |anchor: &&String| {
            let number = anchor.strip_prefix(slug.as_str());
            number.is_some_and(|n| n.is_empty() || is_number_suffix(n))
        };
        match self.anchors.iter().filter(same).count() {
            0 => self.anchors.push(slug),
            n => self.anchors.push(format!("{slug}-{n}")),
        }
    }
}

fn is_number_suffix(text: &str) -> bool {
    text.strip_prefix('-').is_some_and(|n| n.chars().all(|c| c.is_ascii_digit()))
}

/// Lower case, letters and digits and hyphens; a link in a heading counts by its text.
fn slug(heading: &str) -> String {
    let heading = heading.trim().trim_end_matches('#').trim().to_lowercase();
    let mut visible = String::new();
    let mut rest = heading.as_str();
    while let Some((before, behind)) = rest.split_once("](") {
        visible.push_str(before);
        rest = behind.split_once(')').map_or("", |(_, after)| after);
    }
    visible.push_str(rest);
    let kept = visible.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The text without what stands between backticks, and that.
fn split_code(text: &str) -> (String, Vec<String>) {
    let (mut prose, mut spans) = (String::new(), Vec::new());
    let mut rest = text;
    while let Some(start) = rest.find('`') {
        let marks = rest[start..].chars().take_while(|c| *c == '`').count();
        let inner = start + marks;
        let Some(length) = rest[inner..].find(&"`".repeat(marks)) else { break };
        prose.push_str(&rest[..start]);
        spans.push(rest[inner..inner + length].trim().to_owned());
        rest = &rest[inner + length + marks..];
    }
    prose.push_str(rest);
    (prose, spans)
}

/// `[text](target "title")`, images, and definitions `[name]: target`.
fn link_targets(prose: &str) -> Vec<String> {
    let mut targets = Vec::new();
    for rest in prose.split("](").skip(1) {
        let end = closing_parenthesis(rest);
        targets.extend(rest[..end].split_whitespace().next().map(bare));
    }
    if prose.starts_with('[')
        && let Some((_, target)) = prose.split_once("]: ")
    {
        targets.extend(target.split_whitespace().next().map(bare));
    }
    targets
}

fn closing_parenthesis(text: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 0 => return at,
            ')' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

fn bare(target: &str) -> String {
    target.trim_start_matches('<').trim_end_matches('>').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_all_kinds_are_found_and_code_is_not() {
        let text =
            "[a](b.md) ![c](d.png \"t\") `[e](f)`\n[g]: h.md\n```\n[i](j)\n```\n[k](l_(m).md)";
        let links: Vec<_> = Document::parse(text).links;
        let expected = [("b.md", 1), ("d.png", 1), ("h.md", 2), ("l_(m).md", 6)];
        assert_eq!(links, expected.map(|(target, line)| (target.to_owned(), line)));
    }

    #[test]
    fn a_longer_fence_holds_a_shorter_one() {
        let text = "````\n```\n[a](b)\n````\n[c](d)";
        assert_eq!(Document::parse(text).links, [("d".to_owned(), 5)]);
    }

    #[test]
    fn headings_become_anchors() {
        let text = "# What it is\n## `ipop up` & down?\n## Twice\n## Twice\n#no\n## See [x](y)\n";
        let anchors = Document::parse(text).anchors;
        assert_eq!(anchors, ["what-it-is", "ipop-up--down", "twice", "twice-1", "see-x"]);
    }

    #[test]
    fn code_spans_are_told_with_their_lines() {
        let spans = Document::parse("a `b/c.rs` and\n``d ` e``").code_spans;
        assert_eq!(spans, [("b/c.rs".to_owned(), 1), ("d ` e".to_owned(), 2)]);
    }
}
