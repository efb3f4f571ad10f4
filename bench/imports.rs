//! Many bytes, and many paths, into an empty store, beside `nix-store --import` of the same paths
//! on the same disk.
//!
//! Pontoon has no command for that alone. It reads the paths from a store of this machine, and each
//! row has in it what a run does besides: the source, a build that does not read it; the `.drv`
//! files, their plan, a build that fails, and the report of all that cannot be built then. On the
//! daemon the agent is there already. Nix reads one file.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fs_err as fs;
use pontoon::engine::Shape as Isolation;

use super::daemon::Daemon;
use super::nixpkgs;
use super::row::{Bar, Row};
use super::side::{PONTOON, Place, Side, jobs, remove, sides, timed, timed_to};

const NIX: &str = "nix-store --import";

/// What is brought from where.
struct Load {
    name: String,
    /// The store that has it.
    from: PathBuf,
    /// What we are told to build.
    drvs: Vec<String>,
    /// How the command ends.
    code: i32,
}

/// A large source that is no file of the builder's.
pub fn source(place: &Place, megabytes: usize, rounds: usize) -> Vec<Row> {
    let source = place.dir.join("source");
    write_source(&source, megabytes);
    let text = format!(
        "derivation {{ name = \"reads-nothing\"; system = \"x86_64-linux\"; large = {}; \
         builder = \"${{{}}}/bin/sh\"; args = [ \"-c\" \"echo > $out\" ]; }}\n",
        source.display(),
        place.tools().display()
    );
    let from = place.dir.join("from");
    let drv = place.instantiate(&place.write("import", &text), &from);
    remove(&source);
    let load = Load {
        name: format!("import of {megabytes} MB"),
        from,
        drvs: vec![drv],
        code: 0,
    };
    rows(place, &load, rounds)
}

/// A graph of nixpkgs' shape, whose first build fails.
pub fn derivations(place: &Place, count: usize, rounds: usize) -> Vec<Row> {
    let from = place.dir.join("from");
    let graph = nixpkgs::make(&from, count, &mut place.load(&from));
    let load = Load {
        name: format!("import of {count} .drv"),
        from,
        drvs: graph.roots,
        code: 100,
    };
    rows(place, &load, rounds)
}

fn rows(place: &Place, load: &Load, rounds: usize) -> Vec<Row> {
    let export = place.dir.join("export");
    dump(place, load, &export);
    let row = |engine| Row::new(format!("{}, {engine}", load.name), NIX, Bar::Ratio(1.5));
    let (mut embedded, mut plain) = (row("embedded"), row("plain"));
    let store = place.dir.join("store");
    for round in 0..rounds {
        for side in sides(round) {
            if side == Side::Pontoon {
                embedded
                    .side(side)
                    .push(on_this_machine(place, load, &store));
                remove(&store);
                plain.side(side).push(on_a_daemon(place, load));
            } else {
                let took = by_nix(place, &export, &store);
                remove(&store);
                embedded.side(side).push(took);
                plain.side(side).push(took);
            }
        }
        eprintln!("{}: round {} of {rounds}", load.name, round + 1);
    }
    remove(&load.from);
    fs::remove_file(export).expect("the directory is ours");
    vec![embedded, plain]
}

fn on_this_machine(place: &Place, load: &Load, store: &Path) -> f64 {
    let mut command = Command::new(PONTOON);
    command.args(["build", "--no-link", "--sandbox-paths", ""]);
    command.args(["-j", &jobs().to_string()]);
    command.arg("--eval-store").arg(&load.from);
    command.arg("--store").arg(store).args(&load.drvs);
    place.surround(&mut command);
    timed_to(command, load.code)
}

fn on_a_daemon(place: &Place, load: &Load) -> f64 {
    let daemon = Daemon::start(place, Isolation::Plain);
    let store = place.dir.join("delivered");
    place.deliver(&daemon, &store);
    remove(&store);
    let mut command = daemon.build(place, &load.from, jobs());
    command.args(&load.drvs);
    timed_to(command, load.code)
}

fn by_nix(place: &Place, export: &Path, store: &Path) -> f64 {
    let mut command = Command::new("nix-store");
    command.arg("--import").arg("--store").arg(store);
    place.surround(&mut command);
    let export = fs::File::open(export).expect("it was written");
    command.stdin(Stdio::from(export.into_file()));
    timed(command)
}

/// Files of a megabyte whose bytes nothing compresses or shares.
fn write_source(directory: &Path, megabytes: usize) {
    fs::create_dir_all(directory).expect("the directory is ours");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for number in 0..megabytes {
        let words = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        let bytes: Vec<u8> = words.take((1 << 20) / 8).flatten().collect();
        fs::write(directory.join(number.to_string()), bytes).expect("the directory is ours");
    }
}

/// Writes the closure of all that is to be built as `nix-store --import` reads it. One command of
/// Nix writes all of it, so its command line is longer than what is usual.
fn dump(place: &Place, load: &Load, file: &Path) {
    let script = "ulimit -s 32768; nix-store --store \"$0\" --query --requisites \"$@\" \
                  | xargs -x -s 5000000 nix-store --store \"$0\" --export";
    let mut command = Command::new("sh");
    command
        .args(["-ec", script])
        .arg(&load.from)
        .args(&load.drvs);
    place.surround(&mut command);
    let export = fs::File::create(file).expect("the directory is ours");
    command.stdout(Stdio::from(export.into_file()));
    assert!(command.status().expect("sh starts").success());
}
