//! Real packages from Debian's sources, compiled by Debian's compiler, beside `nix-build`.
//!
//! `default.nix` says how they are made, `seed.sh` fetches what they are made of. Nothing of the
//! machine is in a sandbox: there are no `sandbox-paths`. A hundred derivations, ten deep.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::support::{
    BuildUsers, Daemon, Kind, Nix, Place, Ran, User, assert_same, count, rows, run,
};

/// The expression and its seed, where any user can read them.
struct Scene<'p> {
    expression: PathBuf,
    seed: PathBuf,
    nix: Nix<'p>,
}

impl<'p> Scene<'p> {
    fn new(place: &'p Place) -> Self {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/integration/bootstrap");
        // Its cache is that of whoever runs the tests, not of the place.
        let fetched = Command::new(format!("{source}/seed.sh")).output().unwrap();
        let said = String::from_utf8_lossy(&fetched.stderr);
        assert!(fetched.status.success(), "seed.sh failed\n{said}");
        let cache = String::from_utf8_lossy(&fetched.stdout).trim().to_owned();
        let scene = Self {
            expression: place.at("bootstrap"),
            seed: place.at("seed"),
            nix: Nix::new(place, "theirs", BuildUsers::Group).with_setting("sandbox-paths ="),
        };
        for (from, to) in [(source, &scene.expression), (&cache, &scene.seed)] {
            run(place.command("cp").args(["-R", from]).arg(to)).ok();
        }
        scene
    }

    /// Builds an attribute with `nix-build`, which prints its output.
    fn nix_build(&self, attribute: &str) -> Ran {
        let mut command = self.nix.command("nix-build", &["--no-out-link"]);
        command.arg(&self.expression).args(["-A", attribute]);
        run(command.args(["--arg", "seed"]).arg(&self.seed)).ok()
    }

    /// Builds an attribute with `pontoon build`, which is `command` so far, and the same settings.
    fn build(&self, mut command: Command, attribute: &str) -> Ran {
        command
            .args(["-j", "2", "--cores", "1", "--sandbox-paths", "", "--json"])
            .args(["--no-link", "-A", attribute, "--arg", "seed"])
            .arg(&self.seed)
            .arg("-f")
            .arg(&self.expression)
            .env("NIX_CONF_DIR", self.nix.configuration());
        run(&mut command).ok()
    }

    /// Checks that the store below `root` has the output, and says of all that it has what the
    /// store of real Nix says.
    fn assert_same(&self, root: &Path, output: &str) {
        let ours = rows(root);
        assert!(ours.contains_key(output), "no {output}");
        assert_same(root, self.nix.root(), ours.keys().map(String::as_str));
    }
}

/// Runs every package from the store below `root`.
fn assert_runs(place: &Place, root: &Path, all: &str) {
    for (program, arguments, expected) in [
        ("hello", &["--greeting=to you"][..], "to you\n"),
        ("lua", &["-e", "print(2^10)"], "1024.0\n"),
        ("sqlite3", &[":memory:", "select 6 * 7"], "42\n"),
        ("squeeze", &[], "0: "),
        ("count", &[], "odd: 5\n"),
    ] {
        let path = format!("{all}/bin/{program}");
        let mut command = place.pontoon(&["exec", "--store"]);
        command.arg(root).args([&path, "--"]).args(arguments);
        assert_eq!(run(&mut command).ok().stdout, expected, "{program}");
    }
}

#[test]
fn packages_are_what_nix_build_makes_as_root_and_as_a_user() {
    let place = Place::new();
    let scene = Scene::new(&place);
    let theirs = scene.nix_build("all");
    eprintln!("nix-build: {:?}", theirs.took);
    let all = theirs.stdout.trim();
    scene.nix.verify();
    let user = User::with_range(&place);
    let runs = [
        ("root", place.pontoon(&["build"]), place.at("ours")),
        ("user", user.pontoon(&["build"]), user.home().join("ours")),
    ];
    for (name, mut command, root) in runs {
        command.arg("--store").arg(&root);
        let ran = scene.build(command, "all");
        eprintln!("embedded as {name}: {:?}", ran.took);
        assert!(ran.outcomes()["built"] > 100, "{}", ran.report());
        scene.assert_same(&root, all);
        let (ours, theirs) = (rows(&root), rows(scene.nix.root()));
        assert_eq!(ours.len(), theirs.len(), "as {name}");
        assert_runs(&place, &root, all);
        scene.nix.on(&root).verify();
    }
}

#[test]
fn packages_are_the_same_on_every_daemon() {
    let place = Place::new();
    let scene = Scene::new(&place);
    let attribute = ["checks.squeeze", "all"][count(0, 1)];
    let theirs = scene.nix_build(attribute);
    eprintln!("nix-build: {:?}", theirs.took);
    for kind in Kind::all() {
        let place = Place::new();
        let daemon = Daemon::of(kind, &place);
        let mut command = place.pontoon(&["build", "--store"]);
        daemon.serve(command.arg(place.at("evaluated")));
        let ran = scene.build(command, attribute);
        eprintln!("{kind:?}: {:?}", ran.took);
        assert!(ran.outcomes()["built"] > 80, "{}", ran.report());
        scene.assert_same(&daemon.root(), theirs.stdout.trim());
        daemon.verify(&scene.nix);
    }
}
