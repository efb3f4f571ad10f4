//! Very many installables in one call.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::{BuildUsers, Nix, Place, count, run};

/// A wrapper that writes down every call of `nix`, by the name that it is called by.
const COUNTING: &str = "#!/bin/bash
echo call >> \"$HOME/calls\"
case $1 in --version) name=nix ;; *) name=nix-instantiate ;; esac
exec -a $name /usr/bin/nix \"$@\"
";

struct Counting<'p> {
    place: &'p Place,
    nix: Nix<'p>,
    file: String,
}

impl<'p> Counting<'p> {
    fn new(place: &'p Place, attributes: usize) -> Self {
        let wrapper = place.write("path/nix", COUNTING);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs_err::set_permissions(wrapper, mode).unwrap();
        fs_err::create_dir_all(place.at("home")).unwrap();
        let text = format!(
            "let one = n: derivation {{ name = \"n${{toString n}}\"; system = \"x86_64-linux\"; \
             builder = \"/bin/sh\"; }}; in builtins.listToAttrs (builtins.genList (n: {{ \
             name = \"attribute-${{toString n}}\"; value = one n; }}) {attributes}) \
             // {{ bad = throw \"it is bad\"; }}"
        );
        let file = place.write("many.nix", text).display().to_string();
        let nix = Nix::new(place, "store", BuildUsers::Group);
        Self { place, nix, file }
    }

    /// Plans attributes, and counts the calls of `nix`.
    fn plan(&self, attributes: &[String]) -> (crate::support::Ran, usize) {
        let calls = self.place.write("home/calls", "");
        let mut command = self.nix.pontoon(&["plan", "--json", "-f", &self.file]);
        let search = self.place.at("path").display().to_string();
        command
            .args(attributes)
            .env("PATH", format!("{search}:/usr/bin:/bin"));
        let ran = run(&mut command);
        (ran, fs_err::read_to_string(calls).unwrap().lines().count())
    }
}

/// They are what `nix-instantiate` makes of them, and take a handful of calls, also where one of
/// them is wrong.
#[test]
fn many_attributes_of_a_file_take_few_calls_of_nix() {
    let place = Place::new();
    let count = count(2_000, 10_000);
    let counting = Counting::new(&place, count);
    let mut attributes: Vec<String> = (0..count).map(|n| format!("attribute-{n}")).collect();
    let (ran, calls) = counting.plan(&attributes);
    let ran = ran.ok();
    assert!(calls <= 4, "{calls} calls");
    assert!(ran.stderr.lines().count() < 30, "{}", ran.report());
    let document: Value = serde_json::from_str(&ran.stdout).unwrap();
    let nodes = document["nodes"].as_array().unwrap();
    let planned: BTreeMap<&str, &str> = nodes
        .iter()
        .map(|node| {
            let wanter = node["wanted_by"][0]["root"].as_str().unwrap();
            (wanter, node["drv"].as_str().unwrap())
        })
        .collect();
    assert_eq!(planned.len(), count);
    let file = std::path::Path::new(&counting.file);
    for n in [0, count / 2, count - 1] {
        let attribute = attributes[n].as_str();
        let real = counting.nix.instantiate(file, Some(attribute));
        assert_eq!(planned[attribute], real[0]);
    }

    attributes.insert(count - 7, "bad".to_owned());
    let (ran, calls) = counting.plan(&attributes);
    ran.code(3).says("cannot evaluate `bad`").says("it is bad");
    assert!(calls <= 40, "{calls} calls");
}

/// `.drv` paths take no call at all.
#[test]
fn many_derivations_take_no_call_of_nix() {
    let place = Place::new();
    let count = count(1_000, 10_000);
    let counting = Counting::new(&place, count);
    let all = place.write(
        "all.nix",
        format!("removeAttrs (import {}) [ \"bad\" ]", counting.file),
    );
    let drvs = counting.nix.instantiate(&all, None);
    assert_eq!(drvs.len(), count);
    let calls = place.write("home/calls", "");
    let search = place.at("path").display().to_string();
    let drvs: Vec<&str> = drvs.iter().map(String::as_str).collect();
    let mut command = counting
        .nix
        .pontoon(&[&["build", "--dry-run"], drvs.as_slice()].concat());
    let ran = run(command.env("PATH", search)).ok();
    assert_eq!(fs_err::read_to_string(calls).unwrap(), "");
    assert!(
        ran.stderr.contains(&format!("{count} to build")),
        "{}",
        ran.report()
    );
    assert!(ran.stderr.lines().count() < 40, "{}", ran.report());
}
