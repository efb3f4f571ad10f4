//! A real `BuildKit` daemon of a test's own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use fs_err as fs;
use pontoon::engine::device::{Setup, Users};
use pontoon::engine::embedded::machine::Accounts;
use rustix::process::{Pid, Signal, kill_process};

use super::{Nix, Place, run, until};

/// A daemon with its own root, sockets and mounts.
///
/// It runs in a mount namespace of its own: its mounts go with it however it ends, and no other
/// process seems to have to do with the place.
pub(crate) struct Daemon<'p> {
    place: &'p Place,
    directory: PathBuf,
    child: Child,
}

impl<'p> Daemon<'p> {
    /// Starts one in the place: any daemon, to which nothing was granted.
    ///
    /// # Panics
    ///
    /// If it does not listen within a minute, or `runc` is missing.
    pub(crate) fn start(place: &'p Place) -> Self {
        Self::configured(place, "[cdi]\n  disabled = true\n")
    }

    /// Starts one for strong ops, whose store is the directory [`Daemon::device`].
    pub(crate) fn strong(place: &'p Place, users: Users) -> Self {
        let setup = Self::device(place, users);
        Self::configured(place, &setup.buildkitd_toml())
    }

    /// Starts one that has the device, and grants nothing.
    pub(crate) fn ungranting(place: &'p Place) -> Self {
        let setup = Self::device(place, Users::Own);
        let granting = setup.buildkitd_toml();
        let (_, devices) = granting.split_once("\n\n").expect("it has two parts");
        Self::configured(place, devices)
    }

    /// Makes the device of a daemon: its store is `<place>/strong`.
    fn device(place: &Place, users: Users) -> Setup {
        let setup = Setup {
            nix_dir: place.at("strong/nix"),
            users,
            directory: place.at("daemon/cdi"),
        };
        let accounts = Accounts::of_this_machine();
        for directory in setup.directories(&accounts) {
            fs::create_dir_all(directory).unwrap();
        }
        let specification = setup.specification(&accounts);
        fs::create_dir_all(&setup.directory).unwrap();
        fs::write(specification.path, specification.text).unwrap();
        setup
    }

    fn configured(place: &'p Place, lines: &str) -> Self {
        let directory = place.at("daemon");
        let below = directory.display();
        let configuration = format!(
            "debug = true\nroot = \"{below}/root\"\n{lines}\
             [grpc]\n  address = [\"unix://{below}/socket\"]\n\
             [otel]\n  socketPath = \"{below}/otel\"\n\
             [worker.oci]\n  snapshotter = \"overlayfs\"\n  networkMode = \"host\"\n  gc = false\n  \
             binary = \"runc\"\n\
             [worker.containerd]\n  enabled = false\n"
        );
        place.write("daemon/buildkitd.toml", configuration);
        let child = launch(place, &directory);
        let daemon = Self {
            place,
            directory,
            child,
        };
        daemon.wait();
        daemon
    }

    /// Starts it again, on the same root.
    pub(crate) fn restart(&mut self) {
        self.child = launch(self.place, &self.directory);
        self.wait();
    }

    /// Kills it, as a machine that runs out of memory would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Its address, for `BUILDKIT_HOST`.
    pub(crate) fn address(&self) -> String {
        format!("unix://{}/socket", self.directory.display())
    }

    /// A command of its own client.
    pub(crate) fn buildctl(&self, arguments: &[&str]) -> Command {
        let mut command = self.place.command(programs().join("buildctl"));
        command.arg("--addr").arg(self.address()).args(arguments);
        command
    }

    /// The ops it has run since it was first started, as their arguments.
    pub(crate) fn ops(&self) -> Vec<String> {
        let log = fs::read_to_string(self.directory.join("log")).unwrap();
        log.lines()
            .filter(|line| line.contains("> creating "))
            .filter_map(|line| Some(line.split_once('[')?.1.split_once(']')?.0.to_owned()))
            .collect()
    }

    /// Where the cache mount that is the store lies on disk.
    ///
    /// # Panics
    ///
    /// If there is not exactly one.
    pub(crate) fn nix_dir(&self) -> PathBuf {
        let snapshots = self
            .directory
            .join("root/runc-overlayfs/snapshots/snapshots");
        let stores: Vec<PathBuf> = fs::read_dir(snapshots)
            .unwrap()
            .map(|entry| entry.unwrap().path().join("fs"))
            .filter(|directory| directory.join("pontoon/identity").exists())
            .collect();
        assert_eq!(stores.len(), 1, "{stores:?}");
        stores.into_iter().next().expect("it has one")
    }

    /// A store's root whose `nix` is the cache mount: enough to read rows and files.
    pub(crate) fn root(&self) -> PathBuf {
        let root = self.place.at("seen");
        if !root.exists() {
            fs::create_dir(&root).unwrap();
            std::os::unix::fs::symlink(self.nix_dir(), root.join("nix")).unwrap();
        }
        root
    }

    /// Checks that real Nix finds nothing wrong with the store in the cache mount.
    pub(crate) fn verify(&self, nix: &Nix<'_>) {
        let root = self.place.at("verified");
        fs::create_dir_all(root.join("nix")).unwrap();
        let nix = nix.on(&root);
        let check = nix.command("nix-store", &["--verify", "--check-contents"]);
        let script = "mount --bind \"$1\" \"$2\" && shift 2 && exec \"$@\"";
        let mut command = self.place.command("unshare");
        command
            .args(["--mount", "sh", "-ec", script, "sh"])
            .arg(self.nix_dir())
            .arg(root.join("nix"))
            .arg(check.get_program())
            .args(check.get_args())
            .env("NIX_CONF_DIR", nix.configuration());
        let ran = run(&mut command).ok();
        for word in ["disappeared", "modified", "error"] {
            assert!(!ran.stderr.contains(word), "{}", ran.report());
        }
    }

    fn wait(&self) {
        let socket = self.directory.join("socket");
        until("the daemon listens", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let (Ok(None), Some(pid)) = (self.child.try_wait(), pid) {
            kill_process(pid, Signal::TERM).ok();
            let end = Instant::now() + Duration::from_secs(10);
            while Instant::now() < end && matches!(self.child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The processes with something in their environment, as `pid: command line`.
pub(crate) fn processes_with(variable: &str) -> BTreeMap<u32, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let read = |file| fs::read(entry.path().join(file)).unwrap_or_default();
        if String::from_utf8_lossy(&read("environ")).contains(variable) {
            let line = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
            found.insert(pid, line);
        }
    }
    found
}

fn launch(place: &Place, directory: &Path) -> Child {
    fs::remove_file(directory.join("socket")).ok();
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(directory.join("log"))
        .unwrap();
    place
        .command("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(programs().join("buildkitd"))
        .arg("--config")
        .arg(directory.join("buildkitd.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// The directory of `buildkitd` and `buildctl`, built once for all tests and checkouts.
fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/integration/daemons/build.sh");
        let built = Command::new(script).output().unwrap();
        let said = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "{script} failed\n{said}");
        PathBuf::from(String::from_utf8_lossy(&built.stdout).trim())
    })
}
