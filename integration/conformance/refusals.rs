//! What is refused by name before anything runs: one test each.

use std::path::Path;

use pontoon::nix::{StoreDir, StorePath};

use super::super::support::{BuildUsers, Nix, Place, rows, run};
use super::name_of;

/// Instantiates an attribute of `refused.nix` with every experiment that this Nix knows.
fn instantiate(nix: &Nix, attribute: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/fixtures/refused.nix");
    let features = "nix-command ca-derivations impure-derivations";
    let option = ["--option", "experimental-features", features];
    let mut command = nix.command("nix-instantiate", &option);
    let ran = run(command.arg(file).args(["-A", attribute])).ok();
    ran.stdout.trim().to_owned()
}

/// Checks that a derivation is refused for a reason, and that nothing else was done.
fn assert_refused(nix: &Nix, drv: &str, reason: &str) {
    let before = rows(nix.root());
    run(&mut nix.pontoon(&["build", drv, "--no-link"]))
        .code(5)
        .says("refused")
        .says(name_of(drv))
        .says(reason);
    // It only shows the plan, which names it too.
    run(&mut nix.pontoon(&["build", drv, "--dry-run"]))
        .ok()
        .says(reason);
    assert_eq!(rows(nix.root()), before, "nothing is built or imported");
    for below in ["var/log/nix/drvs", "pontoon/attempts"] {
        let directory = nix.root().join("nix").join(below);
        let entries = fs_err::read_dir(directory).map_or(0, Iterator::count);
        assert_eq!(
            entries, 0,
            "something has run: there is something in {below}"
        );
    }
}

fn refused(attribute: &str, reason: &str) {
    let place = Place::new();
    let nix = Nix::new(&place, "store", BuildUsers::Group);
    let drv = instantiate(&nix, attribute);
    assert_refused(&nix, &drv, reason);
}

#[test]
fn a_floating_content_addressed_derivation_is_refused() {
    refused("floating", "content-addressed");
}

#[test]
fn what_needs_a_floating_one_is_refused() {
    refused("deferred", "content-addressed");
}

#[test]
fn an_impure_derivation_is_refused() {
    refused("impure", "impure");
}

#[test]
fn a_dynamic_derivation_is_refused() {
    let place = Place::new();
    let nix = Nix::new(&place, "store", BuildUsers::Group);
    let drv = instantiate(&nix, "outside");
    // This Nix knows none, so the text is made from another's: its input is an output of what is
    // built first, and its own output paths cannot be known.
    let text = fs_err::read_to_string(nix.physical(&drv)).unwrap();
    let output = text
        .split('"')
        .find(|word| word.ends_with("-outside"))
        .unwrap();
    let text = text
        .replace(output, "")
        .replacen("Derive(", "DrvWithVersion(\"xp-dyn-drv\",", 1)
        .replacen(
            r#"innocent.drv",["out"])"#,
            r#"innocent.drv",([],[("out",["out"])]))"#,
            1,
        );
    let innocent = text.split('"').find(|word| word.ends_with("-innocent.drv"));
    let innocent = StorePath::from_absolute_path(innocent.unwrap().as_bytes()).unwrap();
    let path = StoreDir::default()
        .build_text_path("outside.drv", text.as_bytes(), [&innocent])
        .unwrap()
        .to_string();
    fs_err::write(nix.physical(&path), text).unwrap();
    assert_refused(&nix, &path, "dynamic");
}

#[test]
fn structured_attributes_are_refused() {
    refused("structured", "`__structuredAttrs`");
}

#[test]
fn export_references_graph_is_refused() {
    refused("graph", "`exportReferencesGraph`");
}

#[test]
fn allowed_references_are_refused() {
    refused("allowedReferences", "`allowedReferences`");
}

#[test]
fn allowed_requisites_are_refused() {
    refused("allowedRequisites", "`allowedRequisites`");
}

#[test]
fn disallowed_references_are_refused() {
    refused("disallowedReferences", "`disallowedReferences`");
}

#[test]
fn disallowed_requisites_are_refused() {
    refused("disallowedRequisites", "`disallowedRequisites`");
}

#[test]
fn output_checks_as_of_size_are_refused() {
    refused("outputChecks", "`outputChecks`");
}

#[test]
fn impure_environment_variables_are_refused() {
    refused("variables", "`impureEnvVars`");
}

#[test]
fn a_builtin_builder_is_refused() {
    refused("builtin", "builtin:fetchurl");
}

#[test]
fn no_chroot_is_refused() {
    refused("outside", "`__noChroot`");
}

#[test]
fn impure_host_dependencies_are_refused() {
    refused("hostDependencies", "`__impureHostDeps`");
}

#[test]
fn an_unknown_system_feature_is_refused() {
    refused("features", "`quantum`");
}

#[test]
fn another_system_is_refused() {
    refused("system", "`aarch64-darwin`");
}
