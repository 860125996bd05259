//! The part of a `Cargo.toml` that layering is about.

/// One dependency of the product: what is declared for tests or build scripts is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// The package, not the name it was given here.
    pub package: String,
    /// The line of the manifest.
    pub line: usize,
}

/// What a crate's manifest says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The package's name.
    pub name: String,
    /// What the product is built from; build scripts included, tests not.
    pub dependencies: Vec<Dependency>,
    /// Does the crate take the workspace's lints?
    pub has_workspace_lints: bool,
    /// Lines in a table of dependencies that this reader does not understand.
    pub unread: Vec<usize>,
}

impl Manifest {
    /// Reads a manifest, one entry a line; what a table of dependencies holds besides is `unread`.
    pub fn parse(text: &str) -> Self {
        let mut manifest = Self::default();
        let mut section = String::new();
        for (at, line) in text.lines().enumerate() {
            let line = without_comment(line).trim();
            if let Some(header) = line.strip_prefix('[') {
                section = header.trim_matches(['[', ']']).trim().to_owned();
                manifest.open(&section, at + 1);
            } else if !line.is_empty() {
                manifest.entry(&section, line, at + 1);
            }
        }
        manifest
    }

    /// A section may itself be a dependency: `[dependencies.tokio]`.
    fn open(&mut self, section: &str, line: usize) {
        if let Some((table, package)) = section.rsplit_once('.')
            && is_product_table(table)
        {
            self.dependencies.push(Dependency { package: unquoted(package), line });
        }
    }

    fn entry(&mut self, section: &str, text: &str, line: usize) {
        let key = text.split(['=', '.', ' ']).next().unwrap_or_default();
        let value = text.split_once('=').map_or("", |(_, value)| value.trim());
        match section {
            "package" if key == "name" => self.name = unquoted(value),
            "lints" if text.replace(' ', "") == "workspace=true" => self.has_workspace_lints = true,
            table if is_product_table(table) => match package(key, value) {
                Some(package) => self.dependencies.push(Dependency { package, line }),
                None => self.unread.push(line),
            },
            table if is_one_dependency(table) && key == "package" => {
                if let Some(last) = self.dependencies.last_mut() {
                    last.package = unquoted(value);
                }
            }
            _ => {}
        }
    }
}

/// `[dependencies]`, `[build-dependencies]`, and both under `[target.'..']`.
fn is_product_table(section: &str) -> bool {
    let last = section.rsplit('.').next().unwrap_or_default();
    let is_table = matches!(last, "dependencies" | "build-dependencies");
    is_table && (section == last || section.starts_with("target."))
}

fn is_one_dependency(section: &str) -> bool {
    section.rsplit_once('.').is_some_and(|(table, _)| is_product_table(table))
}

/// The package that an entry means; nothing if it goes on in the next line.
fn package(key: &str, value: &str) -> Option<String> {
    let is_name = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || "-_\"".contains(c));
    let count = |c: char| value.matches(c).count();
    if !is_name || count('{') != count('}') || count('[') != count(']') {
        return None;
    }
    let renamed = value.split(['{', ',']).map(str::trim).find_map(|field| {
        let (name, package) = field.split_once('=')?;
        (name.trim() == "package").then(|| unquoted(package.trim().trim_end_matches('}').trim()))
    });
    Some(renamed.unwrap_or_else(|| unquoted(key)))
}

fn unquoted(text: &str) -> String {
    text.trim().trim_matches(['"', '\'']).to_owned()
}

fn without_comment(line: &str) -> &str {
    let mut quoted = false;
    for (at, c) in line.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '#' if !quoted => return &line[..at],
            _ => {}
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages(text: &str) -> Vec<String> {
        Manifest::parse(text).dependencies.into_iter().map(|one| one.package).collect()
    }

    #[test]
    fn names_lints_and_dependencies_are_read() {
        let text = "[package]\nname = \"a\"\n[lints]\nworkspace = true\n[dependencies]\n\
                    b.workspace = true\nc = \"1\" # d = \"2\"\ne = { version = \"1\", \
                    features = [\"x\"] }\n";
        let manifest = Manifest::parse(text);
        assert_eq!(manifest.name, "a");
        assert!(manifest.has_workspace_lints && manifest.unread.is_empty());
        assert_eq!(packages(text), ["b", "c", "e"]);
        assert_eq!(manifest.dependencies[0].line, 6);
    }

    #[test]
    fn tests_may_use_what_they_like() {
        assert_eq!(
            packages("[dev-dependencies]\na = \"1\"\n[dev-dependencies.b]\nversion = \"1\""),
            [""; 0]
        );
        assert_eq!(packages("[target.'cfg(unix)'.dev-dependencies]\na = \"1\""), [""; 0]);
    }

    #[test]
    fn no_way_around_the_table() {
        assert_eq!(packages("[target.'cfg(unix)'.dependencies]\na = \"1\""), ["a"]);
        assert_eq!(packages("[build-dependencies]\na = \"1\""), ["a"]);
        assert_eq!(packages("[dependencies.a]\nversion = \"1\""), ["a"]);
        assert_eq!(packages("[dependencies.a]\npackage = \"b\""), ["b"]);
        assert_eq!(packages("[dependencies]\na = { version = \"1\", package = \"b\" }"), ["b"]);
        assert_eq!(packages("[dependencies]\na = { package = \"b\", version = \"1\" }"), ["b"]);
        assert_eq!(packages("[ dependencies ]\na = \"1\""), ["a"]);
    }

    #[test]
    fn what_is_not_understood_is_said() {
        let manifest =
            Manifest::parse("[dependencies]\na = { version = \"1\", features = [\n\"x\"] }");
        assert_eq!(manifest.unread, [2, 3]);
    }
}
