//! A runner that has nothing yet, and a daemon whose store has all of it: what the runner fetches,
//! beside Nix on the runner and a store to copy from.

use std::path::Path;
use std::process::Command;

use fs_err as fs;
use pontoon::engine::Shape as Isolation;

use super::daemon::Daemon;
use super::row::{Bar, Row};
use super::side::{Place, Side, Task, remove, timed};

/// How much is built.
const MEGABYTES: usize = 20;

/// The row: megabytes in the runner's store that it neither wrote nor evaluated.
pub fn row(place: &Place) -> Row {
    let name = format!("{MEGABYTES} MB built, MB fetched");
    let mut row = Row::new(name, "nix copy", Bar::Most(0.0));
    let text = format!(
        "derivation {{ name = \"large\"; system = \"x86_64-linux\"; \
         builder = \"${{{tools}}}/bin/sh\"; \
         args = [ \"-c\" \"${{{tools}}}/bin/head -c {size} /dev/zero > $out\" ]; }}\n",
        tools = place.tools().display(),
        size = MEGABYTES << 20
    );
    let file = place.write("large", &text);
    let (warm, fresh) = (place.dir.join("warm"), place.dir.join("fresh"));
    let daemon = Daemon::start(place, Isolation::Plain);
    for store in [&warm, &fresh] {
        let mut command = daemon.build(place, store, 1);
        command.arg("-f").arg(&file);
        timed(command);
    }
    row.side(Side::Pontoon).push(fetched(&fresh));
    remove(&fresh);
    place.time(Side::Other, Task::File(&file), &warm);
    let mut command = Command::new("nix-store");
    command.args(["--query", "--outputs", "--store"]).arg(&warm);
    command.arg(place.instantiate(&file, &warm));
    let output = place.said(command);
    let mut command = Command::new("nix");
    command.args(["copy", "--no-check-sigs", &output]);
    command.arg("--from").arg(&warm).arg("--to").arg(&fresh);
    place.said(command);
    row.side(Side::Other).push(fetched(&fresh));
    remove(&warm);
    remove(&fresh);
    row
}

/// Megabytes of outputs in a store: neither derivations nor the tools, which are a source.
fn fetched(store: &Path) -> f64 {
    let entries = fs::read_dir(store.join("nix/store")).expect("the store is there");
    let outputs = entries.flatten().filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        !name.ends_with(".drv") && !name.ends_with("-tools") && !name.starts_with('.')
    });
    let bytes: u64 = outputs
        .map(|output| output.metadata().expect("it is there").len())
        .sum();
    let kilobytes = u32::try_from(bytes >> 10).expect("below 4 TB");
    f64::from(kilobytes) / 1024.0
}
