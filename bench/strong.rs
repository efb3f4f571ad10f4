//! A daemon that grants what strong ops need, beside `nix-build` in one op of the same daemon.
//!
//! Nix has no sandbox there, which an op could not give it; ours have. To build, both evaluate, and begin
//! with the tools in their stores: ours is a device, Nix's a cache mount.

use pontoon::engine::Shape as Isolation;

use super::daemon::Daemon;
use super::expression::{Shape, with_tools};
use super::row::{Bar, Row};
use super::side::{Place, Side, jobs, sides, timed};

/// All rows: so many derivations, so many rounds.
pub fn rows(place: &Place, size: usize, rounds: usize) -> Vec<Row> {
    let daemon = Daemon::start(place, Isolation::Strong);
    let store = daemon.directory.clone();
    place.deliver(&daemon, &store);
    let needs = place.add(&place.tools(), &store);
    let text = Shape::Wide.expression(1, "first");
    let file = place.write("nix-first", &with_tools(&text, &place.tools()));
    daemon.nix_build(place, &file, "nix-first");
    let mut rows = Vec::new();
    for shape in [Shape::Wide, Shape::Chain] {
        let name = shape.name();
        let title = format!("strong, {name}, {size} to build");
        let mut built = Row::new(title, "nix-build in one op", Bar::Ratio(1.0));
        let title = format!("strong, {name}, {size} valid");
        let mut valid = Row::new(title, "one bare op", Bar::Most(150.0));
        for round in 0..rounds {
            let tag = format!("{name}-{round}");
            let text = shape.expression(size, &tag);
            let file = place.write("strong", &with_tools(&text, &place.tools()));
            for side in sides(round) {
                let (first, again) = if side == Side::Pontoon {
                    let mut command = daemon.build(place, &store, jobs());
                    command.arg("-f").arg(&file);
                    let first = timed(command);
                    let mut command = daemon.build(place, &store, jobs());
                    command.arg(place.instantiate(&file, &store));
                    (first, timed(command))
                } else {
                    let nix = daemon.nix_build(place, &file, &format!("nix-{tag}"));
                    (nix, daemon.bare(1, 1, &needs, &format!("one-{tag}")))
                };
                built.side(side).push(first);
                valid.side(side).push(again);
            }
            eprintln!("strong, {name}: round {} of {rounds}", round + 1);
        }
        rows.extend([built, valid]);
    }
    rows
}
