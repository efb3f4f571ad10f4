//! Who listens where a daemon should. What real daemons refuse is in `buildkit`, `strong`, `roots`
//! and `hardship`.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use fs_err as fs;
use rustix::process::Signal;
use serde_json::json;

use super::scene::Scene;
use super::{Case, old_daemon};
use crate::support::{Daemon, Kind, Ran, Running, User, run, until};

pub(super) const CASES: &[(&str, Case)] = &[
    ("there is no socket", |scene| {
        build(scene, &scene.place.at("none").display().to_string())
    }),
    ("nobody listens at the port", |scene| {
        let free = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        reach(scene, &format!("tcp://{free}"))
    }),
    ("the address is of no kind that is known", |scene| {
        reach(scene, "ssh://host")
    }),
    ("the socket is not for this user", forbidden),
    ("a mail server listens", |scene| {
        stranger(scene, b"220 mail.example.org ESMTP\r\n")
    }),
    ("a web server listens", |scene| {
        stranger(
            scene,
            b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
        )
    }),
    ("the daemon wants TLS", |scene| {
        stranger(scene, b"\x15\x03\x01\x00\x02\x02\x46")
    }),
    ("the daemon is too old", |scene| {
        let socket = scene.place.at("socket");
        old_daemon::serve(UnixListener::bind(&socket).unwrap());
        build(scene, &socket.display().to_string())
    }),
    ("the daemon has no network for what needs one", no_network),
    (
        "the daemon runs one op at a time, until SIGINT",
        one_at_a_time,
    ),
    (
        "another run has the daemon's only place, until SIGINT",
        no_place,
    ),
    ("who listens never answers, until SIGINT", silent),
];

fn reach(scene: &Scene<'_>, address: &str) -> Ran {
    let mut command = scene.build("hello");
    command.args(["--sandbox-paths", ""]);
    run(command.env("BUILDKIT_HOST", address))
}

fn build(scene: &Scene<'_>, socket: &str) -> Ran {
    reach(scene, &format!("unix://{socket}"))
}

fn forbidden(scene: &Scene<'_>) -> Ran {
    let user = User::with_range(scene.place);
    let socket = scene.place.at("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600)).unwrap();
    let store = user.home().join("store").display().to_string();
    let place = ["--no-link", "--sandbox-paths", "", "--store", &store];
    let arguments = [
        &["build", "-f", &scene.file, "-A", "hello"],
        place.as_slice(),
    ]
    .concat();
    let mut command = user.pontoon(&arguments);
    run(command.env("BUILDKIT_HOST", format!("unix://{}", socket.display())))
}

/// Somebody who says one thing to each who comes, and then waits for the other to end it.
fn stranger(scene: &Scene<'_>, says: &'static [u8]) -> Ran {
    let socket = scene.place.at("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            stream.write_all(says).ok();
            stream.read_to_end(&mut Vec::new()).ok();
        }
    });
    build(scene, &socket.display().to_string())
}

/// A dockerd without a bridge, that does not grant the network of its host either.
fn no_network(scene: &Scene<'_>) -> Ran {
    let entitlements = json!({ "entitlements": { "network-host": false } });
    let settings = json!({ "bridge": "none", "builder": entitlements });
    let daemon = Daemon::configured(Kind::Docker20, scene.place, &settings);
    let mut command = scene.build("fixed");
    command.args(["--sandbox-paths", "", "--json"]);
    daemon.serve(&mut command);
    let ran = run(&mut command);
    assert!(!ran.stdout.contains("node-started"), "{}", ran.report());
    ran
}

/// The op that has the store takes the only place there is.
fn one_at_a_time(scene: &Scene<'_>) -> Ran {
    let settings = json!("  max-parallelism = 1\n");
    let daemon = Daemon::configured(Kind::BuildKit, scene.place, &settings);
    let mut command = scene.build("hello");
    command.args(["--sandbox-paths", ""]);
    let running = Running::start(daemon.serve(&mut command));
    running.has_said("has begun no build", 1);
    running.signal(Signal::INT);
    running.end()
}

/// The op of another run takes the only place there is.
fn no_place(scene: &Scene<'_>) -> Ran {
    let settings = json!("  max-parallelism = 1\n");
    let daemon = Daemon::configured(Kind::BuildKit, scene.place, &settings);
    let start = || {
        let mut command = scene.build("hello");
        command.args(["--sandbox-paths", ""]);
        Running::start(daemon.serve(&mut command))
    };
    let other = start();
    let holds = |line: &String| line.starts_with("/.pontoon/") && line.contains(" store");
    until("the other one has the store", || {
        scene.place.processes().values().any(holds)
    });
    let running = start();
    running.has_said("has not been ready", 1);
    for one in [&running, &other] {
        one.signal(Signal::INT);
    }
    other.end().code(130);
    running.end()
}

fn silent(scene: &Scene<'_>) -> Ran {
    let socket = scene.place.at("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let mut command = scene.build("hello");
    command.args(["--sandbox-paths", ""]);
    command.env("BUILDKIT_HOST", format!("unix://{}", socket.display()));
    let running = Running::start(&mut command);
    std::thread::sleep(Duration::from_secs(2));
    let since = Instant::now();
    running.signal(Signal::INT);
    let ran = running.end();
    assert!(since.elapsed() < Duration::from_secs(4), "{}", ran.report());
    ran
}
