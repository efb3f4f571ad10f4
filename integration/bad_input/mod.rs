//! `docs/bad-input.md`, row by row: each thing that can be wrong is made wrong, and what Pontoon says
//! and does is what the table says. Afterwards real Nix verifies the store, unless the row hands
//! over one that Nix itself refuses, which must be as it was; and no process is left.

mod daemons;
mod derivations;
mod evaluation;
mod machine;
mod old_daemon;
mod scene;
mod sizes;
mod stores;
mod terminals;
mod tunnel;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use scene::Scene;

use super::support::{Place, Ran};

/// What a case does to a scene, and what came of it.
type Case = fn(&Scene<'_>) -> Ran;

/// A row of the table.
struct Row {
    code: i32,
    /// What standard error says, in this order.
    says: Vec<String>,
}

/// The rows below a heading, by their first column.
fn rows(heading: &str) -> BTreeMap<String, Row> {
    let page = include_str!("../../docs/bad-input.md");
    let heading = format!("## {heading}");
    page.lines()
        .skip_while(|line| *line != heading)
        .skip(1)
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"))
        .filter_map(|line| {
            let mut cells = line.split(" | ");
            let (what, code, says) = (cells.next()?, cells.next()?, cells.next()?);
            let code = code.parse().ok()?;
            let quoted = says.split('`').skip(1).step_by(2);
            let says = quoted
                .flat_map(|text| text.split('…'))
                .map(|text| text.trim().to_owned());
            let says = says.filter(|text| !text.is_empty()).collect();
            Some((what.to_owned(), Row { code, says }))
        })
        .collect()
}

/// Walks the rows below a heading; says all that is wrong, not the first thing alone.
fn walk(heading: &str, cases: &[(&str, Case)]) {
    let rows = rows(heading);
    let told: Vec<&String> = rows.keys().collect();
    let mut known: Vec<&str> = cases.iter().map(|(what, _)| *what).collect();
    known.sort_unstable();
    assert_eq!(told, known, "the table and the cases of `{heading}`");
    let failed: Vec<&str> = cases
        .iter()
        .filter(|(what, case)| {
            let row = &rows[*what];
            catch_unwind(AssertUnwindSafe(|| check(row, *case))).is_err()
        })
        .map(|(what, _)| *what)
        .collect();
    assert!(failed.is_empty(), "not as the table says: {failed:#?}");
}

fn check(row: &Row, case: Case) {
    let place = Place::new();
    let scene = Scene::new(&place);
    let ran = case(&scene).code(row.code);
    let mut rest = ran.stderr.as_str();
    for text in &row.says {
        let at = rest.find(text.as_str());
        let at = at.unwrap_or_else(|| panic!("expected `{text}` on stderr\n{}", ran.report()));
        rest = &rest[at + text.len()..];
    }
    assert!(!ran.stderr.contains("panicked"), "{}", ran.report());
    scene.settle();
    place.assert_no_process_left(Duration::from_secs(5));
}

#[test]
fn nix_and_evaluation() {
    walk("Nix and evaluation", evaluation::CASES);
}

#[test]
fn derivations_and_outputs() {
    walk("Derivations and outputs", derivations::CASES);
}

#[test]
fn the_store() {
    walk("The store", stores::CASES);
}

#[test]
fn the_machine() {
    walk("The machine", machine::CASES);
}

#[test]
fn sizes() {
    walk("Sizes", sizes::CASES);
}

#[test]
fn the_terminal() {
    walk("The terminal", terminals::CASES);
}

#[test]
fn the_tunnel() {
    walk("The tunnel", tunnel::CASES);
}

#[test]
fn the_daemon() {
    walk("The daemon", daemons::CASES);
}
