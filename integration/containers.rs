//! Programs of a daemon's store, run in its containers by `pontoon exec`: they read, write and end
//! as any program does, and nothing of them stays behind.

use std::collections::BTreeSet;
use std::process::Command;

use fs_err::File;
use rustix::process::Signal;

use super::buildkit::output;
use super::support::{Kind, Place, Running, Scene, processes_with, run, until};

/// A program with a script, and what the script needs, as its closure.
const PROGRAM: &str = r#"
  let
    shell = builtins.storePath "SHELL";
    applets = "${placeholder "out"}/applets";
  in
  derivation {
    name = "tool-1.0"; system = "x86_64-linux"; builder = "/bin/sh";
    args = [ "-euc" ''
      /bin/mkdir -p $out/bin $out/applets
      for applet in chmod echo sh sleep wc; do /bin/ln -s ${shell} $out/applets/$applet; done
      echo "$script" > $out/bin/tool
      ${applets}/chmod 755 $out/bin/tool
    '' ];
    script = ''
      #!${applets}/sh
      if [ "$1" = wait ]; then MARKER=$2 exec ${applets}/sleep 600; fi
      echo "<$*> $(${applets}/wc -c) in $(echo /nix/store/*)"
      echo kept > /written; echo aside >&2; exit 7
    '';
  }
"#;

fn exec(scene: &Scene<'_>, place: &Place, arguments: &[&str]) -> Command {
    let mut command = place.pontoon(&[&["exec"], arguments].concat());
    scene.daemon.serve(&mut command);
    command
}

/// Builds the program in the daemon's store; returns it and its shell.
fn built(scene: &Scene<'_>, place: &Place) -> [String; 2] {
    let added = run(&mut scene.nix.command("nix-store", &["--add", "/bin/busybox"])).ok();
    let shell = added.stdout.trim().to_owned();
    let file = place.write("tool.nix", PROGRAM.replace("SHELL", &shell));
    let build = ["build", "-f", file.to_str().unwrap()];
    let finished = run(&mut scene.pontoon(&build)).ok();
    [output(&finished.json_lines(), "tool-1.0"), shell]
}

fn a_program_runs_there(kind: Kind) {
    let place = Place::new();
    let scene = Scene::of(kind, &place);
    let [tool, shell] = built(&scene, &place);

    // More than is ever on its way at once, and every byte of it.
    let given = place.write("given", "line\n".repeat(100_000));
    let mut command = exec(&scene, &place, &[&tool, "--", "a b", "-c"]);
    let ran = command
        .stdin(File::open(&given).unwrap().into_parts().0)
        .output();
    let ran = ran.unwrap();
    let [out, aside] = [&ran.stdout, &ran.stderr].map(|text| String::from_utf8_lossy(text));
    assert_eq!(ran.status.code(), Some(7), "{out}{aside}");
    assert_eq!(aside, "aside\n");
    let (said, seen) = out.trim_end().split_once(" in ").unwrap();
    assert_eq!(said, "<a b -c> 500000");
    let closure = BTreeSet::from([tool.as_str(), shell.as_str()]);
    assert_eq!(seen.split(' ').collect::<BTreeSet<_>>(), closure);
    assert!(!scene.daemon.root().join("written").exists());

    let echo = format!("{tool}/applets/echo");
    let said = run(&mut exec(&scene, &place, &[&echo, "--", "by name"])).ok();
    assert_eq!(said.stdout, "by name\n");
    let missing = format!("{shell}-gone");
    let ran = run(&mut exec(&scene, &place, &[&missing])).code(6);
    ran.says(&missing);

    for signal in [Signal::TERM, Signal::KILL] {
        let marker = format!("{signal:?}-{}-{kind:?}", std::process::id());
        let waits = || !processes_with(&format!("MARKER={marker}")).is_empty();
        let running = Running::start(&mut exec(&scene, &place, &[&tool, "--", "wait", &marker]));
        until("it runs", waits);
        running.signal(signal);
        let ran = running.end();
        if signal == Signal::TERM {
            ran.code(143);
            assert!(!waits(), "it outlived its command");
        }
        until("it is gone", || !waits());
    }
}

#[test]
fn a_program_runs_in_a_container_of_buildkitd() {
    a_program_runs_there(Kind::BuildKit);
}

#[test]
fn a_program_runs_in_a_container_of_dockerd_20() {
    a_program_runs_there(Kind::Docker20);
}

#[test]
fn a_program_ends_with_a_daemon_that_dies() {
    for kind in [Kind::BuildKit, Kind::Docker20] {
        let place = Place::new();
        let mut scene = Scene::of(kind, &place);
        let [tool, _] = built(&scene, &place);
        let marker = format!("dies-{}-{kind:?}", std::process::id());
        let waits = || !processes_with(&format!("MARKER={marker}")).is_empty();
        let running = Running::start(&mut exec(&scene, &place, &[&tool, "--", "wait", &marker]));
        until("it runs", waits);
        scene.daemon.kill();
        running.end().code(7);
        until("it is gone", || !waits());
        scene.daemon.restart();
    }
}

#[test]
fn a_program_runs_in_a_container_of_dockerd_29() {
    a_program_runs_there(Kind::Docker29);
}
