//! One page with everything in it: no script, no font and no picture from elsewhere. It is
//! well-formed XML too.

use std::fmt::Write as _;

use super::plot::plot;
use super::table::cell;
use super::{GROUPS, shown};
use crate::figures::Figure;
use crate::record::Record;

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --quiet: #6a737d;
  --line: #d8dee4; --ours: #0a7d5a; --rival: #8496b0; --reference: #c9ced6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --paper: #15181c; --quiet: #9aa4af;
  --line: #333a42; --ours: #2fbf8f; --rival: #5b6f8f; --reference: #444c56; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
p, figcaption span { color: var(--quiet); } figcaption { font-weight: 600; }
figcaption span { font-weight: 400; } figure { margin: 1.2rem 0; }
svg { width: 100%; height: auto; }
svg text { font-size: 12px; fill: var(--ink); } svg .name { text-anchor: end; }
svg .ours { fill: var(--ours); } svg .rival { fill: var(--rival); }
svg .reference { fill: var(--reference); }
svg line { stroke: var(--ink); stroke-width: 1; } svg circle { fill: var(--ink); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .7rem; border-bottom: 1px solid var(--line); }
td:not(:first-child) { white-space: nowrap; } td.words { white-space: normal; }
";

/// The whole page.
pub(super) fn page(record: &Record) -> String {
    let mut text = format!(
        "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\">\n\
         <head><meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>Overlay networks, side by side</title>\n<style>{STYLE}</style></head>\n<body>\n\
         <h1>Overlay networks, side by side</h1>\n<p>{}. Both ends and the traffic programs share \
         the machine. {} s each; bars are medians, dots single runs. All systems took turns in the \
         same namespaces.</p>\n",
        escape(&record.machine.text()),
        record.seconds
    );
    for underlay in record.underlays() {
        section(&mut text, record, underlay);
    }
    versions(&mut text, record);
    failures(&mut text, record);
    text.push_str("</body>\n</html>\n");
    text
}

/// Text that stands for itself.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // No control characters in XML, but these.
            '\t' | '\n' => escaped.push(' '),
            letter if letter.is_control() => {}
            letter => escaped.push(letter),
        }
    }
    escaped
}

fn section(text: &mut String, record: &Record, underlay: &str) {
    let _ = writeln!(text, "<h2>Underlay: {}</h2>", escape(underlay));
    for (title, figures) in GROUPS {
        let figures = shown(record, underlay, figures);
        if figures.is_empty() {
            continue;
        }
        let _ = writeln!(text, "<h3>{title}</h3>");
        for figure in &figures {
            text.push_str(&plot(record, underlay, **figure).unwrap_or_default());
        }
        numbers(text, record, underlay, &figures);
    }
}

fn numbers(text: &mut String, record: &Record, underlay: &str, figures: &[&Figure]) {
    text.push_str("<div class=\"wide\"><table><tr><th>system</th>");
    for figure in figures {
        let _ = write!(text, "<th>{}, {}</th>", figure.title(), figure.unit());
    }
    text.push_str("</tr>\n");
    for system in &record.systems {
        let _ = write!(text, "<tr><td>{}</td>", escape(&system.name));
        for figure in figures {
            let _ = write!(text, "<td>{}</td>", cell(record, underlay, &system.name, **figure));
        }
        text.push_str("</tr>\n");
    }
    text.push_str("</table></div>\n");
}

fn versions(text: &mut String, record: &Record) {
    text.push_str(
        "<h2>Versions</h2>\n<table><tr><th>system</th><th>encrypted</th><th>version</th></tr>\n",
    );
    for system in &record.systems {
        let encrypted = if system.plain { "no" } else { "yes" };
        let _ = writeln!(
            text,
            "<tr><td>{}</td><td>{encrypted}</td><td class=\"words\">{}</td></tr>",
            escape(&system.name),
            escape(&system.version)
        );
    }
    text.push_str("</table>\n");
}

fn failures(text: &mut String, record: &Record) {
    if record.failures.is_empty() {
        return;
    }
    text.push_str(
        "<h2>Failed or not measured</h2>\n<table><tr><th>system</th><th>underlay</th>\
         <th>what</th><th>times</th><th>why</th></tr>\n",
    );
    for failure in &record.failures {
        let _ = writeln!(
            text,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"words\">{}</td></tr>",
            escape(&failure.system),
            escape(failure.underlay.as_deref().unwrap_or("all")),
            escape(&failure.what),
            failure.times,
            escape(&failure.reason)
        );
    }
    text.push_str("</table>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::example;

    /// Names of elements that are open at the end: none in a page that is well-formed.
    fn open_elements(page: &str) -> Vec<String> {
        let mut open = Vec::new();
        for part in page.split('<').skip(1) {
            let (tag, _) = part.split_once('>').unwrap();
            let name = |tag: &str| tag.split([' ', '\n']).next().unwrap().to_owned();
            if let Some(closed) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name(closed)));
            } else if !tag.ends_with('/') && !tag.starts_with('!') {
                open.push(name(tag));
            }
        }
        open
    }

    #[test]
    fn the_page_is_well_formed_and_stands_alone() {
        let page = page(&example());
        assert_eq!(open_elements(&page), [""; 0]);
        for word in ["<script", "src=", "href=", "url("] {
            assert!(!page.contains(word), "{word}");
        }
    }

    #[test]
    fn all_that_was_measured_is_in_the_page() {
        let page = page(&example());
        for words in [
            "Underlay: default",
            "Underlay: jumbo",
            "20.0 (18.0–21.0)",
            "&lt;rival&gt; &amp; 1.0",
            "no packet was answered",
        ] {
            assert!(page.contains(words), "{words}");
        }
    }

    #[test]
    fn text_cannot_break_the_page() {
        assert_eq!(escape("a<b>&\"c\"\u{1b}[0m\n"), "a&lt;b&gt;&amp;&quot;c&quot;[0m ");
    }
}
