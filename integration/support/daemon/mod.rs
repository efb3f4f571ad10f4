//! A real daemon of a test's own: `buildkitd`, or a `dockerd` of one of two generations.
//!
//! | kind | the daemon | grants |
//! |---|---|---|
//! | [`Kind::BuildKit`] | buildkitd 0.32 | nothing |
//! | [`Kind::BuildKitStrong`] | the same | `security.insecure`, the store as a CDI device |
//! | [`Kind::BuildKitDevice`] | the same | the store as a CDI device, and nothing else |
//! | [`Kind::Docker20`] | Debian's dockerd, on Debian 12 20.10 | nothing |
//! | [`Kind::Docker20Bare`] | the same, without a default network | nothing |
//! | [`Kind::Docker29`] | dockerd 29 with containerd's snapshotter | nothing |
//! | [`Kind::Docker29Strong`] | the same | `security.insecure`, the store as a CDI device |
//!
//! It runs in a mount namespace that a process of its own holds: its mounts go with it however it
//! ends, are still there when it is started again, and no other process seems to have to do with
//! the place. A dockerd has a network namespace too, with nothing but a loopback device and its
//! own bridge: nothing of the machine's network is touched.

mod buildkit;
mod docker;
mod image;
mod receiver;
mod registry;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fs_err as fs;
pub(crate) use image::Image;
use pontoon::engine::device::{Setup, Users};
use pontoon::engine::embedded::machine::Accounts;
pub(crate) use receiver::Receiver;
pub(crate) use registry::{Registry, USER};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{Nix, Place, run, until};

/// What a daemon is, and what it grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    BuildKit,
    BuildKitStrong,
    BuildKitDevice,
    Docker20,
    Docker20Bare,
    Docker29,
    Docker29Strong,
}

impl Kind {
    /// Those without a grant, each with a default network.
    pub(crate) const PLAIN: [Self; 3] = [Self::BuildKit, Self::Docker20, Self::Docker29];
    /// Those that grant what the strong shape needs.
    pub(crate) const STRONG: [Self; 2] = [Self::BuildKitStrong, Self::Docker29Strong];

    /// All of both.
    pub(crate) fn all() -> Vec<Self> {
        [&Self::PLAIN[..], &Self::STRONG].concat()
    }

    /// Whether it grants what the strong shape needs.
    pub(crate) fn is_strong(self) -> bool {
        Self::STRONG.contains(&self)
    }

    /// Whether it is a dockerd.
    pub(crate) fn is_docker(self) -> bool {
        !matches!(
            self,
            Self::BuildKit | Self::BuildKitStrong | Self::BuildKitDevice
        )
    }
}

/// A running daemon.
pub(crate) struct Daemon<'p> {
    place: &'p Place,
    kind: Kind,
    directory: PathBuf,
    holder: Child,
    child: Child,
}

impl<'p> Daemon<'p> {
    /// Starts a buildkitd that grants nothing.
    pub(crate) fn start(place: &'p Place) -> Self {
        Self::of(Kind::BuildKit, place)
    }

    /// Starts one in the place, which has no other.
    ///
    /// # Panics
    ///
    /// If it does not listen within a minute, or `runc` is missing.
    pub(crate) fn of(kind: Kind, place: &'p Place) -> Self {
        Self::configured(kind, place, &json!({}))
    }

    /// Starts one with a store device whose builders are these users.
    pub(crate) fn strong(kind: Kind, place: &'p Place, users: Users) -> Self {
        assert!(kind.is_strong());
        write_device(place, users);
        Self::of(kind, place)
    }

    /// Starts one whose configuration has these settings too (a dockerd's `daemon.json`), or these
    /// lines (a text, for `buildkitd.toml`).
    pub(crate) fn configured(kind: Kind, place: &'p Place, settings: &Value) -> Self {
        Self::on(kind, place, settings, "")
    }

    /// Starts one whose disk has so many megabytes.
    pub(crate) fn on_a_small_disk(kind: Kind, place: &'p Place, megabytes: usize) -> Self {
        let options = format!("size={megabytes}m,mode=711");
        Self::on(kind, place, &json!({}), &options)
    }

    /// Its disk is the place's, or in memory with the options of a mount.
    fn on(kind: Kind, place: &'p Place, settings: &Value, disk: &str) -> Self {
        let directory = place.at("daemon");
        fs::create_dir_all(directory.join("tmp")).unwrap();
        fs::create_dir_all(directory.join("root")).unwrap();
        if (kind.is_strong() || kind == Kind::BuildKitDevice) && !directory.join("cdi").exists() {
            write_device(place, Users::Own);
        }
        if kind.is_docker() {
            docker::configure(kind, &directory, settings);
        } else {
            buildkit::configure(kind, &directory, settings.as_str().unwrap_or_default());
        }
        let holder = hold(kind, place, disk);
        let child = launch(kind, place, &directory, &holder);
        let daemon = Self {
            place,
            kind,
            directory,
            holder,
            child,
        };
        daemon.wait();
        daemon
    }

    /// What it is.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Starts it again, on the same root.
    pub(crate) fn restart(&mut self) {
        self.child = launch(self.kind, self.place, &self.directory, &self.holder);
        self.wait();
    }

    /// Starts a dockerd again, on the same root, with these settings too.
    pub(crate) fn restart_configured(&mut self, settings: &Value) {
        docker::configure(self.kind, &self.directory, settings);
        self.restart();
    }

    /// Freezes it: it keeps its connections, and answers nobody.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id is positive"), signal).unwrap();
    }

    /// Kills it, as a machine that runs out of memory would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        docker::end_containerd(&self.directory);
    }

    /// Stops it, as an administrator would.
    pub(crate) fn stop(&mut self) {
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

    /// Its address, for `BUILDKIT_HOST` or `DOCKER_HOST`.
    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    /// Makes it the engine of a command of ours.
    pub(crate) fn serve<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        if self.kind.is_docker() {
            command
                .env("PONTOON_ENGINE", "docker")
                .env("DOCKER_HOST", self.address())
        } else {
            command.env("BUILDKIT_HOST", self.address())
        }
    }

    /// A command of `BuildKit`'s own client; dockerd 29 speaks with it too.
    pub(crate) fn buildctl(&self, arguments: &[&str]) -> Command {
        let program = buildkit::programs().join("buildctl");
        let mut command = self.place.command(program);
        command.arg("--addr").arg(self.address()).args(arguments);
        command
    }

    /// A command of Docker's own client.
    pub(crate) fn docker(&self, arguments: &[&str]) -> Command {
        let mut command = self.place.command(docker::client());
        command
            .arg("--host")
            .arg(self.address())
            .args(arguments)
            .env("DOCKER_BUILDKIT", "1");
        command
    }

    /// A command where the daemon's network is: what it calls `localhost` is this daemon's.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = self.place.command("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--net", "--"]);
        command.arg(program);
        command
    }

    /// What it has written to its log since it was first started.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap()
    }

    /// The ops it has run since it was first started, as their arguments.
    pub(crate) fn ops(&self) -> Vec<String> {
        self.log()
            .lines()
            .filter(|line| line.contains("> creating "))
            .filter_map(|line| Some(line.split_once('[')?.1.split_once(']')?.0.to_owned()))
            .collect()
    }

    /// The records of its cache: what each is, by id.
    pub(crate) fn records(&self) -> BTreeMap<String, String> {
        if self.kind.is_docker() {
            docker::records(self)
        } else {
            buildkit::records(self)
        }
    }

    /// Where the store lies on disk: the directory that is an op's `/nix`.
    ///
    /// # Panics
    ///
    /// If it is a cache mount, and there is not exactly one.
    pub(crate) fn nix_dir(&self) -> PathBuf {
        if self.kind.is_strong() {
            return self.directory.join("nix");
        }
        let (snapshots, below) = if self.kind.is_docker() {
            docker::snapshots(self.kind)
        } else {
            ("root/runc-overlayfs/snapshots/snapshots", "fs")
        };
        let stores: Vec<PathBuf> = fs::read_dir(self.seen(&self.directory.join(snapshots)))
            .unwrap()
            .map(|entry| entry.unwrap().path().join(below))
            .filter(|directory| directory.join("pontoon/identity").exists())
            .collect();
        assert_eq!(stores.len(), 1, "{stores:?}");
        stores.into_iter().next().expect("it has one")
    }

    /// A path of the daemon's, which may lie on a disk that it alone sees.
    pub(crate) fn seen(&self, path: &Path) -> PathBuf {
        let root = format!("/proc/{}/root{}", self.holder.id(), path.display());
        PathBuf::from(root)
    }

    /// A store's root whose `nix` is the daemon's store: enough to read rows and files.
    pub(crate) fn root(&self) -> PathBuf {
        let root = self.place.at("seen");
        fs::create_dir_all(&root).unwrap();
        fs::remove_file(root.join("nix")).ok();
        std::os::unix::fs::symlink(self.nix_dir(), root.join("nix")).unwrap();
        root
    }

    /// Checks that real Nix finds nothing wrong with the daemon's store.
    pub(crate) fn verify(&self, nix: &Nix<'_>) {
        let root = self.place.at("verified");
        fs::create_dir_all(root.join("nix")).unwrap();
        let nix = nix.on(&root);
        let check = nix.command("nix-store", &["--verify", "--check-contents"]);
        let script = "mount --bind \"$1\" \"$2\" && shift 2 && exec \"$@\"";
        let seen = self.nix_dir();
        let holder = self.seen(Path::new("/"));
        let theirs = seen.strip_prefix(holder).unwrap_or(&seen);
        let mut command = self.place.command("nsenter");
        command
            .args(["--target", &self.holder.id().to_string(), "--mount", "--"])
            .args(["unshare", "--mount", "sh", "-ec", script, "sh"])
            .arg(Path::new("/").join(theirs))
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
        let socket = self.socket();
        until("the daemon listens", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        if self.kind.is_docker() {
            // It listens before it serves.
            until("the daemon serves", || docker::serves(self));
        }
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        self.stop();
        docker::end_containerd(&self.directory);
        self.holder.kill().ok();
        self.holder.wait().ok();
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

/// The device of a strong daemon: the directory `daemon/nix` of the place.
fn setup(directory: &Path, users: Users) -> Setup {
    Setup {
        nix_dir: directory.join("nix"),
        users,
        directory: directory.join("cdi"),
    }
}

/// Describes it as CDI has it.
fn write_device(place: &Place, users: Users) {
    let accounts = Accounts::of_this_machine();
    let setup = setup(&place.at("daemon"), users);
    for directory in setup.directories(&accounts) {
        fs::create_dir_all(directory).unwrap();
    }
    let specification = setup.specification(&accounts);
    fs::create_dir_all(&setup.directory).unwrap();
    fs::write(specification.path, specification.text).unwrap();
}

/// Starts the process that holds the daemon's namespaces.
fn hold(kind: Kind, place: &Place, disk: &str) -> Child {
    let ready = place.at("daemon/held");
    let mut command = place.command("unshare");
    command.args(["--mount", "--propagation", "private"]);
    if kind.is_docker() {
        command.arg("--net");
    }
    // The loopback device of the machine is up.
    let script = "ip link set lo up; \
                  test -z \"$1\" || mount -t tmpfs -o \"$1\" disk \"$2\"; \
                  touch \"$0\"; exec sleep infinity";
    command.args(["sh", "-ec", script]).arg(&ready).arg(disk);
    command.arg(place.at("daemon/root"));
    let holder = command.stdin(Stdio::null()).spawn().unwrap();
    until("the namespaces are there", || ready.exists());
    holder
}

fn launch(kind: Kind, place: &Place, directory: &Path, holder: &Child) -> Child {
    fs::remove_file(directory.join("socket")).ok();
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(directory.join("log"))
        .unwrap();
    let mut command = place.command("nsenter");
    command
        .args(["--target", &holder.id().to_string(), "--mount"])
        .env("TMPDIR", directory.join("tmp"));
    if kind.is_docker() {
        command.arg("--net").arg("--");
        docker::command(kind, directory, &mut command);
    } else {
        command.arg("--");
        buildkit::command(directory, &mut command);
    }
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// The directory that `get.sh` prints.
fn get(what: &str) -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/integration/daemons/get.sh");
    let made = Command::new(script).arg(what).output().unwrap();
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{script} {what} failed\n{said}");
    PathBuf::from(String::from_utf8_lossy(&made.stdout).trim())
}
