//! Crates import what their row in `layers.rs` allows, use what they import, and take the
//! workspace's lints.

use std::collections::HashSet;

use crate::layers::{Kind, LAYERS, Layer, layer_of};
use crate::{Crate, Finding, Manifest, Role, Tree};

const RULE: &str = "layering";

/// Checks every manifest against the table.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for one in &tree.crates {
        let path = one.manifest_path();
        match layer_of(&one.folder) {
            Some(layer) => {
                findings.extend(check_manifest(&path, &one.manifest, layer));
                findings.extend(check_use(&path, one));
            }
            None => findings.push(Finding::new(
                &path,
                1,
                RULE,
                format!("{} has no row in layers.rs; say there what it may import", one.folder),
            )),
        }
    }
    let gone = LAYERS.iter().filter(|layer| !tree.has(layer.folder));
    findings.extend(gone.map(|layer| {
        let advice = format!("{} is gone; take its row away", layer.folder);
        Finding::new("tests/tidy/src/layers.rs", 1, RULE, advice)
    }));
    findings
}

/// Checks one manifest against its row.
pub fn check_manifest(path: &str, manifest: &Manifest, layer: &Layer) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |line, advice| findings.push(Finding::new(path, line, RULE, advice));
    if manifest.name != layer.package {
        add(1, format!("the package is {}, layers.rs says {}", manifest.name, layer.package));
    }
    if !manifest.has_workspace_lints {
        add(1, "take the workspace's lints: [lints] workspace = true".to_owned());
    }
    for line in &manifest.unread {
        add(*line, "write each dependency on one line, so that it can be checked".to_owned());
    }
    for one in &manifest.dependencies {
        let name = one.package.as_str();
        if !layer.inner.contains(&name) && !layer.outer.contains(&name) {
            let advice = format!(
                "{} may not import {name}; move the code to where it may, or change the row in \
                 tests/tidy/src/layers.rs and say why",
                layer.package
            );
            add(one.line, advice);
        }
    }
    findings
}

/// A dependency that no line names is a hole in the wall for nothing. Tools are tests themselves.
fn check_use(path: &str, one: &Crate) -> Vec<Finding> {
    let is_tool = layer_of(&one.folder).is_some_and(|layer| layer.kind == Kind::Tool);
    let mut words = HashSet::new();
    for file in one.files.iter().filter(|file| is_tool || file.role == Role::Product) {
        words.extend(file.source.tokens().iter().map(|token| token.text.to_owned()));
    }
    let unused = |name: &str| !words.contains(&name.replace('-', "_"));
    let dependencies = one.manifest.dependencies.iter();
    dependencies
        .filter(|dependency| unused(&dependency.package))
        .map(|dependency| {
            let advice = format!("no code uses {}; remove it", dependency.package);
            Finding::new(path, dependency.line, RULE, advice)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "[package]\nname = \"ipop-ice\"\n[lints]\nworkspace = true\n";

    fn lines(rest: &str) -> Vec<usize> {
        let manifest = Manifest::parse(&format!("{HEAD}{rest}"));
        let layer = layer_of("datapath/ice").unwrap();
        check_manifest("c", &manifest, layer).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn what_the_row_allows_passes() {
        assert_eq!(lines("[dependencies]\nipop-stun.workspace = true\nthiserror = \"2\""), []);
        assert_eq!(lines("[dev-dependencies]\ntokio = \"1\""), []);
    }

    #[test]
    fn what_the_row_does_not_name_is_found() {
        assert_eq!(lines("[dependencies]\nipop-xmpp.workspace = true"), [6]);
        assert_eq!(
            lines("[dependencies]\nthiserror = { package = \"tokio\", version = \"1\" }"),
            [6]
        );
        assert_eq!(lines("[target.'cfg(unix)'.dependencies]\nlibc = \"1\""), [6]);
    }

    #[test]
    fn lints_and_names_are_checked() {
        let manifest = Manifest::parse("[package]\nname = \"x\"");
        let findings = check_manifest("c", &manifest, layer_of("datapath/ice").unwrap());
        assert_eq!(findings.len(), 2);
    }
}
