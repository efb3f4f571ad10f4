//! Limits and failures: how they end what runs, what they mean for the rest, and the exit codes.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::support::{
    BuildUsers, Nix, Place, Ran, Running, Seed, User, count, run, sandbox_paths, until,
};

/// Derivations that end in every way there is; each combination has an exit code of Nix's.
const EXPRESSION: &str = r#"
  let
    node = name: needs: script: derivation {
      inherit name needs; system = "x86_64-linux"; builder = "/bin/sh";
      args = [ "-c" "${script}" ];
    };
    fixed = name: script: derivation {
      inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" script ];
      outputHashMode = "flat"; outputHashAlgo = "sha256";
      outputHash = "0000000000000000000000000000000000000000000000000000000000000000";
    };
  in rec {
    good = node "good" [ ] "echo good > $out";
    badExit = node "bad-exit" [ ] "echo one; echo two; exit 3";
    badSignal = node "bad-signal" [ ] "kill -9 $$";
    badNoOutput = node "bad-no-output" [ ] ":";
    badMode = node "bad-mode" [ ] "echo x > $out; chmod 666 $out";
    badBuilder = derivation { name = "bad-builder"; system = "x86_64-linux"; builder = "/bin/none"; };
    fodBad = fixed "fod-bad" "echo x > $out";
    fodExit = fixed "fod-exit" "exit 7";
    slow = node "slow" [ ] "sleep 60; echo slow > $out";
    silent = node "silent" [ ] "sleep 60; echo silent > $out";
    chatty = node "chatty" [ ] "for i in 1 2 3 4 5 6; do echo $i; sleep 0.5; done; echo x > $out";
    badDep = node "bad-dep" [ badExit good ] "echo x > $out";
    badDepDep = node "bad-dep-dep" [ badDep ] "echo x > $out";
    badFodDep = node "bad-fod-dep" [ fodBad ] "echo x > $out";
  }
"#;

struct Scene<'p> {
    nix: Nix<'p>,
    file: PathBuf,
}

impl<'p> Scene<'p> {
    fn new(place: &'p Place, name: &str) -> Self {
        let sleep = sandbox_paths()
            .remove(0)
            .replacen("/bin/sh=", "/bin/sleep=", 1);
        let file = place.write("failures.nix", EXPRESSION);
        let nix = Nix::new(place, name, BuildUsers::Group).with_sandbox_path(&sleep);
        Self { nix, file }
    }

    fn command(&self, attributes: &[&str], more: &[&str]) -> Command {
        let mut command = self.nix.pontoon(&["build", "--json", "--no-link"]);
        command.args(more).arg("-f").arg(&self.file);
        for attribute in attributes {
            command.args(["-A", attribute]);
        }
        command
    }

    fn build(&self, attributes: &[&str], more: &[&str]) -> Ran {
        run(&mut self.command(attributes, more))
    }

    fn nix_build(&self, attributes: &[&str], more: &[&str]) -> Ran {
        let arguments = [&["--no-out-link"], more].concat();
        let mut command = self.nix.command("nix-build", &arguments);
        command.arg(&self.file);
        for attribute in attributes {
            command.args(["-A", attribute]);
        }
        run(&mut command)
    }
}

/// What the only failure of a run is said to be.
fn failure(ran: &Ran) -> String {
    let events = ran.json_lines();
    let failed: Vec<_> = events
        .iter()
        .filter(|event| event["outcome"]["outcome"] == "failed")
        .map(|event| {
            event["outcome"]["failure"]["failure"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(failed.len(), 1, "{}", ran.report());
    failed[0].clone()
}

#[test]
fn limits_end_builds_as_nix_has_it() {
    let place = Place::new();
    let scene = Scene::new(&place, "store");
    for shape in ["strong", "plain"] {
        let slow = scene
            .build(&["slow"], &["--timeout", "1", "--shape", shape])
            .code(101);
        assert_eq!(failure(&slow), "timed-out");
        assert!(slow.took < Duration::from_secs(15), "{}", slow.report());
        let silent = ["--max-silent-time", "1", "--shape", shape];
        let silent = scene.build(&["silent"], &silent).code(101);
        assert_eq!(failure(&silent), "silent");
        // Who writes in time is not silent, however long it lasts.
        let chatty = ["--max-silent-time", "2", "--shape", shape];
        if shape == "strong" {
            scene.build(&["chatty"], &chatty).ok();
        }
        let chatty = scene.build(&["slow"], &["--timeout", "1", "--max-silent-time", "60"]);
        assert_eq!(failure(&chatty.code(101)), "timed-out");
    }
    scene.nix_build(&["slow"], &["--timeout", "1"]).code(101);
    scene
        .nix_build(&["silent"], &["--max-silent-time", "1"])
        .code(101);
    let mut command = scene
        .nix
        .pontoon(&["build", "--no-link", "--timeout", "1", "-A", "slow"]);
    run(command.arg("-f").arg(&scene.file))
        .code(101)
        .says("timed out after 1 second");
    scene.nix.verify();
    place.assert_no_process_left(Duration::from_secs(5));
}

#[test]
fn exit_codes_are_nixs() {
    let place = Place::new();
    let ours = Scene::new(&place, "ours");
    let theirs = Scene::new(&place, "theirs");
    let all = [
        "good",
        "badExit",
        "badSignal",
        "badNoOutput",
        "badMode",
        "badBuilder",
        "fodBad",
        "fodExit",
        "slow",
        "badDep",
        "badDepDep",
        "badFodDep",
    ];
    let mut seed = Seed::new("exit-codes");
    let mut wishes: Vec<Vec<&str>> = all.iter().map(|attribute| vec![*attribute]).collect();
    for _ in 0..count(8, 60) {
        let several = (0..2 + seed.below(3)).map(|_| *seed.one_of(&all));
        wishes.push(several.collect());
    }
    for wish in wishes {
        let more = ["--keep-going", "--timeout", "2"];
        let nix = theirs.nix_build(&wish, &more);
        let us = ours.build(&wish, &more);
        assert_eq!(
            us.status.code(),
            nix.status.code(),
            "{wish:?}\n{}\n{}",
            us.report(),
            nix.report()
        );
    }
    ours.nix.verify();
}

#[test]
fn the_rest_goes_on_after_a_failure() {
    let place = Place::new();
    let scene = Scene::new(&place, "store");
    let ran = scene
        .build(&["badDepDep", "good", "badFodDep"], &[])
        .code(102);
    let outcomes = ran.outcomes();
    assert_eq!(outcomes["failed"], 2, "{}", ran.report());
    assert_eq!(outcomes["dependency-failed"], 3, "{}", ran.report());
    assert_eq!(outcomes["built"], 1, "{}", ran.report());
}

#[test]
fn a_failure_stops_everything_if_asked_to() {
    let place = Place::new();
    let scene = Scene::new(&place, "store");
    for shape in ["strong", "plain"] {
        let more = ["--fail-fast", "-j", "2", "--shape", shape];
        let ran = scene.build(&["slow", "badExit", "chatty"], &more).code(100);
        assert!(ran.took < Duration::from_secs(20), "{}", ran.report());
        let outcomes = ran.outcomes();
        assert_eq!(
            (outcomes["failed"], outcomes["cancelled"]),
            (1, 2),
            "{}",
            ran.report()
        );
        place.assert_no_process_left(Duration::from_secs(5));
    }
    scene.nix.verify();
}

#[test]
fn limits_end_effects() {
    let place = Place::new();
    let scene = Scene::new(&place, "store");
    let flake = |name: &str, field: &str| {
        let command = r#"[ "/bin/sh" "-c" "sleep 60" ]"#;
        let effect = format!("effects.deploy = {{ command = {command}; {field} }};");
        let text =
            format!("{{ outputs = _: {{ pipelines.x86_64-linux.default = {{ {effect} }}; }}; }}");
        let file = place.write(&format!("{name}/flake.nix"), text);
        format!("path:{}", file.parent().unwrap().display())
    };
    let plain = flake("plain", "");
    let own = flake("own", "timeout = \"1s\";");
    let cases = [
        (&plain, vec!["--timeout", "1"], "timed-out"),
        (&plain, vec!["--max-silent-time", "1"], "silent"),
        // Its own limit goes before that of the command line.
        (&own, vec!["--timeout", "50"], "timed-out"),
    ];
    for (flake, more, expected) in cases {
        for shape in ["strong", "plain"] {
            let arguments = [&["run", flake, "--json", "--shape", shape], more.as_slice()].concat();
            let ran = run(&mut scene.nix.pontoon(&arguments)).code(20);
            assert_eq!(failure(&ran), expected);
            assert!(ran.took < Duration::from_secs(15), "{}", ran.report());
        }
    }
    place.assert_no_process_left(Duration::from_secs(5));
}

/// Runs a command in a user namespace where no other may be made, as `user.max_user_namespaces=0`
/// has it for a whole machine: the user's copy of the executable, as this uid.
pub(super) fn confined(place: &Place, user: &User<'_>, uid: u32, arguments: &[&str]) -> Ran {
    let script = format!(
        "until [ $(id -u) = 0 ]; do sleep 0.02; done
         # A program that root starts has root's capabilities; this shell was there before.
         sh -c 'echo 0 > /proc/sys/user/max_user_namespaces' || exit 99
         exec setpriv --reuid={uid} --regid={uid} --clear-groups \"$@\""
    );
    let mut command = place.command("unshare");
    command.args(["--user", "sh", "-c", &script, "sh"]);
    let program = user.pontoon(&[]).get_program().to_owned();
    command.arg(program).args(arguments);
    let running = Running::start(command.env("HOME", user.home()));
    let proc = PathBuf::from(format!("/proc/{}", running.pid()));
    let own = fs_err::read_link("/proc/self/ns/user").unwrap();
    until("it is in a namespace of its own", || {
        fs_err::read_link(proc.join("ns/user")).is_ok_and(|namespace| namespace != own)
    });
    // Every id is itself.
    for map in ["gid_map", "uid_map"] {
        fs_err::write(proc.join(map), "0 0 4294967295").unwrap();
    }
    running.end()
}

#[test]
fn where_no_user_namespace_can_be_made_the_message_says_what_to_do() {
    let place = Place::new();
    let file = place.write("failures.nix", EXPRESSION);
    let file = file.display().to_string();
    for user in [User::without_range(&place), User::with_range(&place)] {
        let store = user.home().join("store").display().to_string();
        let wanted = ["-A", "good", "--no-link", "--store", &store];
        let arguments = [&["build", "-f", &file], wanted.as_slice()].concat();
        for uid in [user.uid(), 0] {
            let ran = confined(&place, &user, uid, &arguments).code(7);
            for text in [
                "the engine cannot be used",
                "sysctl user.max_user_namespaces=",
            ] {
                assert!(ran.stderr.contains(text), "{}", ran.report());
            }
        }
        place.assert_no_process_left(Duration::from_secs(5));
    }
}
