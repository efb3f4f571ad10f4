//! Two at once on one store, of which one may be real Nix.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::support::{BuildUsers, Held, Nix, Place, Running, Seed, count, graph, rows, until};

fn build(nix: &Nix<'_>, drvs: &[&str], more: &[&str]) -> Running {
    let wishes: Vec<_> = drvs.iter().map(|drv| format!("{drv}^*")).collect();
    let wishes: Vec<_> = wishes.iter().map(String::as_str).collect();
    let arguments = [&["build", "--json", "--no-link"], more, &wishes].concat();
    Running::start(&mut nix.pontoon(&arguments))
}

#[test]
fn two_builds_share_the_union_of_their_graphs() {
    let place = Place::new();
    let nix = Nix::new(&place, "store", BuildUsers::Group);
    let mut seed = Seed::new("union");
    let shapes = [
        ("strong", "strong"),
        ("plain", "plain"),
        ("strong", "plain"),
    ];
    for number in 0..count(6, 60) {
        let (one, two) = shapes[number % shapes.len()];
        let text = graph(&mut seed, 20, &format!("u{number}"));
        let drvs = nix.instantiate(&place.write("graph.nix", text), None);
        let mut choose = || -> Vec<&str> {
            let chosen = drvs.iter().filter(|_| seed.chance(40));
            chosen.chain([&drvs[19]]).map(String::as_str).collect()
        };
        let (first, second) = (choose(), choose());
        let union = nix.would_build(&[first.as_slice(), &second].concat());
        let running = [
            build(&nix, &first, &["--shape", one]),
            build(&nix, &second, &["--shape", two]),
        ];
        let ran = running.map(|running| running.end().ok());
        let built: usize = ran
            .iter()
            .map(|ran| ran.outcomes().get("built").copied().unwrap_or(0))
            .sum();
        assert_eq!(
            built,
            union.len(),
            "{one} and {two}\n{}\n{}",
            ran[0].report(),
            ran[1].report()
        );
        assert!(
            nix.would_build(&[first.as_slice(), &second].concat())
                .is_empty()
        );
    }
    nix.verify();
}

/// `held`, `behind` which needs it, and what does not.
struct Scene<'p> {
    nix: Nix<'p>,
    held: Held,
    file: PathBuf,
}

impl<'p> Scene<'p> {
    fn new(place: &'p Place) -> Self {
        let held = Held::new(place);
        let nix =
            Nix::new(place, "store", BuildUsers::Group).with_sandbox_path(&held.sandbox_path());
        let text = format!(
            r#"let node = name: needs: script: derivation {{
                 inherit name needs; system = "x86_64-linux"; builder = "/bin/sh";
                 args = [ "-c" "${{script}}; echo $name $needs > $out" ]; }};
               in rec {{
                 a = node "a" [ ] ":"; b = node "b" [ a ] ":"; c = node "c" [ a b ] ":";
                 held = node "held" [ a ] "{}"; behind = node "behind" [ held c ] ":";
                 d = node "d" [ c ] ":";
               }}"#,
            Held::SCRIPT
        );
        let file = place.write("held.nix", text);
        Self { nix, held, file }
    }

    fn drv(&self, attribute: &str) -> String {
        self.nix.instantiate(&self.file, Some(attribute)).remove(0)
    }

    /// The names of the valid outputs.
    fn valid(&self) -> BTreeSet<String> {
        let paths = rows(self.nix.root()).into_keys();
        paths
            .filter_map(|path| Some(path.rsplit_once('-')?.1.to_owned()))
            .collect()
    }

    /// While one program holds `held`, another builds everything that is not behind it.
    fn others_go_on(&self, first: Running, mut second: Running) {
        let free: BTreeSet<String> = ["a", "b", "c", "d"].map(str::to_owned).into();
        until("all that is not behind the held build is valid", || {
            let valid = self.valid();
            assert!(!second.has_ended(), "it cannot end without the held build");
            free.is_subset(&valid)
        });
        assert!(!self.valid().contains("held") && !self.valid().contains("behind"));
        self.held.release();
        first.end().ok();
        second.end().ok();
        assert!(self.valid().contains("behind"));
        self.nix.verify();
    }
}

fn while_we_hold_we_go_on(shape: &str) {
    let place = Place::new();
    let scene = Scene::new(&place);
    let first = build(&scene.nix, &[&scene.drv("held")], &["--shape", shape]);
    scene.held.wait();
    // With one job, waiting for the held build must not take its place.
    let second = [scene.drv("behind"), scene.drv("d")];
    let second: Vec<_> = second.iter().map(String::as_str).collect();
    let second = build(&scene.nix, &second, &["--shape", shape, "-j", "1"]);
    scene.others_go_on(first, second);
}

#[test]
fn while_one_build_is_held_another_goes_on_strong() {
    while_we_hold_we_go_on("strong");
}

#[test]
fn while_one_build_is_held_another_goes_on_plain() {
    while_we_hold_we_go_on("plain");
}

#[test]
fn while_a_build_of_ours_is_held_nix_goes_on() {
    let place = Place::new();
    let scene = Scene::new(&place);
    let first = build(&scene.nix, &[&scene.drv("held")], &[]);
    scene.held.wait();
    let attributes = ["-A", "behind", "-A", "d", "--no-out-link"];
    let mut second = scene.nix.command("nix-build", &attributes);
    let second = Running::start(second.arg(&scene.file));
    scene.others_go_on(first, second);
}

#[test]
fn while_a_build_of_nix_is_held_we_go_on() {
    let place = Place::new();
    let scene = Scene::new(&place);
    let attributes = ["-A", "held", "--no-out-link"];
    let mut first = scene.nix.command("nix-build", &attributes);
    let first = Running::start(first.arg(&scene.file));
    scene.held.wait();
    let second = [scene.drv("behind"), scene.drv("d")];
    let second: Vec<_> = second.iter().map(String::as_str).collect();
    let second = build(&scene.nix, &second, &[]);
    scene.others_go_on(first, second);
}

#[test]
fn nix_and_we_share_the_union_of_a_graph() {
    let place = Place::new();
    let nix = Nix::new(&place, "store", BuildUsers::Group);
    let mut seed = Seed::new("with-nix");
    for number in 0..count(2, 20) {
        let file = place.write("graph.nix", graph(&mut seed, 20, &format!("w{number}")));
        let drvs = nix.instantiate(&file, None);
        let drvs: Vec<_> = drvs.iter().map(String::as_str).collect();
        let theirs = Running::start(&mut nix.command(
            "nix-store",
            &[&["--realise", "--keep-going"], drvs.as_slice()].concat(),
        ));
        let ours = build(&nix, &drvs, &[]).end().ok();
        let theirs = theirs.end().ok();
        let built_by_nix = theirs
            .stderr
            .lines()
            .filter(|line| line.starts_with("building '"));
        let built = ours.outcomes().get("built").copied().unwrap_or(0);
        assert_eq!(
            built + built_by_nix.count(),
            20,
            "{}\n{}",
            ours.report(),
            theirs.report()
        );
        assert!(nix.would_build(&drvs).is_empty());
    }
    nix.verify();
}
