//! The rows of a `BuildKit` daemon, plain: our ops beside bare ones, and imports beside those of
//! `nix-store --import`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use fs_err as fs;

use super::daemon::Daemon;
use super::graph::Shape;
use super::side::{Place, Side, busybox};
use super::{Row, remove, sides};

/// How many ops run at once, row by row.
const AT_ONCE: [usize; 2] = [2, 4];

/// All rows: so many derivations, so many rounds, so many megabytes in the source.
pub fn rows(place: &Place, size: usize, rounds: usize, megabytes: usize) -> Vec<Row> {
    let tools = tools(place);
    let mut rows = ops(place, &tools, size, rounds);
    if megabytes > 0 {
        rows.extend(imports(place, &tools, megabytes, rounds));
    }
    rows
}

/// Builds beside bare ops on the same daemon, and builds of what is there beside one bare op.
fn ops(place: &Place, tools: &Path, size: usize, rounds: usize) -> Vec<Row> {
    let daemon = Daemon::start(place.dir.join("daemon"));
    let store = place.dir.join("store");
    let first = instantiate(place, tools, &store, 1, "delivery");
    let delivered = time(build(place, &daemon, &store, &first, 1));
    eprintln!("first build on a new daemon, with the agent's delivery: {delivered:.0} ms");
    let needs = needed(place, tools, &store);
    let mut rows = Vec::new();
    for at_once in AT_ONCE {
        let mut built = Row::new(format!("plain, {size} ops, {at_once} at once"));
        let mut valid = Row::new(format!("plain, {size} valid, {at_once} at once"));
        for round in 0..rounds {
            let tag = format!("{at_once}-{round}");
            let drv = instantiate(place, tools, &store, size, &tag);
            for side in sides(round) {
                if side == Side::Pontoon {
                    let again = || time(build(place, &daemon, &store, &drv, at_once));
                    built.side(side).push(again());
                    valid.side(side).push(again());
                } else {
                    let took = daemon.bare(size, at_once, &needs, &format!("many-{tag}"));
                    built.side(side).push(took);
                    let took = daemon.bare(1, 1, &needs, &format!("one-{tag}"));
                    valid.side(side).push(took);
                }
            }
            eprintln!("plain, {at_once} at once: round {} of {rounds}", round + 1);
        }
        rows.extend([built, valid]);
    }
    drop(daemon);
    remove(&place.dir.join("daemon"));
    remove(&store);
    rows
}

/// A large source into the store, to build something that reads nothing of it. The row has the
/// build in it, and on a daemon the delivery of the agent.
fn imports(place: &Place, tools: &Path, megabytes: usize, rounds: usize) -> Vec<Row> {
    let from = place.dir.join("from");
    let source = place.dir.join("source");
    write_source(&source, megabytes);
    let text = format!(
        "derivation {{ name = \"reads-nothing\"; system = \"x86_64-linux\"; large = {}; \
         builder = \"${{{}}}/bin/sh\"; args = [ \"-c\" \"echo > $out\" ]; }}\n",
        source.display(),
        tools.display()
    );
    let file = place.dir.join("import.nix");
    fs::write(&file, text).expect("the directory is ours");
    let drv = place.instantiate(&file, &from);
    let export = place.dir.join("export");
    dump(place, &from, &drv, &export);
    let mut embedded = Row::new(format!("import of {megabytes} MB, embedded"));
    let mut plain = Row::new(format!("import of {megabytes} MB, plain"));
    for round in 0..rounds {
        for side in sides(round) {
            let store = place.dir.join("store");
            if side == Side::Pontoon {
                let mut command = Command::new(env!("CARGO_BIN_EXE_pontoon"));
                command.args(["build", "--no-link", "--sandbox-paths", "", &drv]);
                command.arg("--eval-store").arg(&from);
                command.arg("--store").arg(&store);
                place.surround(&mut command);
                embedded.side(side).push(time(command));
                remove(&store);
                let daemon = Daemon::start(place.dir.join("daemon"));
                let command = build(place, &daemon, &from, &drv, 1);
                plain.side(side).push(time(command));
                drop(daemon);
                remove(&place.dir.join("daemon"));
            } else {
                for row in [&mut embedded, &mut plain] {
                    let mut command = Command::new("nix-store");
                    command.arg("--import").arg("--store").arg(&store);
                    place.surround(&mut command);
                    let export = fs::File::open(&export).expect("it was written");
                    command.stdin(Stdio::from(export.into_file()));
                    row.side(side).push(time(command));
                    remove(&store);
                }
            }
        }
        eprintln!("import: round {} of {rounds}", round + 1);
    }
    remove(&from);
    vec![embedded, plain]
}

/// A directory with what the builders run: a daemon sees nothing of the machine.
fn tools(place: &Place) -> PathBuf {
    let tools = place.dir.join("tools");
    fs::create_dir_all(tools.join("bin")).expect("the directory is ours");
    fs::copy(busybox(), tools.join("bin/sh")).expect("busybox can be read");
    std::os::unix::fs::symlink("sh", tools.join("bin/true")).expect("the directory is ours");
    tools
}

/// The tools' path in a store that has them.
fn needed(place: &Place, tools: &Path, store: &Path) -> pontoon::nix::StorePath {
    let mut command = Command::new("nix-store");
    command.arg("--add").arg(tools).arg("--store").arg(store);
    let done = place.surround(&mut command).output().expect("nix starts");
    let said = String::from_utf8_lossy(&done.stdout);
    said.trim().parse().expect("it says a store path")
}

fn instantiate(place: &Place, tools: &Path, store: &Path, size: usize, tag: &str) -> String {
    let file = place.dir.join(format!("plain-{tag}.nix"));
    let shell = format!("\"${{{}}}/bin/sh\"", tools.display());
    let text = Shape::Wide.expression(size, tag);
    let text = text.replace("\"/bin/sh\"", &shell);
    fs::write(&file, text).expect("the directory is ours");
    place.instantiate(&file, store)
}

fn build(place: &Place, daemon: &Daemon, store: &Path, drv: &str, at_once: usize) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pontoon"));
    command.args(["build", "--engine", "buildkit", "--shape", "plain"]);
    command.args(["--sandbox-paths", "", "-j", &at_once.to_string(), drv]);
    command.arg("--store").arg(store);
    place.surround(&mut command);
    command.env("BUILDKIT_HOST", daemon.address());
    command
}

fn time(mut command: Command) -> f64 {
    let begun = Instant::now();
    let ended = command.output().expect("the program starts");
    let took = begun.elapsed();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{command:?} failed:\n{said}");
    took.as_secs_f64() * 1000.0
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

/// Writes the closure of a path as `nix-store --import` reads it.
fn dump(place: &Place, store: &Path, drv: &str, file: &Path) {
    let mut asked = Command::new("nix-store");
    asked.args(["--query", "--requisites", drv]);
    asked.arg("--store").arg(store);
    let paths = place.surround(&mut asked).output().expect("nix starts");
    assert!(paths.status.success(), "{asked:?} failed");
    let mut command = Command::new("nix-store");
    command.arg("--store").arg(store).arg("--export");
    command.args(String::from_utf8_lossy(&paths.stdout).split_whitespace());
    place.surround(&mut command);
    let export = fs::File::create(file).expect("the directory is ours");
    command.stdout(Stdio::from(export.into_file()));
    assert!(command.status().expect("nix starts").success());
}
