//! The tree on disk: its crates, their files, and its documents.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::{Manifest, Source, scope};

/// What a Rust file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It is built into what users run.
    Product,
    /// It is a test, an example or a benchmark.
    Test,
}

/// A Rust file of a crate.
#[derive(Debug)]
pub struct RustFile {
    /// From the root of the tree.
    pub path: String,
    /// What it is for.
    pub role: Role,
    /// What is in it.
    pub source: Source,
}

/// A crate of the workspace.
#[derive(Debug)]
pub struct Crate {
    /// Its folder, from the root of the tree.
    pub folder: String,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its Rust files.
    pub files: Vec<RustFile>,
}

impl Crate {
    /// The path of its manifest.
    pub fn manifest_path(&self) -> String {
        format!("{}/Cargo.toml", self.folder)
    }

    /// The files that are built into what users run.
    pub fn product(&self) -> impl Iterator<Item = &RustFile> {
        self.files.iter().filter(|file| file.role == Role::Product)
    }

    /// The files in which crates begin: the library's, the program's, each binary's.
    pub fn roots(&self) -> impl Iterator<Item = &RustFile> {
        self.product().filter(|file| {
            let inner = file.path.strip_prefix(&format!("{}/src/", self.folder));
            inner.is_some_and(|inner| {
                matches!(inner, "lib.rs" | "main.rs") || inner.starts_with("bin/")
            })
        })
    }
}

/// The whole tree.
#[derive(Debug)]
pub struct Tree {
    /// All crates.
    pub crates: Vec<Crate>,
    /// All Markdown files with their text.
    pub documents: Vec<(String, String)>,
    root: PathBuf,
}

impl Tree {
    /// Reads the tree to which this crate belongs.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read() -> io::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
        let mut paths = Vec::new();
        collect(&root, &root, &mut paths)?;
        paths.sort();
        let text = |path: &str| fs::read_to_string(root.join(path));

        let mut crates = Vec::new();
        for path in &paths {
            let Some(folder) = path.strip_suffix("/Cargo.toml") else { continue };
            let inside = format!("{folder}/");
            let rust = paths.iter().filter(|p| p.starts_with(&inside) && p.ends_with(".rs"));
            let sources: io::Result<Vec<_>> =
                rust.map(|p| Ok((p.clone(), Source::new(&text(p)?)))).collect();
            let files = with_roles(folder, sources?);
            let manifest = Manifest::parse(&text(path)?);
            crates.push(Crate { folder: folder.to_owned(), manifest, files });
        }
        let markdown = paths.iter().filter(|path| path.ends_with(".md"));
        let documents: io::Result<_> =
            markdown.map(|path| Ok((path.clone(), text(path)?))).collect();
        Ok(Self { crates, documents: documents?, root })
    }

    /// Is there a file or folder at this path from the root?
    pub fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }
}

fn collect(root: &Path, folder: &Path, paths: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (name, path) = (entry.file_name(), entry.path());
        let name = name.to_string_lossy();
        let kind = entry.file_type()?;
        if kind.is_dir() && name != "target" && !name.starts_with('.') {
            collect(root, &path, paths)?;
        } else if kind.is_file() && ["rs", "md", "toml"].iter().any(|e| has_extension(&path, e)) {
            let inner = path.strip_prefix(root).map_err(io::Error::other)?;
            paths.push(inner.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|own| own == extension)
}

/// Tests are what lies under `src` in modules declared for tests, and all that lies elsewhere but
/// a build script.
fn with_roles(folder: &str, sources: Vec<(String, Source)>) -> Vec<RustFile> {
    let test_modules: Vec<String> = sources
        .iter()
        .flat_map(|(path, source)| {
            let folder = module_folder(path);
            let names = scope::test_modules(&source.tokens());
            names.into_iter().map(|name| format!("{folder}/{name}")).collect::<Vec<_>>()
        })
        .collect();
    let is_test = |path: &str| {
        let below = |module: &String| {
            let rest = path.strip_prefix(module.as_str());
            rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        };
        let built = path.starts_with(&format!("{folder}/src/"))
            || path.strip_prefix(folder) == Some("/build.rs");
        !built || test_modules.iter().any(below)
    };
    sources
        .into_iter()
        .map(|(path, source)| {
            let role = if is_test(&path) { Role::Test } else { Role::Product };
            RustFile { path, role, source }
        })
        .collect()
}

/// Where the modules declared in a file lie: `a/b.rs` has them in `a/b`, `a/lib.rs` in `a`.
fn module_folder(path: &str) -> String {
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    match stem.rsplit_once('/') {
        Some((folder, "lib" | "main" | "mod")) => folder.to_owned(),
        _ => stem.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles(files: &[(&str, &str)]) -> Vec<Role> {
        let sources = files.iter().map(|(path, text)| ((*path).to_owned(), Source::new(text)));
        with_roles("a", sources.collect()).into_iter().map(|file| file.role).collect()
    }

    #[test]
    fn tests_are_known_by_place_and_by_declaration() {
        let files = [
            ("a/src/lib.rs", "mod b;\n#[cfg(test)]\nmod models;"),
            ("a/src/b.rs", "#[cfg(test)]\nmod tests;"),
            ("a/src/b/tests.rs", ""),
            ("a/src/b/testsuite.rs", ""),
            ("a/src/models/deep.rs", ""),
            ("a/tests/t.rs", ""),
            ("a/examples/e.rs", ""),
            ("a/build.rs", ""),
        ];
        use Role::{Product, Test};
        assert_eq!(roles(&files), [Product, Product, Test, Product, Test, Test, Test, Product]);
    }
}
