//! A buildkitd of the benchmark's own, on the disk where the other side's stores are too.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fs_err as fs;
use pontoon::engine::Shape;
use pontoon::engine::device::{Setup, Users};
use pontoon::engine::embedded::machine::Accounts;
use serde_json::{Value, json};

use super::side::{PONTOON, Place, script};

/// The device that shows the machine's programs to an op, and what the benchmark has for it.
pub const MACHINE: &str = "pontoon.dev/bench=machine";
/// How long it may take to listen.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running daemon.
pub struct Daemon {
    /// Which ops are ours.
    pub shape: Shape,
    /// What is the daemon's own; in strong, the root of its store.
    pub directory: PathBuf,
    child: Child,
}

impl Daemon {
    /// Starts one that runs ops of a shape, in a mount namespace of its own. Whatever its last one
    /// had is gone.
    pub fn start(place: &Place, shape: Shape) -> Self {
        let directory = place.dir.join("daemon");
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(directory.join("tmp")).expect("the directory is ours");
        let granted = match shape {
            Shape::Plain => "[cdi]\n  disabled = true\n".to_owned(),
            Shape::Strong => devices(place, &directory),
        };
        let below = directory.display();
        let configuration = format!(
            "root = \"{below}/root\"\n{granted}\
             [grpc]\n  address = [\"unix://{below}/socket\"]\n\
             [otel]\n  socketPath = \"{below}/otel\"\n\
             [worker.containerd]\n  enabled = false\n\
             [worker.oci]\n  snapshotter = \"overlayfs\"\n  networkMode = \"host\"\n  \
             binary = \"runc\"\n  gc = false\n"
        );
        let file = directory.join("buildkitd.toml");
        fs::write(&file, configuration).expect("the directory is ours");
        let log = fs::File::create(directory.join("log")).expect("the directory is ours");
        let child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "--"])
            .arg(PathBuf::from(script("daemons/get.sh", &["buildkit"])).join("buildkitd"))
            .arg("--config")
            .arg(file)
            .env("TMPDIR", directory.join("tmp"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(log.into_file()))
            .spawn()
            .expect("unshare starts");
        let daemon = Self {
            shape,
            directory,
            child,
        };
        let begun = Instant::now();
        while UnixStream::connect(daemon.directory.join("socket")).is_err() {
            assert!(begun.elapsed() < PATIENCE, "the daemon does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon
    }

    /// Its address, for `BUILDKIT_HOST`.
    pub fn address(&self) -> String {
        format!("unix://{}", self.directory.join("socket").display())
    }

    /// A `pontoon build` on it, evaluated in a store; what to build is still to be said.
    pub fn build(&self, place: &Place, store: &Path, at_once: usize) -> Command {
        let shape = self.shape.to_string();
        let mut command = Command::new(PONTOON);
        command.args(["build", "--no-link", "--engine", "buildkit"]);
        command.args(["--shape", &shape, "--sandbox-paths", ""]);
        command.args(["--cores", "1", "-j", &at_once.to_string()]);
        command.arg("--store").arg(store);
        place.surround(&mut command);
        command.env("BUILDKIT_HOST", self.address());
        command
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok();
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
        // What stays goes with the benchmark's own directory.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Describes the devices of strong ops: the store, and the machine. Says what makes a daemon take
/// them.
fn devices(place: &Place, directory: &Path) -> String {
    let setup = Setup {
        nix_dir: directory.join("nix"),
        users: Users::Own,
        directory: directory.join("cdi"),
    };
    let accounts = Accounts::of_this_machine();
    for directory in setup.directories(&accounts) {
        fs::create_dir_all(directory).expect("the directory is ours");
    }
    fs::create_dir_all(&setup.directory).expect("the directory is ours");
    let store = setup.specification(&accounts);
    fs::write(store.path, store.text).expect("the directory is ours");
    let machine = machine(&place.shown()).to_string();
    fs::write(setup.directory.join("machine.json"), machine).expect("the directory is ours");
    setup.buildkitd_toml()
}

/// The programs of this machine and a directory, as a device for whoever asks.
fn machine(shown: &Path) -> Value {
    let (kind, name) = MACHINE.split_once('=').expect("it has a name");
    let programs = ["/bin", "/etc", "/lib", "/lib64", "/usr"].map(Path::new);
    let mounts: Vec<Value> = programs
        .into_iter()
        .chain([shown])
        .map(|path| json!({ "hostPath": path, "containerPath": path, "options": ["bind", "ro"] }))
        .collect();
    json!({
        "cdiVersion": "0.6.0",
        "kind": kind,
        "devices": [{
            "name": name,
            "annotations": { "org.mobyproject.buildkit.device.autoallow": "true" },
            "containerEdits": { "mounts": mounts },
        }],
    })
}
