//! A graph of nixpkgs' shape, planned where it lies, with nothing valid.

use super::nixpkgs;
use super::row::{Bar, Row};
use super::side::{Place, Task, remove, sides};

const NIX: &str = "nix-store --dry-run";

/// All rows: so many derivations, so many rounds.
pub fn rows(place: &Place, nodes: usize, rounds: usize) -> Vec<Row> {
    let mut planned = Row::new(format!("plan of {nodes}"), NIX, Bar::Ratio(0.1));
    let name = format!("plan of {nodes}, MB of memory");
    let mut memory = Row::new(name, NIX, Bar::Ratio(1.0));
    let store = place.dir.join("graph");
    eprintln!("graph: making it");
    let graph = nixpkgs::make(&store, nodes, &mut place.load(&store));
    eprintln!("graph: {:?}", graph.facts);
    let plan = Task::Plan(&graph.roots);
    for round in 0..rounds {
        for side in sides(round) {
            planned.side(side).push(place.time(side, plan, &store));
            memory.side(side).push(place.memory(side, plan, &store));
        }
        eprintln!("graph: round {} of {rounds}", round + 1);
    }
    remove(&store);
    vec![planned, memory]
}
