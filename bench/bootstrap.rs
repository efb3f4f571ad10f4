//! Real packages: a hundred derivations from Debian's packages and sources to programs that ran
//! (`integration/bootstrap/`). Each round begins with empty stores, and with a daemon that has the
//! agent and nothing else.

use std::path::Path;

use pontoon::engine::Shape as Isolation;

use super::daemon::Daemon;
use super::row::{Bar, Row};
use super::side::{Place, Side, Task, jobs, remove, script, timed};

/// Who builds.
#[derive(Clone, Copy)]
enum Builder {
    Embedded,
    Nix,
    Strong,
    Plain,
}

const ALL: [Builder; 4] = [
    Builder::Embedded,
    Builder::Nix,
    Builder::Strong,
    Builder::Plain,
];

/// All rows: so many rounds.
pub fn rows(place: &Place, rounds: usize) -> Vec<Row> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/integration/bootstrap");
    let seed = script("bootstrap/seed.sh", &[]);
    let text = format!("(import {source} {{ seed = {seed}; }}).all\n");
    let file = place.write("bootstrap", &text);
    let row = |name, beside, most| Row::new(format!("bootstrap, {name}"), beside, Bar::Ratio(most));
    let mut embedded = row("embedded", "nix-build", 1.0);
    let mut strong = row("strong", "embedded", 1.05);
    let mut plain = row("plain", "embedded", 1.15);
    for round in 0..rounds {
        let mut order = ALL;
        if round % 2 == 1 {
            order.reverse();
        }
        for builder in order {
            let took = build(place, &file, builder);
            match builder {
                Builder::Embedded => {
                    embedded.side(Side::Pontoon).push(took);
                    strong.side(Side::Other).push(took);
                    plain.side(Side::Other).push(took);
                }
                Builder::Nix => embedded.side(Side::Other).push(took),
                Builder::Strong => strong.side(Side::Pontoon).push(took),
                Builder::Plain => plain.side(Side::Pontoon).push(took),
            }
        }
        eprintln!("bootstrap: round {} of {rounds}", round + 1);
    }
    vec![embedded, strong, plain]
}

fn build(place: &Place, file: &Path, builder: Builder) -> f64 {
    let shape = match builder {
        Builder::Embedded => return on_this_machine(place, file, Side::Pontoon),
        Builder::Nix => return on_this_machine(place, file, Side::Other),
        Builder::Strong => Isolation::Strong,
        Builder::Plain => Isolation::Plain,
    };
    let daemon = Daemon::start(place, shape);
    let delivered = place.dir.join("delivered");
    place.deliver(&daemon, &delivered);
    remove(&delivered);
    // A strong daemon's store is a directory of this machine, where `nix` evaluates right away.
    let store = match shape {
        Isolation::Strong => daemon.directory.clone(),
        Isolation::Plain => place.dir.join("store"),
    };
    let mut command = daemon.build(place, &store, jobs());
    command.arg("-f").arg(file);
    let took = timed(command);
    if shape == Isolation::Plain {
        remove(&store);
    }
    took
}

fn on_this_machine(place: &Place, file: &Path, side: Side) -> f64 {
    let store = place.dir.join("store");
    let took = place.time(side, Task::File(file), &store);
    remove(&store);
    took
}
