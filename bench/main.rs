//! Side by side with Nix: the same work by `pontoon` and by what one would use instead, in one run
//! of this program.
//!
//! The sides take turns, so that what else the machine does hits both; who goes first changes,
//! too. It prints medians, the spread, the ratio of the medians and what is to be reached, and
//! writes them as JSON to `bench/results/`. It never fails for being slow.
//!
//! | file | rows | the other side |
//! |---|---|---|
//! | [`embedded`] | trivial derivations, wide and in a chain | Nix with its sandbox |
//! | [`bootstrap`] | real packages, on every engine | the same; our embedded engine |
//! | [`plan`] | a graph of nixpkgs' shape ([`nixpkgs`]) is planned | Nix |
//! | [`plain`] | trivial derivations on a daemon that grants nothing | bare ops |
//! | [`strong`] | trivial derivations on a daemon that grants what we ask for | one `nix-build` in one op |
//! | [`runner`] | what a runner fetches whose daemon has all | `nix copy` |
//! | [`imports`] | a large source, many `.drv` files | `nix-store --import` |
//!
//! What is built are trivial derivations ([`expression`]) but in the bootstrap: what is timed is
//! everything but the builders' own work. [`side`] says how the sides are called, [`daemon`] and
//! [`op`] what there is on a daemon, [`row`] what becomes of the figures.
//!
//! | variable | default | what |
//! |---|---|---|
//! | `PONTOON_BENCH_ROUNDS` | 5 | rounds of the rows on the embedded engine and of the plan; 0 leaves them out |
//! | `PONTOON_BENCH_SIZE` | 100 | trivial derivations to build |
//! | `PONTOON_BENCH_BOOTSTRAP` | 3 | rounds of the bootstrap, which compiles; 0 leaves it out |
//! | `PONTOON_BENCH_GRAPH` | 27773 | derivations to plan; 0 leaves that out |
//! | `PONTOON_BENCH_DAEMON` | 3 | rounds of the rows on a `BuildKit` daemon and of imports; 0 leaves them out |
//! | `PONTOON_BENCH_IMPORT` | 500 | megabytes of a source to import; 0 leaves that out |
//! | `PONTOON_BENCH_DRVS` | 20000 | `.drv` files to import; 0 leaves that out |
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program of its own, with its own voice"
)]

mod bootstrap;
mod daemon;
mod embedded;
mod expression;
mod imports;
mod nixpkgs;
mod op;
mod plain;
mod plan;
mod row;
mod runner;
mod side;
mod strong;

use row::Row;
use side::Place;

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
    let size = setting("PONTOON_BENCH_SIZE", 100);
    let rounds = setting("PONTOON_BENCH_ROUNDS", 5);
    let on_daemon = setting("PONTOON_BENCH_DAEMON", 3);
    let nodes = setting("PONTOON_BENCH_GRAPH", 27_773);
    let mut all = Vec::new();
    println!("{}", row::head());
    // What is there is shown, whatever becomes of the rest.
    let mut show = |rows: Vec<Row>| {
        print!("{}", row::lines(&rows));
        all.extend(rows);
    };
    // What takes the least time comes first: a file system without a journal makes new inodes more
    // slowly for minutes after another row has removed tens of thousands.
    if on_daemon > 0 {
        show(strong::rows(&place, size, on_daemon));
        show(plain::rows(&place, size, on_daemon));
        show(vec![runner::row(&place)]);
    }
    if rounds > 0 {
        show(embedded::rows(&place, size, rounds));
    }
    let compiled = setting("PONTOON_BENCH_BOOTSTRAP", 3);
    if compiled > 0 {
        show(bootstrap::rows(&place, compiled));
    }
    if on_daemon > 0 {
        let megabytes = setting("PONTOON_BENCH_IMPORT", 500);
        if megabytes > 0 {
            show(imports::source(&place, megabytes, on_daemon));
        }
        let drvs = setting("PONTOON_BENCH_DRVS", 20_000);
        if drvs > 0 {
            show(imports::derivations(&place, drvs, on_daemon));
        }
    }
    if rounds > 0 && nodes > 0 {
        show(plan::rows(&place, nodes, rounds));
    }
    println!("\n{}", row::save(&all).display());
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: `{text}`"))
    })
}
