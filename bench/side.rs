//! The two sides: how each is called, and how long it takes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
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
    Plan(&'a str),
    /// Bring the `.drv` files of a closure from another store: `nix copy --derivation`. Pontoon has
    /// no command for that alone: it also plans, and starts one build, which fails.
    Import {
        /// The derivation.
        drv: &'a str,
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

    /// Does a task, and says how long it took.
    pub fn time(&self, side: Side, task: Task<'_>, store: &Path) -> Duration {
        let mut command = match side {
            Side::Pontoon => pontoon(task, store),
            Side::Nix => nix(task, store),
        };
        self.surround(&mut command);
        let start = Instant::now();
        let ended = command.output().expect("the program starts");
        let took = start.elapsed();
        let expected = match (side, task) {
            (Side::Pontoon, Task::Import { .. }) => 100,
            _ => 0,
        };
        assert!(
            ended.status.code() == Some(expected),
            "{command:?} failed:\n{}",
            String::from_utf8_lossy(&ended.stderr)
        );
        took
    }

    fn surround<'a>(&self, command: &'a mut Command) -> &'a mut Command {
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

fn pontoon(task: Task<'_>, store: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pontoon"));
    command.arg("build");
    match task {
        Task::File(file) => command.args(["--no-link", "-f"]).arg(file),
        Task::Derivation(drv) => command.args(["--no-link", drv]),
        Task::Plan(drv) => command.args(["--dry-run", drv]),
        Task::Import { drv, from } => command.args(["--no-link", drv, "--eval-store"]).arg(from),
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
        Task::Plan(drv) => {
            command = Command::new("nix-store");
            command.args(["--realise", "--dry-run", drv]);
        }
        Task::Import { drv, from } => {
            command = Command::new("nix");
            command.args(["copy", "--derivation", "--no-check-sigs", drv, "--store"]);
            command.arg(from).arg("--to").arg(store);
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

fn busybox() -> PathBuf {
    ["/bin/busybox", "/usr/bin/busybox"]
        .into_iter()
        .find_map(|path| fs::canonicalize(path).ok())
        .expect("busybox-static is installed: `scripts/install.sh run` does it")
}
