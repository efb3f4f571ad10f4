//! Trivial derivations on the embedded engine, beside Nix with its sandbox.

use super::expression::Shape;
use super::row::{Bar, Row};
use super::side::{Place, Task, remove, sides};

const NIX: &str = "nix-store --realise";

/// All rows: so many derivations, so many rounds.
pub fn rows(place: &Place, size: usize, rounds: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    for shape in [Shape::Wide, Shape::Chain] {
        rows.extend(build(place, shape, size, rounds));
    }
    rows.push(evaluate_and_build(place, size, rounds));
    rows
}

/// Derivations that are in the store already, so that nobody evaluates: all to build, then all
/// valid.
fn build(place: &Place, shape: Shape, size: usize, rounds: usize) -> [Row; 2] {
    let name = shape.name();
    let mut built = Row::new(format!("{name}, {size} to build"), NIX, Bar::Ratio(0.5));
    let mut valid = Row::new(format!("{name}, {size} valid"), NIX, Bar::Ratio(1.0));
    for round in 0..rounds {
        let file = place.write(name, &shape.expression(size, &round.to_string()));
        for side in sides(round) {
            let store = place.dir.join("store");
            let drv = place.instantiate(&file, &store);
            let task = Task::Derivation(&drv);
            built.side(side).push(place.time(side, task, &store));
            valid.side(side).push(place.time(side, task, &store));
            remove(&store);
        }
        eprintln!("{name}: round {} of {rounds}", round + 1);
    }
    [built, valid]
}

/// From an expression, into an empty store.
fn evaluate_and_build(place: &Place, size: usize, rounds: usize) -> Row {
    let name = format!("wide, {size} to evaluate and build");
    let mut row = Row::new(name, "nix-build", Bar::Ratio(0.5));
    for round in 0..rounds {
        let text = Shape::Wide.expression(size, &format!("evaluated-{round}"));
        let file = place.write("evaluated", &text);
        for side in sides(round) {
            let store = place.dir.join("store");
            row.side(side)
                .push(place.time(side, Task::File(&file), &store));
            remove(&store);
        }
        eprintln!("evaluation: round {} of {rounds}", round + 1);
    }
    row
}
