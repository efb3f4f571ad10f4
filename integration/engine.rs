//! The embedded engine runs ops whose bytes BuildKit's own Go package wrote (`golden/lowered.go`).

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use pontoon::engine::embedded::machine::{Accounts, UserMapping};
use pontoon::engine::embedded::{Config, Embedded};
use pontoon::engine::lower::{STORE_CACHE, STORE_DEVICE};
use pontoon::engine::{Engine, EngineEvent, Op, OpEnd, OpExit, OpRoot, SecretValue};
use pontoon::tunnel::{Decoder, Frame, FromAgent, Limits, ToAgent, VERSION, encode, frame};

/// An engine whose one store lies in a directory of its own.
struct Bench {
    directory: tempfile::TempDir,
    engine: Embedded,
    events: Receiver<EngineEvent>,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let nix_dir = directory.path().join("nix");
        for folder in ["nix/bin", "nix/store", "root"] {
            fs_err::create_dir_all(directory.path().join(folder)).unwrap();
        }
        let accounts = Accounts::of_this_machine();
        let builders = accounts.builders(UserMapping::Root, &nix_dir);
        fs_err::create_dir_all(builders.locks.as_ref().unwrap()).unwrap();
        let (tell, events) = channel();
        let config = Config {
            program: PathBuf::from(env!("CARGO_BIN_EXE_pontoon")),
            tunnel: directory.path().join("tunnel"),
            scratch: directory.path().join("root"),
            caches: BTreeMap::from([(STORE_CACHE.to_owned(), nix_dir.clone())]),
            devices: vec![builders.store_device(STORE_DEVICE, &nix_dir)],
            users: UserMapping::Root,
        };
        let engine = Embedded::start(config, move |event| {
            let _ = tell.send(event);
        });
        Self {
            directory,
            engine: engine.unwrap(),
            events,
        }
    }

    fn start(&mut self, nonce: &str, definition: Vec<u8>, secrets: &[(&str, &str)]) {
        let secrets = secrets
            .iter()
            .map(|(id, value)| ((*id).to_owned(), SecretValue(value.as_bytes().to_vec())));
        let op = Op {
            nonce: nonce.to_owned(),
            definition,
            secrets: secrets.collect(),
            root: OpRoot::Defined,
        };
        self.engine.start(op).unwrap();
    }

    fn end(&self) -> OpEnd {
        match self.events.recv_timeout(Duration::from_secs(20)).unwrap() {
            EngineEvent::Ended(end) => end,
            other => panic!("not the end of an op: {other:?}"),
        }
    }
}

fn golden(name: &str) -> Vec<u8> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    fs_err::read(tests.join(format!("{name}.pb"))).unwrap()
}

#[test]
fn runs_a_program_whose_op_go_wrote() {
    let mut bench = Bench::new();
    let nix = bench.directory.path().join("nix");
    fs_err::copy("/bin/busybox", nix.join("bin/busybox")).unwrap();
    let executable = std::fs::Permissions::from_mode(0o755);
    fs_err::set_permissions(nix.join("bin/busybox"), executable).unwrap();
    bench.start("one", golden("embedded-program"), &[("word", "told ")]);
    let end = bench.end();
    assert_eq!((end.nonce.as_str(), end.how), ("one", OpExit::Code(0)));
    let made = fs_err::read_to_string(nix.join("store/made")).unwrap();
    assert_eq!(made, "told of Go's bytes\n");
}

#[test]
fn wakes_the_agent_in_an_op_that_go_wrote() {
    let mut bench = Bench::new();
    let listener = UnixListener::bind(bench.directory.path().join("tunnel")).unwrap();
    bench.start("two", golden("embedded-agent"), &[]);
    let (mut stream, _) = listener.accept().unwrap();
    let mut decoder = Decoder::new(Limits::PAIR);
    let hello = loop {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "the agent left without a word");
        decoder.push(&buffer[..count]);
        if let Some(Frame::Message(payload)) = decoder.next_frame().unwrap() {
            break frame::parse(&payload).unwrap();
        }
    };
    let FromAgent::Hello { nonce, store, .. } = hello else {
        panic!("not a hello: {hello:?}");
    };
    // The nonce is in the op's environment, as Go wrote it.
    assert_eq!(nonce, "0123456789abcdef-1");
    let identity = bench.directory.path().join("nix/pontoon/identity");
    assert!(fs_err::read_to_string(identity).unwrap().contains(&store));
    for message in [ToAgent::Welcome { version: VERSION }, ToAgent::Bye] {
        stream
            .write_all(&encode(&Frame::message(&message)))
            .unwrap();
    }
    assert_eq!(bench.end().how, OpExit::Code(0));
}

#[test]
fn says_why_an_op_was_not_started() {
    let mut bench = Bench::new();
    bench.start("three", golden("embedded-program"), &[]);
    let OpExit::NotStarted { reason } = bench.end().how else {
        panic!("an op without its secret was started");
    };
    assert!(reason.contains("secret `word`"), "{reason}");
    bench.start("four", b"no definition".to_vec(), &[]);
    let OpExit::NotStarted { reason } = bench.end().how else {
        panic!("noise was started");
    };
    assert!(reason.contains("decoded"), "{reason}");
}
