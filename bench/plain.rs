//! A daemon that grants nothing: our ops beside bare ones, and what the agent costs once.

use pontoon::engine::Shape as Isolation;

use super::daemon::Daemon;
use super::expression::{Shape, with_tools};
use super::row::{Bar, Row};
use super::side::{PONTOON, Place, Side, sides, timed};

/// How many ops run at once, row by row.
const AT_ONCE: [usize; 2] = [2, 4];

/// All rows: so many derivations, so many rounds.
pub fn rows(place: &Place, size: usize, rounds: usize) -> Vec<Row> {
    let mut rows = delivery(place, rounds);
    rows.extend(ops(place, size, rounds));
    rows
}

/// What a daemon gets once: the agent, with the first build, beside the one after it.
fn delivery(place: &Place, rounds: usize) -> Vec<Row> {
    let mut size = Row::new("agent, MB", "", Bar::None);
    let bytes = fs_err::metadata(PONTOON).expect("it is there").len();
    let kilobytes = u32::try_from(bytes >> 10).expect("below 4 TB");
    size.side(Side::Pontoon).push(f64::from(kilobytes) / 1024.0);
    let name = "first build on a daemon, plain";
    let mut first = Row::new(name, "the next one", Bar::None);
    for round in 0..rounds {
        let daemon = Daemon::start(place, Isolation::Plain);
        let store = place.dir.join("store");
        for side in [Side::Pontoon, Side::Other] {
            let which = if side == Side::Pontoon {
                "first"
            } else {
                "next"
            };
            let text = Shape::Wide.expression(1, &format!("{which}-{round}"));
            let file = place.write(which, &with_tools(&text, &place.tools()));
            let drv = place.instantiate(&file, &store);
            let mut command = daemon.build(place, &store, 1);
            command.arg(drv);
            first.side(side).push(timed(command));
        }
        super::side::remove(&store);
        eprintln!("first build: round {} of {rounds}", round + 1);
    }
    vec![size, first]
}

/// Builds beside bare ops on the same daemon, and builds of what is there beside one bare op.
fn ops(place: &Place, size: usize, rounds: usize) -> Vec<Row> {
    let daemon = Daemon::start(place, Isolation::Plain);
    let store = place.dir.join("store");
    place.deliver(&daemon, &store);
    let needs = place.add(&place.tools(), &store);
    let mut rows = Vec::new();
    for at_once in AT_ONCE {
        let name = format!("plain, {size} to build, {at_once} at once");
        let mut built = Row::new(name, "bare ops", Bar::Ratio(1.3));
        let name = format!("plain, {size} valid, {at_once} at once");
        let mut valid = Row::new(name, "one bare op", Bar::Most(150.0));
        for round in 0..rounds {
            let tag = format!("{at_once}-{round}");
            let text = Shape::Wide.expression(size, &tag);
            let file = place.write("plain", &with_tools(&text, &place.tools()));
            let drv = place.instantiate(&file, &store);
            for side in sides(round) {
                let (first, again) = if side == Side::Pontoon {
                    let run = || {
                        let mut command = daemon.build(place, &store, at_once);
                        command.arg(&drv);
                        timed(command)
                    };
                    (run(), run())
                } else {
                    let many = daemon.bare(size, at_once, &needs, &format!("many-{tag}"));
                    let one = daemon.bare(1, 1, &needs, &format!("one-{tag}"));
                    // Not on the clock: ours are not to find a cache that the others have filled. What
                    // ours left, ours remove, on theirs, from a thousand records on.
                    daemon.clear();
                    (many, one)
                };
                built.side(side).push(first);
                valid.side(side).push(again);
            }
            eprintln!("plain, {at_once} at once: round {} of {rounds}", round + 1);
        }
        rows.extend([built, valid]);
    }
    drop(daemon);
    super::side::remove(&store);
    rows
}
