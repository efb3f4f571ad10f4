//! A machine that lacks something, or is hostile.

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::process::Command;

use fs_err as fs;

use super::Case;
use super::scene::Scene;
use crate::limits::confined;
use crate::support::{DAY, Ran, User, YEAR, later, rows, run};

pub(super) const CASES: &[(&str, Case)] = &[
    ("no user namespace may be made", |scene| {
        let user = User::with_range(scene.place);
        let store = user.home().join("store").display().to_string();
        let place = ["--no-link", "--store", &store];
        let arguments = [
            &["build", "-f", &scene.file, "-A", "hello"],
            place.as_slice(),
        ]
        .concat();
        confined(scene.place, &user, user.uid(), &arguments)
    }),
    ("no more threads may be started", |scene| {
        let user = User::with_range(scene.place);
        let mut limited = user.command("prlimit");
        limited
            .arg("--nproc=1")
            .arg(user.pontoon(&[]).get_program());
        let store = user.home().join("store").display().to_string();
        run(limited.args(["build", "-f", &scene.file, "-A", "hello", "--store", &store]))
    }),
    ("no group `nixbld`", |scene| {
        let groups = fs::read_to_string("/etc/group").unwrap();
        let others = groups.lines().filter(|line| !line.starts_with("nixbld:"));
        let others = others.fold(String::new(), |all, line| all + line + "\n");
        let file = scene.place.write("group", others).display().to_string();
        changed(scene, &format!("mount --bind {file} /etc/group"))
    }),
    ("no `/proc`", |scene| {
        changed(scene, "mount -t tmpfs tmpfs /proc")
    }),
    ("`/sys` is not there", |scene| {
        changed(scene, "mount -t tmpfs tmpfs /sys")
    }),
    ("`/tmp` cannot be written", |scene| {
        changed(scene, "mount -t tmpfs -o ro tmpfs /tmp")
    }),
    ("`TMPDIR` is missing", |scene| {
        run(scene.build("hello").env("TMPDIR", scene.place.at("none")))
    }),
    ("`TMPDIR` has a name of 100 bytes", |scene| {
        let long = scene.place.at("x".repeat(100));
        fs::create_dir(&long).unwrap();
        run(scene.build("hello").env("TMPDIR", long))
    }),
    ("no directory of XDG can be written", |scene| {
        let mut command = scene.build("hello");
        for name in ["CACHE_HOME", "CONFIG_HOME", "DATA_HOME", "RUNTIME_DIR"] {
            command.env(format!("XDG_{name}"), "/proc/none");
        }
        run(&mut command)
    }),
    ("`HOME` cannot be written", |scene| {
        run(scene.build("hello").env("HOME", "/proc/1/none"))
    }),
    ("`HOME` is not set", |scene| {
        run(scene.build("hello").env_remove("HOME"))
    }),
    (
        "`XDG_STATE_HOME` cannot be written, and no store is named",
        state_home,
    ),
    ("the working directory is gone", |scene| {
        let script = "mkdir gone; cd gone; rmdir ../gone; exec \"$@\"";
        through(scene, script)
    }),
    ("nobody listens at the tunnel's socket", stale_socket),
    (
        "somebody else listens at the tunnel's socket",
        hostile_socket,
    ),
    ("the clock is 10 years ahead", |scene| clock(scene, 10)),
    ("the clock is 30 years behind", |scene| clock(scene, -30)),
    ("the clock is before 1970", |scene| clock(scene, -70)),
    ("files in the store are from the future", |scene| {
        scene.built("hello");
        let store = scene.nix.root().join("nix/pontoon/attempts");
        let script = "find \"$1\" -type f -exec touch -d '2106-02-07' {} +";
        run(scene
            .place
            .command("sh")
            .args(["-c", script, "sh"])
            .arg(store))
        .ok();
        run(&mut scene.build("behind"))
    }),
];

/// `pontoon build` in a mount namespace where something was changed before.
fn changed(scene: &Scene<'_>, change: &str) -> Ran {
    let script = format!("{change}; exec \"$@\"");
    let pontoon = scene.build("hello");
    let mut command = scene.place.command("unshare");
    command.args(["--mount", "sh", "-ec", &script, "sh"]);
    run(with(scene, &mut command, &pontoon))
}

fn through(scene: &Scene<'_>, script: &str) -> Ran {
    let pontoon = scene.build("hello");
    let mut command = scene.place.command("sh");
    command.args(["-ec", script, "sh"]);
    run(with(scene, &mut command, &pontoon))
}

fn with<'c>(scene: &Scene<'_>, command: &'c mut Command, pontoon: &Command) -> &'c mut Command {
    command.arg(pontoon.get_program()).args(pontoon.get_args());
    command.env("NIX_CONF_DIR", scene.nix.configuration())
}

fn state_home(scene: &Scene<'_>) -> Ran {
    let user = User::with_range(scene.place);
    let mut pontoon = user.pontoon(&["build", "-f", &scene.file, "-A", "hello", "--no-link"]);
    run(pontoon.env("XDG_STATE_HOME", "/proc/none"))
}

/// Builds when it is so many years later; what was built before and is built afterwards has the true
/// time.
fn clock(scene: &Scene<'_>, years: i64) -> Ran {
    let tree = scene.built("tree");
    let ran = run(&mut later(scene.place, years * YEAR, &scene.build("hello")));
    let hello = rows(scene.nix.root())
        .into_keys()
        .find(|path| path.ends_with("-hello"));
    let times = [tree, hello.unwrap_or_else(|| panic!("{}", ran.report()))]
        .map(|path| registered(scene, &path));
    // No time before the first of all is registered.
    let expected = (times[0] + years * YEAR).max(0);
    assert!(
        (times[1] - expected).abs() < DAY,
        "{times:?}\n{}",
        ran.report()
    );
    scene.built("behind");
    ran
}

fn registered(scene: &Scene<'_>, path: &str) -> i64 {
    let place = scene.nix.root().join("nix/var/nix/db/db.sqlite");
    let database = rusqlite::Connection::open(place).unwrap();
    let question = "select registrationTime from ValidPaths where path = ?1";
    let time = database.query_row(question, [path], |row| row.get(0));
    time.unwrap()
}

fn stale_socket(scene: &Scene<'_>) -> Ran {
    let front = scene.place.at("front");
    drop(UnixListener::bind(&front).unwrap());
    proxied(scene, &front)
}

/// It says things no conductor says.
fn hostile_socket(scene: &Scene<'_>) -> Ran {
    let front = scene.place.at("front");
    let listener = UnixListener::bind(&front).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            // An agent that ends at once is what should happen.
            stream.write_all(&[0xff; 4096]).ok();
        }
    });
    proxied(scene, &front)
}

fn proxied(scene: &Scene<'_>, front: &std::path::Path) -> Ran {
    let proxy = format!("{}:{}", front.display(), scene.place.at("back").display());
    run(scene.build("hello").env("PONTOON_TUNNEL_PROXY", proxy))
}
