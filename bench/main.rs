//! Side by side with Nix: the same trivial derivations, wide and in a chain, built by `pontoon
//! build` with the embedded engine and by sandboxed `nix-build`, in one run of this program.
//!
//! The sides take turns, so that what else the machine does hits both; every round starts with
//! empty stores, and each round's expression has a name of its own, so that nothing is valid.
//! Then both are timed on stores where everything is valid. It prints medians, the spread and the
//! ratio, and writes them as JSON to `bench/results/`. It never fails for being slow.
//!
//! `PONTOON_BENCH_ROUNDS` (default 5) and `PONTOON_BENCH_SIZE` (default 100) change the counts.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program of its own, with its own voice"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use fs_err as fs;
use serde_json::json;

/// How the derivations depend on each other.
#[derive(Clone, Copy)]
enum Shape {
    /// All at once, and one that needs them all.
    Wide,
    /// Each needs the one before.
    Chain,
}

/// Who builds.
#[derive(Clone, Copy)]
enum Side {
    Pontoon,
    Nix,
}

/// One row of the result.
struct Measured {
    name: String,
    pontoon: Vec<Duration>,
    nix: Vec<Duration>,
}

/// A directory of the benchmark's own, and the Nix settings in it.
struct Bench {
    dir: PathBuf,
    size: usize,
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
    let bench = Bench {
        dir: dir.path().to_owned(),
        size: setting("PONTOON_BENCH_SIZE", 100),
    };
    bench.configure();
    let rounds = setting("PONTOON_BENCH_ROUNDS", 5);
    let mut rows = Vec::new();
    for shape in [Shape::Wide, Shape::Chain] {
        rows.extend(bench.compare(shape, rounds));
    }
    print(&rows);
    save(&rows, bench.size);
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: `{text}`"))
    })
}

impl Bench {
    fn configure(&self) {
        fs::create_dir(self.dir.join("home")).expect("the directory is ours");
        let configuration = format!(
            "sandbox = true\nsandbox-fallback = false\nsubstitute = false\nsubstituters =\n\
             cores = 1\nmax-jobs = {0}\nbuild-users-group = nixbld\nsandbox-paths = /bin/sh={1}\n\
             experimental-features = nix-command flakes\n",
            jobs(),
            busybox().display()
        );
        fs::write(self.dir.join("nix.conf"), configuration).expect("the directory is ours");
    }

    /// The rows of one shape: everything to build, and everything valid.
    fn compare(&self, shape: Shape, rounds: usize) -> [Measured; 2] {
        let name = shape.name();
        let mut built = Measured::new(format!("{name}, {} to build", self.size));
        let mut valid = Measured::new(format!("{name}, all valid"));
        for round in 0..rounds {
            // Who goes first changes, too.
            let sides = [Side::Pontoon, Side::Nix];
            let sides = if round % 2 == 0 {
                sides
            } else {
                [sides[1], sides[0]]
            };
            let file = self.write(shape, round);
            for side in sides {
                let store = self.dir.join("store");
                built.side(side).push(self.time(side, &file, &store));
                valid.side(side).push(self.time(side, &file, &store));
                fs::remove_dir_all(&store).expect("root can remove a store");
            }
            eprintln!("{name}: round {} of {rounds}", round + 1);
        }
        [built, valid]
    }

    fn write(&self, shape: Shape, round: usize) -> PathBuf {
        let file = self.dir.join(format!("{}-{round}.nix", shape.name()));
        fs::write(&file, shape.expression(self.size, round)).expect("the directory is ours");
        file
    }

    fn time(&self, side: Side, file: &Path, store: &Path) -> Duration {
        let mut command = self.command(side, file, store);
        let start = Instant::now();
        let ended = command.output().expect("the program starts");
        let took = start.elapsed();
        assert!(
            ended.status.success(),
            "{command:?} failed:\n{}",
            String::from_utf8_lossy(&ended.stderr)
        );
        took
    }

    fn command(&self, side: Side, file: &Path, store: &Path) -> Command {
        let mut command = match side {
            Side::Pontoon => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_pontoon"));
                command.args(["build", "--no-link", "-f"]).arg(file);
                command.args(["-j", &jobs().to_string(), "--cores", "1"]);
                command
            }
            Side::Nix => {
                let mut command = Command::new("nix-build");
                command.args(["--no-out-link"]).arg(file);
                command
            }
        };
        command
            .arg("--store")
            .arg(store)
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("HOME", self.dir.join("home"))
            .env("NIX_CONF_DIR", &self.dir)
            .current_dir(&self.dir)
            .stdin(Stdio::null());
        command
    }
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Self::Wide => "wide",
            Self::Chain => "chain",
        }
    }

    fn expression(self, size: usize, round: usize) -> String {
        let wanted = match self {
            Self::Wide => format!(
                "step \"all\" (builtins.genList (n: step (toString n) [ ]) {})",
                size - 1
            ),
            Self::Chain => format!(
                "builtins.foldl' (before: n: step (toString n) [ before ]) (step \"first\" [ ]) \
                 (builtins.genList (n: n) {})",
                size - 1
            ),
        };
        format!(
            "let step = name: needs: derivation {{\n  name = \"{shape}-{round}-${{name}}\";\n  \
             inherit needs;\n  system = \"x86_64-linux\";\n  builder = \"/bin/sh\";\n  \
             args = [ \"-c\" \"echo $needs > $out\" ];\n}};\nin {wanted}\n",
            shape = self.name()
        )
    }
}

impl Measured {
    fn new(name: String) -> Self {
        Self {
            name,
            pontoon: Vec::new(),
            nix: Vec::new(),
        }
    }

    fn side(&mut self, side: Side) -> &mut Vec<Duration> {
        match side {
            Side::Pontoon => &mut self.pontoon,
            Side::Nix => &mut self.nix,
        }
    }
}

/// The median, the least and the most, in milliseconds.
fn spread(times: &[Duration]) -> [f64; 3] {
    let mut sorted: Vec<_> = times
        .iter()
        .map(|time| time.as_secs_f64() * 1000.0)
        .collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let median = if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    };
    [median, sorted[0], sorted[sorted.len() - 1]]
}

fn print(rows: &[Measured]) {
    println!(
        "{:<24}{:>28}{:>28}{:>8}",
        "ms: median (least–most)", "pontoon", "nix-build", "ratio"
    );
    for row in rows {
        let (ours, theirs) = (spread(&row.pontoon), spread(&row.nix));
        let show = |[median, least, most]: [f64; 3]| format!("{median:.0} ({least:.0}–{most:.0})");
        println!(
            "{:<24}{:>28}{:>28}{:>8.2}",
            row.name,
            show(ours),
            show(theirs),
            ours[0] / theirs[0]
        );
    }
}

fn save(rows: &[Measured], size: usize) {
    let summary = |times: &[Duration]| {
        let [median, least, most] = spread(times);
        json!({ "median_ms": median, "least_ms": least, "most_ms": most, "rounds": times.len() })
    };
    let row = |row: &Measured| {
        let ratio = spread(&row.pontoon)[0] / spread(&row.nix)[0];
        json!({ "name": row.name, "pontoon": summary(&row.pontoon), "nix": summary(&row.nix), "ratio": ratio })
    };
    let all = json!({
        "size": size,
        "jobs": jobs(),
        "rows": rows.iter().map(row).collect::<Vec<_>>(),
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

fn jobs() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn busybox() -> PathBuf {
    ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find_map(|path| fs::canonicalize(path).ok())
        .expect("busybox-static is installed: `scripts/install.sh run` does it")
}
