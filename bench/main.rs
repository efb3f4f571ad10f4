//! Side by side with Nix: the same work by `pontoon build` with the embedded engine and by the
//! installed Nix with its sandbox, in one run of this program.
//!
//! The sides take turns, so that what else the machine does hits both; who goes first changes,
//! too. Each round starts with stores of its own. What is built are trivial derivations, wide and
//! in a chain: what is timed is everything but the builders' own work. It prints medians, the
//! spread and the ratio of the medians, and writes them as JSON to `bench/results/`. It never
//! fails for being slow.
//!
//! | variable | default | what |
//! |---|---|---|
//! | `PONTOON_BENCH_ROUNDS` | 5 | rounds of every row; 0 leaves out all that have no rounds of their own |
//! | `PONTOON_BENCH_SIZE` | 100 | derivations to build |
//! | `PONTOON_BENCH_BOOTSTRAP` | 3 | rounds of the bootstrap, which compiles; 0 leaves it out |
//! | `PONTOON_BENCH_GRAPH` | 27773 | derivations to plan and to import; 0 leaves both out |
//! | `PONTOON_BENCH_DAEMON` | 3 | rounds of the rows on a BuildKit daemon; 0 leaves them out |
//! | `PONTOON_BENCH_IMPORT` | 500 | megabytes of a source to import; 0 leaves that out |
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program of its own, with its own voice"
)]

mod buildkit;
mod daemon;
mod graph;
mod nixpkgs;
mod side;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use fs_err as fs;
use graph::Shape;
use serde_json::{Value, json};
use side::{Place, Side, Task, jobs};

/// One row of the result: milliseconds, or what its name says.
struct Row {
    name: String,
    pontoon: Vec<f64>,
    nix: Vec<f64>,
}

fn main() {
    assert!(
        rustix::process::geteuid().is_root(),
        "the benchmark needs root, as sandboxed `nix-build` does"
    );
    let dir = tempfile::Builder::new()
        .prefix("pontoon-bench-")
        .tempdir_in("/var/tmp")
        .expect("a directory can be made in /var/tmp");
    let place = Place::new(dir.path().to_owned());
    let rounds = setting("PONTOON_BENCH_ROUNDS", 5);
    let size = setting("PONTOON_BENCH_SIZE", 100);
    let mut rows = Vec::new();
    if rounds > 0 {
        for shape in [Shape::Wide, Shape::Chain] {
            rows.extend(build(&place, shape, size, rounds));
        }
        rows.push(evaluate_and_build(&place, size, rounds));
    }
    let compiled = setting("PONTOON_BENCH_BOOTSTRAP", 3);
    if compiled > 0 {
        rows.push(bootstrap(&place, compiled));
    }
    let nodes = setting("PONTOON_BENCH_GRAPH", 27_773);
    if nodes > 0 && rounds > 0 {
        rows.extend(plan_and_import(&place, nodes, rounds));
    }
    let on_daemon = setting("PONTOON_BENCH_DAEMON", 3);
    if on_daemon > 0 {
        let megabytes = setting("PONTOON_BENCH_IMPORT", 500);
        rows.extend(buildkit::rows(&place, size, on_daemon, megabytes));
    }
    print(&rows);
    save(&rows);
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: `{text}`"))
    })
}

/// Both sides, and which of them is first in this round.
fn sides(round: usize) -> [Side; 2] {
    match round % 2 {
        0 => [Side::Pontoon, Side::Nix],
        _ => [Side::Nix, Side::Pontoon],
    }
}

/// Derivations that are in the store already, so that nobody evaluates: all to build, then all
/// valid.
fn build(place: &Place, shape: Shape, size: usize, rounds: usize) -> [Row; 2] {
    let name = shape.name();
    let mut built = Row::new(format!("{name}, {size} to build"));
    let mut valid = Row::new(format!("{name}, {size} valid"));
    for round in 0..rounds {
        let file = write(place, shape, size, round);
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
    let mut row = Row::new(format!("wide, {size} to evaluate and build"));
    for round in 0..rounds {
        let file = write(place, Shape::Wide, size, rounds + round);
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

/// Real packages: a hundred derivations from Debian's packages and sources to programs that ran.
fn bootstrap(place: &Place, rounds: usize) -> Row {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/integration/bootstrap");
    let fetched = Command::new(format!("{source}/seed.sh"))
        .output()
        .expect("the script starts");
    let said = String::from_utf8_lossy(&fetched.stderr);
    assert!(fetched.status.success(), "seed.sh failed:\n{said}");
    let seed = String::from_utf8_lossy(&fetched.stdout);
    let text = format!("(import {source} {{ seed = {}; }}).all\n", seed.trim());
    let file = place.dir.join("bootstrap.nix");
    fs::write(&file, text).expect("the directory is ours");
    let mut row = Row::new("bootstrap, all of it".to_owned());
    for round in 0..rounds {
        for side in sides(round) {
            let store = place.dir.join("store");
            row.side(side)
                .push(place.time(side, Task::File(&file), &store));
            remove(&store);
        }
        eprintln!("bootstrap: round {} of {rounds}", round + 1);
    }
    row
}

/// A graph of nixpkgs' shape: planned where it lies, and brought to another store.
fn plan_and_import(place: &Place, nodes: usize, rounds: usize) -> Vec<Row> {
    let mut planned = Row::new(format!("plan of {nodes}"));
    let mut memory = Row::new(format!("plan of {nodes}, MB of memory"));
    let mut imported = Row::new(format!("import of {nodes} .drv"));
    let store = place.dir.join("graph");
    eprintln!("graph: making it");
    let graph = nixpkgs::make(&store, nodes, &mut place.load(&store));
    eprintln!("graph: {:?}", graph.facts);
    let drvs = graph.roots.as_slice();
    for round in 0..rounds {
        for side in sides(round) {
            let plan = Task::Plan(drvs);
            planned.side(side).push(place.time(side, plan, &store));
            memory.side(side).push(place.memory(side, plan, &store));
            let other = place.dir.join("store");
            let import = Task::Import { drvs, from: &store };
            imported.side(side).push(place.time(side, import, &other));
            remove(&other);
        }
        eprintln!("graph: round {} of {rounds}", round + 1);
    }
    vec![planned, memory, imported]
}

fn write(place: &Place, shape: Shape, size: usize, round: usize) -> PathBuf {
    let tag = round.to_string();
    let file = place.dir.join(format!("{}-{tag}.nix", shape.name()));
    fs::write(&file, shape.expression(size, &tag)).expect("the directory is ours");
    file
}

fn remove(store: &Path) {
    fs::remove_dir_all(store).expect("root can remove a store");
}

impl Row {
    fn new(name: String) -> Self {
        Self {
            name,
            pontoon: Vec::new(),
            nix: Vec::new(),
        }
    }

    fn side(&mut self, side: Side) -> &mut Vec<f64> {
        match side {
            Side::Pontoon => &mut self.pontoon,
            Side::Nix => &mut self.nix,
        }
    }

    /// Our median over theirs.
    fn ratio(&self) -> f64 {
        spread(&self.pontoon)[0] / spread(&self.nix)[0]
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "pontoon": summary(&self.pontoon),
            "nix": summary(&self.nix),
            "ratio": self.ratio(),
        })
    }
}

/// The median, the least and the most.
fn spread(figures: &[f64]) -> [f64; 3] {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let median = if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    };
    [median, sorted[0], sorted[sorted.len() - 1]]
}

fn summary(figures: &[f64]) -> Value {
    let [median, least, most] = spread(figures);
    json!({ "median": median, "least": least, "most": most, "rounds": figures.len() })
}

fn print(rows: &[Row]) {
    println!(
        "{:<36}{:>24}{:>24}{:>8}",
        "ms: median (least–most)", "pontoon", "nix, bare op", "ratio"
    );
    for row in rows {
        let show = |figures: &[f64]| {
            let [median, least, most] = spread(figures);
            format!("{median:.0} ({least:.0}–{most:.0})")
        };
        println!(
            "{:<36}{:>24}{:>24}{:>8.2}",
            row.name,
            show(&row.pontoon),
            show(&row.nix),
            row.ratio()
        );
    }
}

fn save(rows: &[Row]) {
    let system = rustix::system::uname();
    let all = json!({
        "kernel": system.release().to_string_lossy(),
        "jobs": jobs(),
        "rows": rows.iter().map(Row::json).collect::<Vec<_>>(),
    });
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/results");
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("it is after 1970");
    let file = dir.join(format!("{}.json", now.as_secs()));
    fs::create_dir_all(&dir).expect("the checkout is writable");
    fs::write(&file, format!("{all:#}\n")).expect("the checkout is writable");
    println!("\n{}", file.display());
}
