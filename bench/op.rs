//! What ours is compared with on a daemon: bare ops, and one op in which Nix does all of it.
//!
//! Our own engine starts them, so that the same things are timed: a connection, a session, a job,
//! the ops, and their end.

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::channel;
use std::time::Instant;

use pontoon::buildkit::address::Service;
use pontoon::buildkit::records::LAYER;
use pontoon::buildkit::{self, Address};
use pontoon::engine::buildkit::{BuildKit, Config};
use pontoon::engine::lower::{Lowering, PlainInputs, Reach, SandboxPaths};
use pontoon::engine::{Engine, EngineEvent, Op, OpExit, OpRoot, Shape};
use pontoon::llb::{
    self, Access, CachePolicy, Definition, Exec, Metadata, Mount, MountKind, Network, Security,
    Sharing,
};
use pontoon::nix::StorePath;

use super::daemon::{Daemon, MACHINE};
use super::side::{PONTOON, Place, settle};

/// The program of a bare op, in the tools.
const BARE: &str = "/bin/true";

impl Daemon {
    /// Runs so many bare ops, so many of them at once, and says how many milliseconds it took.
    /// They are ours to the last mount, but for the program, which is `true`.
    pub fn bare(&self, ops: usize, at_once: usize, needs: &StorePath, tag: &str) -> f64 {
        self.run(ops, at_once, tag, |engine, slot, nonce| {
            let lowering = Lowering {
                shape: self.shape,
                agent: engine.agent.clone(),
                scratch: engine.scratch,
                outside: Network::Default,
                sandbox_paths: SandboxPaths::Absent,
            };
            bare(&lowering, needs, slot, nonce)
        })
    }

    /// Removes what bare ops have left in the daemon's cache.
    pub fn clear(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("there is memory").block_on(async {
            let daemon = buildkit::Daemon::connect(&self.parsed()).await;
            let daemon = daemon.expect("the daemon listens");
            let filter = format!("type=={LAYER},description~=\"{BARE}\"");
            let mut left = daemon.records(vec![filter]).await.expect("it answers");
            left.retain(|record| !record.in_use);
            daemon.remove(&left).await.expect("it answers");
        });
    }

    /// Runs one `nix-build` of a file in one op, and says how many milliseconds it took. Its store
    /// is a cache mount, and it has no sandbox of its own.
    pub fn nix_build(&self, place: &Place, file: &Path, tag: &str) -> f64 {
        self.run(1, 1, tag, |_, _, nonce| nix_build(place, file, nonce))
    }

    fn run(
        &self,
        ops: usize,
        at_once: usize,
        tag: &str,
        op: impl Fn(&BuildKit, u32, &str) -> (Exec, Metadata),
    ) -> f64 {
        let (tell, heard) = channel();
        let tunnel = self.directory.join(format!("tunnel-{tag}"));
        let listener = UnixListener::bind(&tunnel).expect("the directory is ours");
        settle();
        let begun = Instant::now();
        let mut engine = BuildKit::start(self.config(tunnel, tag), move |event| {
            let _ = tell.send(event);
        })
        .expect("the daemon takes a session");
        let mut slots: Vec<u32> = (0..).take(at_once.min(ops)).collect();
        let mut taken = BTreeMap::new();
        let (mut started, mut ended) = (0, 0);
        while ended < ops {
            while started < ops
                && let Some(slot) = slots.pop()
            {
                let nonce = format!("{tag}-{started}");
                let (exec, metadata) = op(&engine, slot, &nonce);
                let op = lowered(exec, metadata, &nonce);
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

    fn parsed(&self) -> Address {
        Address::parse(Service::BuildKitd, &self.address()).expect("it is an address")
    }

    fn config(&self, tunnel: PathBuf, tag: &str) -> Config {
        let program = PathBuf::from(PONTOON);
        Config {
            address: self.parsed(),
            program,
            shape: self.shape,
            entitlements: match self.shape {
                Shape::Plain => Vec::new(),
                Shape::Strong => vec!["security.insecure".to_owned()],
            },
            tunnel,
            run: tag.to_owned(),
            logins: None,
            temporary: self.directory.join("tmp"),
            cancel: Arc::new(AtomicBool::new(false)),
        }
    }
}

fn lowered(exec: Exec, metadata: Metadata, nonce: &str) -> Op {
    let mut definition = Definition::new();
    let op = definition.exec(exec, metadata).expect("it is whole");
    Op {
        nonce: nonce.to_owned(),
        definition: definition.marshal(&op.output(0)).expect("it is small"),
        secrets: BTreeMap::new(),
        root: OpRoot::Defined,
    }
}

/// A build's op whose program is `true` instead of the agent.
fn bare(lowering: &Lowering, needs: &StorePath, slot: u32, nonce: &str) -> (Exec, Metadata) {
    let inputs = match lowering.shape {
        Shape::Plain => PlainInputs {
            slot,
            closure: vec![needs],
        },
        Shape::Strong => PlainInputs::default(),
    };
    let ours = lowering.build(needs, Reach::Nothing, &inputs, nonce);
    let decoded = llb::decode(&ours.expect("it can be lowered")).expect("it is whole");
    let node = decoded.ops.into_iter().next().expect("it has one op");
    let llb::Op::Exec(mut exec) = node.op else {
        panic!("a build is no source");
    };
    exec.args = vec![format!("{needs}{BARE}")];
    (exec, node.metadata)
}

/// `RUN --mount=type=cache,target=/nix nix-build FILE`, with the machine's Nix.
fn nix_build(place: &Place, file: &Path, nonce: &str) -> (Exec, Metadata) {
    let program = "/usr/bin/nix-build";
    // A Nix that lies in /nix would be hidden by the op's own store.
    assert!(
        Path::new(program).exists(),
        "Debian's Nix is to be installed"
    );
    let store = MountKind::Cache {
        id: "bench-nix".to_owned(),
        sharing: Sharing::Shared,
    };
    let variables = [
        ("HOME", "/tmp".to_owned()),
        ("NIX_CONF_DIR", place.shown().display().to_string()),
        ("PATH", "/usr/bin:/bin".to_owned()),
        // Nothing cached answers for it.
        ("NONCE", nonce.to_owned()),
    ];
    let exec = Exec {
        args: vec![
            program.to_owned(),
            "--no-out-link".to_owned(),
            file.display().to_string(),
        ],
        env: variables
            .map(|(name, value)| (name.to_owned(), value))
            .to_vec(),
        cwd: "/tmp".to_owned(),
        user: String::new(),
        hostname: None,
        mounts: vec![
            mount("/", MountKind::Scratch, Some(0)),
            mount("/nix", store, None),
            mount("/tmp", MountKind::Tmpfs { size: None }, None),
        ],
        network: Network::None,
        security: Security::Sandbox,
        devices: vec![MACHINE.to_owned()],
        inputs: Vec::new(),
    };
    let metadata = Metadata {
        custom_name: Some("bench: nix-build".to_owned()),
        progress_group: None,
        cache: CachePolicy::Use,
        caps: std::collections::BTreeSet::new(),
    };
    (exec, metadata)
}

fn mount(dest: &str, kind: MountKind, output: Option<usize>) -> Mount {
    Mount {
        dest: dest.to_owned(),
        kind,
        access: Access::ReadWrite,
        selector: None,
        input: None,
        output,
    }
}
