//! A buildkitd of the benchmark's own that grants nothing, and bare ops on it.

use std::collections::BTreeMap;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use fs_err as fs;
use pontoon::buildkit::Address;
use pontoon::buildkit::address::Service;
use pontoon::engine::buildkit::{BuildKit, Config, agent_id};
use pontoon::engine::lower::{Lowering, PlainInputs, Reach, SandboxPaths};
use pontoon::engine::{Engine, EngineEvent, Op, OpExit, OpRoot, Shape};
use pontoon::llb::{self, Definition};
use pontoon::nix::StorePath;

/// How long it may take to listen.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running daemon.
pub struct Daemon {
    directory: PathBuf,
    child: Child,
}

impl Daemon {
    /// Starts one on a directory that is not there yet, in a mount namespace of its own.
    pub fn start(directory: PathBuf) -> Self {
        fs::create_dir_all(directory.join("tmp")).expect("the directory is ours");
        let below = directory.display();
        let configuration = format!(
            "root = \"{below}/root\"\n[cdi]\n  disabled = true\n\
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
            .arg(programs().join("buildkitd"))
            .arg("--config")
            .arg(file)
            .env("TMPDIR", directory.join("tmp"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(log.into_file()))
            .spawn()
            .expect("unshare starts");
        let daemon = Self { directory, child };
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

    /// Runs so many bare ops, so many of them at once, and says how many milliseconds it took.
    /// They are ours to the last mount, but for the program; what starts them is our engine.
    pub fn bare(&self, ops: usize, at_once: usize, needs: &StorePath, tag: &str) -> f64 {
        let (tell, heard) = channel();
        let program = Path::new(env!("CARGO_BIN_EXE_pontoon"));
        let agent = agent_id(program).expect("the program is there");
        let tunnel = self.directory.join(format!("tunnel-{tag}"));
        let listener = UnixListener::bind(&tunnel).expect("the directory is ours");
        let begun = Instant::now();
        let mut engine = BuildKit::start(self.config(agent.clone(), tunnel, tag), move |event| {
            let _ = tell.send(event);
        })
        .expect("the daemon takes a session");
        let lowering = Lowering {
            shape: Shape::Plain,
            agent,
            scratch: engine.scratch,
            outside: llb::Network::Default,
            sandbox_paths: SandboxPaths::Absent,
        };
        let mut slots: Vec<u32> = (0..).take(at_once).collect();
        let mut taken = BTreeMap::new();
        let (mut started, mut ended) = (0, 0);
        while ended < ops {
            while started < ops
                && let Some(slot) = slots.pop()
            {
                let nonce = format!("{tag}-{started}");
                let op = bare(&lowering, needs, slot, &nonce);
                engine.start(op).expect("the engine is there");
                taken.insert(nonce, slot);
                started += 1;
            }
            match heard.recv().expect("the engine is there") {
                EngineEvent::Ended(end) => {
                    assert_eq!(end.how, OpExit::Code(0), "{}", end.words);
                    slots.extend(taken.remove(&end.nonce));
                    ended += 1;
                }
                EngineEvent::Fetching(_) | EngineEvent::Silent { .. } => {}
                EngineEvent::Gone { reason } => panic!("the daemon is gone: {reason}"),
            }
        }
        drop(engine);
        let took = begun.elapsed();
        drop(listener);
        took.as_secs_f64() * 1000.0
    }

    fn config(&self, agent: String, tunnel: PathBuf, tag: &str) -> Config {
        Config {
            address: Address::parse(Service::BuildKitd, &self.address()).expect("it is an address"),
            program: PathBuf::from(env!("CARGO_BIN_EXE_pontoon")),
            agent,
            shape: Shape::Plain,
            entitlements: Vec::new(),
            tunnel,
            run: tag.to_owned(),
            logins: None,
            temporary: self.directory.join("tmp"),
            cancel: Arc::new(AtomicBool::new(false)),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok();
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// A build's op whose program is `true` instead of the agent.
fn bare(lowering: &Lowering, needs: &StorePath, slot: u32, nonce: &str) -> Op {
    let inputs = PlainInputs {
        slot,
        closure: vec![needs],
    };
    let ours = lowering.build(needs, Reach::Nothing, &inputs, nonce);
    let decoded = llb::decode(&ours.expect("it can be lowered")).expect("it is whole");
    let node = decoded.ops.into_iter().next().expect("it has one op");
    let llb::Op::Exec(mut exec) = node.op else {
        panic!("a build is no source");
    };
    exec.args = vec![format!("{needs}/bin/true")];
    let mut definition = Definition::new();
    let op = definition.exec(exec, node.metadata).expect("it is whole");
    Op {
        nonce: nonce.to_owned(),
        definition: definition.marshal(&op.output(0)).expect("it is small"),
        secrets: BTreeMap::new(),
        root: OpRoot::Defined,
    }
}

/// The directory of `buildkitd`, made once.
fn programs() -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/integration/daemons/get.sh");
    let made = Command::new(script).arg("buildkit").output();
    let made = made.expect("the script starts");
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{script} buildkit failed:\n{said}");
    PathBuf::from(String::from_utf8_lossy(&made.stdout).trim())
}
