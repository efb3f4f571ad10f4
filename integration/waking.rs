//! The engine wakes while `nix` evaluates: what is told, and what is left, where nothing comes of it.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::buildkit::{all_gone, run_id};
use super::support::{BuildUsers, Kind, Nix, Place, Ran, Running, Scene, run, until};

const FAILING: &str = r#"throw "on purpose""#;
/// Takes longer than any session to open.
const SLOWLY_FAILING: &str = r#"builtins.seq (builtins.foldl' (a: b: a + b) 0 (builtins.genList (x: x) 5000000)) (throw "on purpose")"#;
const ENDLESS: &str = "let sum = builtins.foldl' (a: b: a + b) 0;
    in sum (builtins.genList (x: sum (builtins.genList (y: x * y) 100000)) 1000000)";
const GOOD: &str = r#"derivation {
  name = "good"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo good > $out" ];
}"#;

#[test]
fn an_evaluation_that_fails_is_what_is_told_whoever_listens() {
    let place = Place::new();
    let nix = Nix::new(&place, "store", BuildUsers::Group);
    let mute = place.at("mute");
    let _listener = UnixListener::bind(&mute).unwrap();
    let missing = "/nix/store/0c0rl5kb4b7jlqq8q01qmjdy4vgn2mny-none.drv";
    let failing = ["build", "--shape", "plain", "--expr", FAILING];
    let unread = ["plan", "--shape", "plain", missing];
    for socket in [mute, place.at("nobody")] {
        for (arguments, code, says) in [
            (&failing[..], 3, "error: on purpose"),
            (&unread[..], 5, "-none.drv"),
        ] {
            let mut command = nix.pontoon(arguments);
            command.env("BUILDKIT_HOST", format!("unix://{}", socket.display()));
            let ran = run(&mut command).code(code).says(says);
            assert!(ran.took < Duration::from_secs(9), "{}", ran.report());
            assert!(!ran.stderr.contains("engine cannot"), "{}", ran.report());
        }
    }
}

/// Nothing of a run is left, and the next one finds all in order.
fn nothing_is_left(scene: &Scene<'_>, ran: &Ran) {
    all_gone("of-none", &run_id(ran), Instant::now());
    let again = run(&mut scene.pontoon(&["build", "--expr", GOOD])).ok();
    assert_eq!(again.outcomes().get("failed"), None, "{}", again.report());
    scene.daemon.verify(&scene.nix);
}

#[test]
fn a_session_that_nobody_takes_is_closed_in_good_order() {
    for kind in [Kind::BuildKit, Kind::BuildKitStrong] {
        let place = Place::new();
        let scene = Scene::of(kind, &place);
        // Now the daemon has the agent.
        run(&mut scene.pontoon(&["build", "--expr", GOOD])).ok();
        let before = scene.ops("store");
        let ran = run(&mut scene.pontoon(&["build", "--expr", SLOWLY_FAILING]));
        let ran = ran.code(3).says("error: on purpose");
        assert_eq!(scene.ops("store"), before + 1, "{}", ran.report());
        nothing_is_left(&scene, &ran);
    }
}

#[test]
fn a_signal_ends_an_evaluation_and_the_session_beside_it() {
    for kind in [Kind::BuildKit, Kind::BuildKitStrong] {
        let place = Place::new();
        let scene = Scene::of(kind, &place);
        run(&mut scene.pontoon(&["build", "--expr", GOOD])).ok();
        let before = scene.ops("store");
        let running = Running::start(&mut scene.pontoon(&["build", "--expr", ENDLESS]));
        until("the store's agent is there", || {
            scene.ops("store") == before + 1
        });
        let since = Instant::now();
        running.signal(Signal::INT);
        let ran = running.end().code(130);
        assert!(since.elapsed() < Duration::from_secs(8), "{}", ran.report());
        nothing_is_left(&scene, &ran);
    }
}

#[test]
fn a_session_does_not_wait_long_for_an_evaluation() {
    let place = Place::new();
    let scene = Scene::of(Kind::BuildKitStrong, &place);
    run(&mut scene.pontoon(&["build", "--expr", GOOD])).ok();
    let search = std::env::var("PATH").unwrap();
    let go = place.at("go");
    let slow = format!(
        "#!/bin/sh\nPATH={search}\ncase $1 in --version) ;; *) until [ -e {} ]; do sleep 0.1; done ;; esac\n\
         exec nix \"$@\"\n",
        go.display()
    );
    let nix = place.write("slow/nix", slow);
    fs_err::set_permissions(&nix, std::fs::Permissions::from_mode(0o755)).unwrap();
    let before = scene.ops("store");
    let mut command = scene.pontoon(&["build", "--expr", GOOD]);
    let running = Running::start(command.env("PATH", nix.parent().unwrap()));
    until("the first session is there", || {
        scene.ops("store") == before + 1
    });
    // It is kept for two seconds, from when its agent said hello.
    std::thread::sleep(Duration::from_secs(5));
    fs_err::write(go, "").unwrap();
    let ran = running.end().ok();
    assert_eq!(scene.ops("store"), before + 2, "{}", ran.report());
    nothing_is_left(&scene, &ran);
}

/// A `nix` with content-addressed derivations brings a store to another schema of theirs, once; it
/// waits until nobody else has the store open.
#[test]
fn a_nix_that_needs_the_store_for_itself_gets_it() {
    let place = Place::new();
    let nix = Nix::new(&place, "store", BuildUsers::Group);
    let features = "nix-command flakes ca-derivations";
    let options = ["--no-link", "--option", "experimental-features", features];
    let build = |expression: &str| {
        run(nix
            .pontoon(&["build", "--json", "--expr", expression])
            .args(options))
    };
    // The store is there before, or its agent would be waited for by whoever makes it.
    run(&mut nix.pontoon(&["build", "--no-link", "--expr", GOOD])).ok();
    let ran = build(&GOOD.replace("good", "better")).ok();
    assert_eq!(ran.outcomes()["built"], 1, "{}", ran.report());
    assert!(ran.took < Duration::from_secs(20), "{}", ran.report());
    assert!(nix.root().join("nix/var/nix/db/ca-schema").exists());
    nix.verify();
}
