//! Generated graphs, partly valid: what is to be built, and what it is when it is built, as Nix
//! has it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use fs_err as fs;
use pontoon::nix::StorePath;
use serde_json::Value;

use super::support::{BuildUsers, Nix, Place, Seed, assert_same, count, graph, run};

/// A graph of some store, by what `nix-instantiate` made of it.
struct Graph {
    drvs: Vec<String>,
    /// The outputs of each derivation, by name.
    outputs: BTreeMap<String, BTreeMap<String, String>>,
}

impl Graph {
    fn new(nix: &Nix<'_>, file: &std::path::Path) -> Self {
        let drvs: Vec<String> = nix
            .instantiate(file, None)
            .iter()
            .map(|drv| drv.split('!').next().unwrap().to_owned())
            .collect();
        let texts: Vec<_> = drvs.iter().map(String::as_str).collect();
        let arguments = [
            &[
                "--extra-experimental-features",
                "nix-command",
                "show-derivation",
            ],
            texts.as_slice(),
        ];
        let shown = run(&mut nix.command("nix", &arguments.concat()))
            .ok()
            .stdout;
        let shown: BTreeMap<String, Value> = serde_json::from_str(&shown).unwrap();
        let outputs = shown.into_iter().map(|(drv, value)| {
            let outputs = value["outputs"].as_object().unwrap();
            let path = |value: &Value| value["path"].as_str().unwrap().to_owned();
            let outputs = outputs
                .iter()
                .map(|(name, value)| (name.clone(), path(value)));
            (drv, outputs.collect())
        });
        Self {
            outputs: outputs.collect(),
            drvs,
        }
    }

    /// Derivations to ask for, each with all its outputs or with one: for Nix, and for us.
    fn wishes(&self, seed: &mut Seed) -> (Vec<String>, Vec<String>) {
        let mut wishes = (Vec::new(), Vec::new());
        let all = seed.chance(30);
        for drv in &self.drvs {
            if !all && !seed.chance(30) {
                continue;
            }
            let names: Vec<_> = self.outputs[drv].keys().collect();
            if seed.chance(50) {
                let name = *seed.one_of(&names);
                wishes.0.push(format!("{drv}!{name}"));
                wishes.1.push(format!("{drv}^{name}"));
            } else {
                wishes.0.push(drv.clone());
                wishes.1.push(format!("{drv}^*"));
            }
        }
        if wishes.0.is_empty() {
            wishes.0.push(self.drvs[0].clone());
            wishes.1.push(format!("{}^*", self.drvs[0]));
        }
        wishes
    }
}

/// Makes some outputs valid, whatever they were built from.
fn validate(nix: &Nix<'_>, place: &Place, paths: &[&String]) {
    let mut text = String::new();
    for path in paths {
        fs::write(nix.physical(path), "text").unwrap();
        // Path, hash and size of its NAR, deriver, count of references: none of it is looked at.
        let hash = "0".repeat(64);
        write!(text, "{path}\n{hash}\n120\n\n0\n").expect("a string takes all");
    }
    let file = place.write("registration", text);
    let mut load = place.command("sh");
    load.args([
        "-c",
        "exec nix-store --load-db --store \"$1\" < \"$2\"",
        "sh",
    ]);
    load.arg(nix.root())
        .arg(file)
        .env("NIX_CONF_DIR", nix.configuration());
    run(&mut load).ok();
}

fn planned(nix: &Nix<'_>, wishes: &[String], shape: &str) -> BTreeSet<String> {
    let wishes: Vec<_> = wishes.iter().map(String::as_str).collect();
    let arguments = [&["plan", "--json", "--shape", shape], wishes.as_slice()].concat();
    let plan = run(&mut nix.pontoon(&arguments)).ok().stdout;
    let plan: Value = serde_json::from_str(&plan).unwrap();
    let nodes = plan["nodes"].as_array().unwrap().iter();
    nodes
        .filter(|node| node["decision"] == "build")
        .map(|node| node["drv"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_build_set_is_nixs() {
    let place = Place::new();
    let nix = Nix::new(&place, "store", BuildUsers::Nobody);
    let mut seed = Seed::new("build-set");
    let (mut decided, mut built) = (0, 0);
    for number in 0..count(50, 500) {
        let size = 1 + seed.below(30);
        let text = graph(&mut seed, size, &format!("g{number}"));
        let graph = Graph::new(&nix, &place.write(&format!("g{number}.nix"), text));
        let chances = *seed.one_of(&[0, 10, 40, 80]);
        let valid: Vec<_> = graph
            .outputs
            .values()
            .flat_map(BTreeMap::values)
            .filter(|_| seed.chance(chances))
            .collect();
        validate(&nix, &place, &valid);
        let (theirs, ours) = graph.wishes(&mut seed);
        let theirs: Vec<_> = theirs.iter().map(String::as_str).collect();
        let expected = nix.would_build(&theirs);
        let shape = *seed.one_of(&["strong", "plain"]);
        let planned = planned(&nix, &ours, shape);
        assert_eq!(planned, expected, "graph {number}: {ours:#?}");
        decided += size;
        built += expected.len();
    }
    assert!(
        built > 0 && built < decided,
        "{built} of {decided} are to be built"
    );
}

/// What a large plan asks depends on how much is valid: here on little, then on much.
#[test]
fn the_build_set_of_a_large_graph_is_nixs_whatever_else_is_valid() {
    let place = Place::new();
    let nix = Nix::new(&place, "store", BuildUsers::Nobody);
    let mut seed = Seed::new("large-build-set");
    let text = graph(&mut seed, 1_500, "large");
    let graph = Graph::new(&nix, &place.write("large.nix", text));
    let outputs = graph.outputs.values().flat_map(BTreeMap::values);
    let valid: Vec<_> = outputs.filter(|_| seed.chance(20)).collect();
    validate(&nix, &place, &valid);
    let ours: Vec<String> = graph.drvs.iter().map(|drv| format!("{drv}^*")).collect();
    let theirs: Vec<_> = graph.drvs.iter().map(String::as_str).collect();
    let expected = nix.would_build(&theirs);
    assert!(!expected.is_empty() && expected.len() < ours.len());
    assert_eq!(planned(&nix, &ours, "strong"), expected);
    let others = (0_u32..8_000).map(|number| {
        let mut digest = [7; 20];
        digest[..4].copy_from_slice(&number.to_le_bytes());
        let path = StorePath::from_parts(digest, "other").expect("a digest has 20 bytes");
        path.to_string()
    });
    let others: Vec<String> = others.collect();
    validate(&nix, &place, &others.iter().collect::<Vec<_>>());
    assert_eq!(planned(&nix, &ours, "strong"), expected);
}

/// Builds a part with Nix, the rest with us, and compares with what Nix builds alone.
fn a_rest_is_built(shape: &str) {
    let place = Place::new();
    let ours = Nix::new(&place, "ours", BuildUsers::Group);
    let theirs = Nix::new(&place, "theirs", BuildUsers::Group);
    let mut seed = Seed::new(&format!("rest-{shape}"));
    for number in 0..count(3, 30) {
        let size = 5 + seed.below(20);
        let text = graph(&mut seed, size, &format!("{shape}{number}"));
        let file = place.write(&format!("{number}.nix"), text);
        let graph = Graph::new(&ours, &file);
        theirs.instantiate(&file, None);
        let first: Vec<_> = graph.drvs.iter().filter(|_| seed.chance(25)).collect();
        let first: Vec<_> = first.iter().map(|drv| drv.as_str()).collect();
        if !first.is_empty() {
            ours.realise(&first).ok();
        }
        let all: Vec<_> = graph.drvs.iter().map(String::as_str).collect();
        let rest = ours.would_build(&all);
        let wishes: Vec<_> = all.iter().map(|drv| format!("{drv}^*")).collect();
        let wishes: Vec<_> = wishes.iter().map(String::as_str).collect();
        let arguments = [
            &["build", "--json", "--no-link", "--shape", shape],
            wishes.as_slice(),
        ];
        let ran = run(&mut ours.pontoon(&arguments.concat())).ok();
        assert_eq!(
            ran.outcomes().get("built").copied().unwrap_or(0),
            rest.len()
        );
        theirs.realise(&all).ok();
        let paths = graph.outputs.values().flat_map(BTreeMap::values);
        assert_same(ours.root(), theirs.root(), paths.map(String::as_str));
        ours.verify();
    }
}

#[test]
fn the_rest_of_a_graph_is_built_strong() {
    a_rest_is_built("strong");
}

#[test]
fn the_rest_of_a_graph_is_built_plain() {
    a_rest_is_built("plain");
}
