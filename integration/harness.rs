//! The support holds what it promises: otherwise the tests above it would say nothing.

use std::time::Duration;

use super::support::{
    BuildUsers, Held, Nix, Place, Ran, Row, Running, Seed, User, assert_same, count, graph, rows,
    run, sandbox_paths, until,
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
fn a_random_graph_builds_and_a_part_of_it_stays_valid() {
    let place = Place::new();
    let mut seed = Seed::new("harness-graph");
    let file = place.write("graph.nix", graph(&mut seed, 12, "harness"));
    let nix = Nix::new(&place, "store", BuildUsers::Nobody);
    let drvs = nix.instantiate(&file, None);
    let drvs: Vec<_> = drvs.iter().map(String::as_str).collect();
    assert_eq!(nix.would_build(&drvs).len(), 12);
    // Any other might need all the rest.
    let leaf = drvs
        .iter()
        .find(|drv| nix.would_build(&[drv]).len() == 1)
        .expect("a graph without a cycle has a leaf");
    nix.realise(&[leaf]).ok();
    assert_eq!(nix.would_build(&drvs).len(), 11);
    nix.realise(&drvs).ok();
    assert!(nix.would_build(&drvs).is_empty());
}

#[test]
fn a_held_build_goes_on_when_released() {
    let place = Place::new();
    let held = Held::new(&place);
    let nix = Nix::new(&place, "store", BuildUsers::Group).with_sandbox_path(&held.sandbox_path());
    let script = EXPRESSION.replace("echo $out", &format!("{}; echo $word", Held::SCRIPT));
    let drv = nix
        .instantiate(&place.write("held.nix", script), None)
        .remove(0);
    let mut build = Running::start(&mut nix.command("nix-store", &["--realise", &drv]));
    held.wait();
    assert!(!build.has_ended());
    assert!(place.processes().contains_key(&build.pid()));
    held.release();
    let ran: Ran = build.end().ok();
    assert_eq!(
        fs_err::read_to_string(nix.physical(ran.stdout.trim())).unwrap(),
        "go\n"
    );
    place.assert_no_process_left(Duration::from_secs(5));
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
    until("it is asleep", || {
        let name = fs_err::read_to_string(format!("/proc/{}/comm", sleeper.id()));
        name.is_ok_and(|name| name == "sleep\n")
    });
    assert!(place.processes().contains_key(&sleeper.id()));
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
}

#[test]
fn choices_can_be_repeated() {
    let mut one = Seed::new("same");
    let choices: Vec<_> = (0..count(400, 1000)).map(|_| one.below(10)).collect();
    assert!(choices.iter().all(|choice| *choice < 10));
    assert!((0..10).all(|number| choices.contains(&number)));
}
