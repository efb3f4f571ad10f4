//! The two sides: how each is called, and how long it takes.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use fs_err as fs;
use pontoon::nix::StorePath;

use super::daemon::Daemon;
use super::expression::{Shape, with_tools};

/// The program.
pub const PONTOON: &str = env!("CARGO_BIN_EXE_pontoon");

/// Who works.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// This program.
    Pontoon,
    /// Whoever the row says.
    Other,
}

/// Both sides, and which of them is first in this round.
pub fn sides(round: usize) -> [Side; 2] {
    match round % 2 {
        0 => [Side::Pontoon, Side::Other],
        _ => [Side::Other, Side::Pontoon],
    }
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
}

/// A directory of the benchmark's own, and the Nix settings in it.
pub struct Place {
    /// The directory.
    pub dir: PathBuf,
}

impl Place {
    /// Writes the settings into an empty directory: for Nix on this machine, and for Nix in an op.
    pub fn new(dir: PathBuf) -> Self {
        let place = Self { dir };
        for directory in [place.dir.join("home"), place.tools().join("bin")] {
            fs::create_dir_all(directory).expect("the directory is ours");
        }
        let both = format!(
            "substitute = false\nsubstituters =\ncores = 1\nmax-jobs = {}\n\
             experimental-features = nix-command flakes\n",
            jobs()
        );
        let here = format!(
            "sandbox = true\nsandbox-fallback = false\nbuild-users-group = nixbld\n\
             sandbox-paths = /bin/sh={}\n",
            busybox().display()
        );
        let in_op = "sandbox = false\nbuild-users-group =\n";
        for (directory, own) in [(&place.dir, here.as_str()), (&place.shown(), in_op)] {
            fs::write(directory.join("nix.conf"), format!("{both}{own}")).expect("it is ours");
        }
        let shell = place.tools().join("bin/sh");
        fs::copy(busybox(), shell).expect("busybox can be read");
        for applet in ["true", "head"] {
            let link = place.tools().join("bin").join(applet);
            symlink("sh", link).expect("the directory is ours");
        }
        place
    }

    /// What ops of Nix see of this machine, besides its programs.
    pub fn shown(&self) -> PathBuf {
        self.dir.join("shown")
    }

    /// A directory with what builders run on a daemon.
    pub fn tools(&self) -> PathBuf {
        self.shown().join("tools")
    }

    /// Writes an expression.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.shown().join(format!("{name}.nix"));
        fs::write(&file, text).expect("the directory is ours");
        file
    }

    /// Adds a directory to a store.
    pub fn add(&self, directory: &Path, store: &Path) -> StorePath {
        let mut command = Command::new("nix-store");
        command
            .arg("--add")
            .arg(directory)
            .arg("--store")
            .arg(store);
        self.said(command).parse().expect("it says a store path")
    }

    /// Has a daemon take the agent, and the tools, with the build of something small.
    pub fn deliver(&self, daemon: &Daemon, store: &Path) {
        let text = Shape::Wide.expression(1, "delivered");
        let file = self.write("delivered", &with_tools(&text, &self.tools()));
        let drv = self.instantiate(&file, store);
        let mut command = daemon.build(self, store, 1);
        command.arg(drv);
        timed(command);
    }

    /// What a command of Nix says.
    pub fn said(&self, mut command: Command) -> String {
        let done = self.surround(&mut command).output().expect("nix starts");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{command:?} failed:\n{said}");
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    }

    /// Makes the derivations of a file in a store, and names the last of them.
    pub fn instantiate(&self, file: &Path, store: &Path) -> String {
        let mut command = Command::new("nix-instantiate");
        command.arg("--store").arg(store).arg(file);
        let said = self.said(command);
        said.lines().last().expect("a path").to_owned()
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
        timed(self.command(side, task, store))
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
        check(&command, &ended.expect("it was started"), 0);
        let kilobytes: u64 = peaks.values().sum();
        f64::from(u32::try_from(kilobytes).expect("below 4 TB")) / 1024.0
    }

    fn command(&self, side: Side, task: Task<'_>, store: &Path) -> Command {
        let mut command = match side {
            Side::Pontoon => pontoon(task, store),
            Side::Other => nix(task, store),
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

/// Runs a command, and says how many milliseconds it took.
pub fn timed(command: Command) -> f64 {
    timed_to(command, 0)
}

/// The same for a command that ends with a code.
pub fn timed_to(mut command: Command, code: i32) -> f64 {
    settle();
    let begun = Instant::now();
    let ended = command.output().expect("the program starts");
    let took = begun.elapsed();
    check(&command, &ended, code);
    took.as_secs_f64() * 1000.0
}

/// What one side wrote is no work of the other's disk.
pub fn settle() {
    rustix::fs::sync();
}

fn check(command: &Command, ended: &Output, code: i32) {
    assert!(
        ended.status.code() == Some(code),
        "{command:?} failed:\n{}",
        String::from_utf8_lossy(&ended.stderr)
    );
}

/// Runs a script of `integration/`, and returns what it says.
pub fn script(name: &str, arguments: &[&str]) -> String {
    let script = format!("{}/integration/{name}", env!("CARGO_MANIFEST_DIR"));
    let ran = Command::new(&script).args(arguments).output();
    let ran = ran.expect("the script starts");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{script} failed:\n{said}");
    String::from_utf8_lossy(&ran.stdout).trim().to_owned()
}

/// Removes a store.
pub fn remove(store: &Path) {
    fs::remove_dir_all(store).expect("root can remove a store");
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
    let mut command = Command::new(PONTOON);
    command.arg("build");
    match task {
        Task::File(file) => command.args(["--no-link", "-f"]).arg(file),
        Task::Derivation(drv) => command.args(["--no-link", drv]),
        Task::Plan(drvs) => command.arg("--dry-run").args(drvs),
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
