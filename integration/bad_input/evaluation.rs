//! No `nix`, or one that cannot evaluate what was asked for.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use fs_err as fs;
use rustix::process::Signal;

use super::Case;
use super::scene::Scene;
use crate::support::{Ran, Running, run, until};

pub(super) const CASES: &[(&str, Case)] = &[
    ("no `nix` is installed", no_nix),
    ("`nix` is older than 2.8", old_nix),
    ("`nix` is something else", strange_nix),
    ("an error in the expression", |scene| {
        expression(scene, "throw \"on purpose\"")
    }),
    ("an error deep in the expression", deep_error),
    ("an expression that never ends, until SIGTERM", endless),
    ("an expression that needs more memory than there is", hungry),
    ("an expression that calls itself for ever", |scene| {
        expression(scene, "let f = x: f (x + 1) + 1; in f 0")
    }),
    ("the file is missing", |scene| {
        let missing = scene.place.at("none.nix").display().to_string();
        run(&mut scene.nix.pontoon(&["build", "-f", &missing]))
    }),
    ("the attribute is missing", |scene| {
        run(&mut scene.build("absent"))
    }),
    ("what is asked for is no derivation", |scene| {
        expression(scene, "{ a = 1; }")
    }),
];

fn expression(scene: &Scene<'_>, text: &str) -> Ran {
    run(&mut scene.nix.pontoon(&["build", "--expr", text]))
}

fn with_nix(scene: &Scene<'_>, script: Option<&str>) -> Ran {
    let directory = scene.place.at("bin");
    fs::create_dir(&directory).unwrap();
    if let Some(script) = script {
        let nix = scene.place.write("bin/nix", script);
        fs::set_permissions(nix, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    run(scene.build("hello").env("PATH", directory))
}

fn no_nix(scene: &Scene<'_>) -> Ran {
    with_nix(scene, None)
}

fn old_nix(scene: &Scene<'_>) -> Ran {
    with_nix(scene, Some("#!/bin/sh\necho 'nix (Nix) 2.7.0'\n"))
}

fn strange_nix(scene: &Scene<'_>) -> Ran {
    with_nix(scene, Some("#!/bin/sh\necho hello\n"))
}

/// Forty calls deep: what went wrong is shown all the same.
fn deep_error(scene: &Scene<'_>) -> Ran {
    let text =
        "let f = n: if n == 0 then throw \"at the bottom\" else { a = f (n - 1); }.a; in f 40";
    expression(scene, text)
}

fn endless(scene: &Scene<'_>) -> Ran {
    let text = "builtins.foldl' (a: b: a + b) 0 (builtins.genList (x: builtins.foldl' (a: b: a + b) 0 \
                (builtins.genList (y: x * y) 100000)) 1000000)";
    let running = Running::start(&mut scene.nix.pontoon(&["build", "--expr", text]));
    let needle = scene.place.path().display().to_string();
    until("nix evaluates", || {
        scene
            .place
            .processes()
            .values()
            .any(|line| line.contains("eval") && line.contains(&needle))
    });
    std::thread::sleep(Duration::from_millis(300));
    running.signal(Signal::TERM);
    running.end()
}

/// The limit is that of `nix`, not of the command that starts it.
fn hungry(scene: &Scene<'_>) -> Ran {
    let text = "builtins.deepSeq (builtins.genList (x: builtins.genList (y: x + y) 10000) 10000) 1";
    let mut command = scene.nix.pontoon(&["build", "--expr", text]);
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let script = format!("#!/bin/sh\nPATH={path} exec prlimit --as=500000000 nix \"$@\"\n");
    let nix = scene.place.write("bin/nix", script);
    fs::set_permissions(nix, std::fs::Permissions::from_mode(0o755)).unwrap();
    let first = scene.place.at("bin").display().to_string();
    run(command.env("PATH", format!("{first}:{path}")))
}
