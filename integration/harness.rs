//! The support holds what it promises: otherwise the tests above it would say nothing.

use std::time::Duration;

use super::support::{
    BuildUsers, Nix, Place, Row, Seed, User, assert_same, count, rows, run, sandbox_paths,
};

const EXPRESSION: &str = r#"
  derivation {
    name = "greeting";
    system = "x86_64-linux";
    builder = "/bin/sh";
    args = [ "-c" "echo $out > $out" ];
    PATH = "/bin";
  }
"#;

#[test]
fn a_place_goes_away_with_its_read_only_trees() {
    let place = Place::new();
    place.write("deep/tree/file", "text");
    run(place.command("chmod").args(["-R", "a-w", "deep"])).ok();
    let path = place.path().to_owned();
    drop(place);
    assert!(!path.exists());
}

#[test]
fn real_nix_builds_in_a_sandbox_with_and_without_build_users() {
    let place = Place::new();
    let file = place.write("greeting.nix", EXPRESSION);
    let stores = [("group", BuildUsers::Group), ("nobody", BuildUsers::Nobody)];
    let outputs = stores.map(|(name, users)| {
        let nix = Nix::new(&place, name, users);
        let drv = nix.instantiate(&file, None).remove(0);
        let output = nix.realise(&[&drv]).ok().stdout.trim().to_owned();
        nix.verify();
        let info = nix.path_info(&[&output]).remove(0);
        assert_eq!(info["deriver"], drv.as_str());
        assert_eq!(
            fs_err::read_to_string(nix.physical(&output)).unwrap(),
            format!("{output}\n")
        );
        output
    });
    assert_eq!(outputs[0], outputs[1]);
    assert_same(
        &place.at("group"),
        &place.at("nobody"),
        [outputs[0].as_str()],
    );
    let row: &Row = &rows(&place.at("group"))[&outputs[0]];
    assert_eq!(row.ultimate, Some(1));
    assert!(
        row.references.contains(&outputs[0]),
        "it refers to itself: {row:?}"
    );
}

#[test]
fn the_shell_of_sandboxes_needs_no_loader() {
    let place = Place::new();
    let paths = sandbox_paths();
    let (target, busybox) = paths[0].split_once('=').unwrap();
    assert_eq!(target, "/bin/sh");
    run(place.command("ldd").arg(busybox)).code(1);
}

#[test]
fn users_are_ordinary() {
    let place = Place::new();
    for user in [User::with_range(&place), User::without_range(&place)] {
        let id = run(user.command("id").arg("-G")).ok().stdout;
        assert_eq!(
            id.split_whitespace().count(),
            1,
            "no other group than his own: {id}"
        );
        assert_ne!(user.uid(), 0);
        run(user.command("touch").arg("in-his-home")).ok();
        run(user.command("touch").arg(place.at("not-his"))).code(1);
        assert!(user.home().join("in-his-home").exists());
    }
    let ranges = fs_err::read_to_string("/etc/subuid").unwrap_or_default();
    assert!(
        ranges.lines().any(|line| line.starts_with("pontoon-test:")),
        "{ranges}"
    );
    assert!(
        !ranges.lines().any(|line| line.starts_with("pontoon-bare:")),
        "{ranges}"
    );
}

#[test]
fn a_process_left_behind_is_seen() {
    let place = Place::new();
    place.assert_no_process_left(Duration::ZERO);
    let mut sleeper = place.command("sleep").arg("60").spawn().unwrap();
    assert_eq!(
        place.processes().keys().copied().collect::<Vec<_>>(),
        [sleeper.id()]
    );
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    place.assert_no_process_left(Duration::from_secs(5));
}

#[test]
fn a_sandboxed_process_is_seen() {
    let place = Place::new();
    fs_err::create_dir_all(place.at("root/mounted")).unwrap();
    // It names the place nowhere; only its mounts tell.
    let script = "mount --bind root/mounted /mnt && cd / && exec env -i /usr/bin/sleep 60";
    let mut sleeper = place
        .command("unshare")
        .args(["--mount", "sh", "-c", script])
        .spawn()
        .unwrap();
    let end = std::time::Instant::now() + Duration::from_secs(10);
    let is_asleep = |pid| {
        fs_err::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n")
    };
    while !is_asleep(sleeper.id()) && std::time::Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(place.processes().contains_key(&sleeper.id()));
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
}

#[test]
fn choices_can_be_repeated() {
    let mut one = Seed::new("same");
    let choices: Vec<_> = (0..count(100, 1000)).map(|_| one.below(10)).collect();
    assert!(choices.iter().all(|choice| *choice < 10));
    assert!((0..10).all(|number| choices.contains(&number)));
}
