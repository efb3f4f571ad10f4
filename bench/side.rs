//! The two sides: how each is called, and how long it takes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use fs_err as fs;

/// Who works.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// This program, with the embedded engine.
    Pontoon,
    /// The installed Nix, with its sandbox.
    Nix,
}

/// What is asked of a side.
#[derive(Clone, Copy)]
pub enum Task<'a> {
    /// Evaluate a file and build it: `nix-build`.
    File(&'a Path),
    /// Build a derivation that is in the store: `nix-store --realise`.
    Derivation(&'a str),
    /// Say what would be built: `nix-store --realise --dry-run`.
    Plan(&'a [String]),
    /// Bring the `.drv` files of a closure from another store: `nix copy --derivation`. Pontoon has
    /// no command for that alone: it also plans, and starts one build, which fails.
    Import {
        /// The derivations.
        drvs: &'a [String],
        /// The store that has it.
        from: &'a Path,
    },
}

/// A directory of the benchmark's own, and the Nix settings in it.
pub struct Place {
    /// The directory.
    pub dir: PathBuf,
}

impl Place {
    /// Writes the settings into an empty directory.
    pub fn new(dir: PathBuf) -> Self {
        fs::create_dir(dir.join("home")).expect("the directory is ours");
        let configuration = format!(
            "sandbox = true\nsandbox-fallback = false\nsubstitute = false\nsubstituters =\n\
             cores = 1\nmax-jobs = {0}\nbuild-users-group = nixbld\nsandbox-paths = /bin/sh={1}\n\
             experimental-features = nix-command flakes\n",
            jobs(),
            busybox().display()
        );
        fs::write(dir.join("nix.conf"), configuration).expect("the directory is ours");
        Self { dir }
    }

    /// Makes the derivations of a file in a store, and names the last of them.
    pub fn instantiate(&self, file: &Path, store: &Path) -> String {
        let mut command = Command::new("nix-instantiate");
        command.arg("--store").arg(store).arg(file);
        let done = self.surround(&mut command).output().expect("nix starts");
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
        let text = String::from_utf8(done.stdout).expect("a path is text");
        text.lines().last().expect("a path").to_owned()
    }

    /// The command that registers what it reads.
    pub fn load(&self, store: &Path) -> Command {
        let mut command = Command::new("nix-store");
        command.arg("--load-db").arg("--store").arg(store);
        self.surround(&mut command);
        command
    }

    /// Does a task, and says how many milliseconds it took.
    pub fn time(&self, side: Side, task: Task<'_>, store: &Path) -> f64 {
        let mut command = self.command(side, task, store);
        let start = Instant::now();
        let ended = command.output().expect("the program starts");
        let took = start.elapsed();
        check(&command, &ended, side, task);
        took.as_secs_f64() * 1000.0
    }

    /// Does a task, and says how many megabytes its processes had in memory at most, together.
    ///
    /// Each counts with its own peak, and what they share is counted for each.
    pub fn memory(&self, side: Side, task: Task<'_>, store: &Path) -> f64 {
        let mut command = self.command(side, task, store);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect("the program starts");
        let root = child.id();
        let ended = std::thread::spawn(move || child.wait_with_output());
        let mut peaks: BTreeMap<u32, u64> = BTreeMap::new();
        while !ended.is_finished() {
            for (process, peak) in processes_below(root) {
                // What has ended and is not waited for yet has no memory any more.
                let known = peaks.entry(process).or_default();
                *known = peak.max(*known);
            }
            std::thread::sleep(Duration::from_millis(3));
        }
        let ended = ended.join().expect("it waits only");
        check(&command, &ended.expect("it was started"), side, task);
        let kilobytes: u64 = peaks.values().sum();
        f64::from(u32::try_from(kilobytes).expect("below 4 TB")) / 1024.0
    }

    fn command(&self, side: Side, task: Task<'_>, store: &Path) -> Command {
        let mut command = match side {
            Side::Pontoon => pontoon(task, store),
            Side::Nix => nix(task, store),
        };
        self.surround(&mut command);
        command
    }

    /// Gives a command this place's settings, and nothing else of ours.
    pub fn surround<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("HOME", self.dir.join("home"))
            .env("NIX_CONF_DIR", &self.dir)
            .current_dir(&self.dir)
            .stdin(Stdio::null())
    }
}

fn check(command: &Command, ended: &Output, side: Side, task: Task<'_>) {
    let expected = match (side, task) {
        (Side::Pontoon, Task::Import { .. }) => 100,
        _ => 0,
    };
    assert!(
        ended.status.code() == Some(expected),
        "{} failed:\n{}",
        command.get_program().display(),
        String::from_utf8_lossy(&ended.stderr)
    );
}

/// A process and those it started, with the peak of each, in kilobytes.
fn processes_below(root: u32) -> Vec<(u32, u64)> {
    let mut all: BTreeMap<u32, (u32, u64)> = BTreeMap::new();
    for entry in fs::read_dir("/proc").expect("there is a /proc").flatten() {
        let name = entry.file_name();
        let Some(process) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // It may have ended since.
        let Ok(status) = fs::read_to_string(entry.path().join("status")) else {
            continue;
        };
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
        };
        let parent = field("PPid:").and_then(|parent| u32::try_from(parent).ok());
        all.insert(process, (parent.unwrap_or(0), field("VmHWM:").unwrap_or(0)));
    }
    let belongs = |process: u32| {
        let above = |process: &u32| all.get(process).map(|(parent, _)| *parent);
        std::iter::successors(Some(process), above).any(|process| process == root)
    };
    let ours = all.iter().filter(|(process, _)| belongs(**process));
    ours.map(|(process, (_, peak))| (*process, *peak)).collect()
}
fn pontoon(task: Task<'_>, store: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pontoon"));
    command.arg("build");
    match task {
        Task::File(file) => command.args(["--no-link", "-f"]).arg(file),
        Task::Derivation(drv) => command.args(["--no-link", drv]),
        Task::Plan(drvs) => command.arg("--dry-run").args(drvs),
        Task::Import { drvs, from } => {
            command.arg("--no-link").args(drvs);
            command.arg("--eval-store").arg(from)
        }
    };
    command.args(["-j", &jobs().to_string(), "--cores", "1"]);
    command.arg("--store").arg(store);
    command
}

fn nix(task: Task<'_>, store: &Path) -> Command {
    let mut command;
    match task {
        Task::File(file) => {
            command = Command::new("nix-build");
            command.arg("--no-out-link").arg(file);
        }
        Task::Derivation(drv) => {
            command = Command::new("nix-store");
            command.args(["--realise", drv]);
        }
        Task::Plan(drvs) => {
            command = Command::new("nix-store");
            command.args(["--realise", "--dry-run"]).args(drvs);
        }
        Task::Import { drvs, from } => {
            command = Command::new("nix");
            command
                .args(["copy", "--derivation", "--no-check-sigs"])
                .args(drvs);
            command.arg("--store").arg(from).arg("--to").arg(store);
            return command;
        }
    }
    command.arg("--store").arg(store);
    command
}

/// How many builds run at once, on both sides.
pub fn jobs() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A shell that needs nothing else.
pub fn busybox() -> PathBuf {
    ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find_map(|path| fs::canonicalize(path).ok())
        .expect("busybox-static is installed: `scripts/install.sh run` does it")
}
