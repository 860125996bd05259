//! Every rule, on the tree as it is.

use std::sync::LazyLock;

use ipop_tidy::{Finding, Tree, rules};

static TREE: LazyLock<Tree> = LazyLock::new(|| Tree::read().expect("the tree can be read"));

fn hold(check: fn(&Tree) -> Vec<Finding>) {
    assert!(TREE.crates.len() > 10, "the tree was not found");
    let findings = check(&TREE);
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "{} findings:\n{}", lines.len(), lines.join("\n"));
}

#[test]
fn crates_import_what_their_layer_allows() {
    hold(rules::layering::check);
}

#[test]
fn pure_crates_do_nothing_by_themselves() {
    hold(rules::purity::check);
}

#[test]
fn unsafe_is_where_it_may_be_and_says_why() {
    hold(rules::unsafety::check);
}

#[test]
fn files_functions_and_lines_are_short() {
    hold(rules::size::check);
}

#[test]
fn nothing_is_left_half_done() {
    hold(rules::leftovers::check);
}

#[test]
fn crates_open_with_their_design() {
    hold(rules::headers::check);
}

#[test]
fn documents_point_at_what_is_there() {
    hold(rules::links::check);
}
