//! Pipelines as they are written: what is refused before anything runs, and facts.

use super::effects::{BUILDS, Stage, said, written};
use super::support::{Place, run};

#[test]
fn a_secret_that_is_missing_is_named_before_anything_is_built() {
    let place = Place::new();
    let stage = Stage::root(&place, "strong");
    let pipeline = r#"{
      builds = { inherit hello; };
      effects.deploy = { command = sh "true"; secrets = { TOKEN.env = "NOT_SET"; FILE.file = "/no/such"; }; };
    }"#;
    let ran = run(&mut stage.run(pipeline)).code(1);
    let ran = ran.says("secret `TOKEN` of effect `deploy`: the variable `NOT_SET` is not set");
    let ran = ran.says("/no/such");
    assert!(!ran.stdout.contains("node-started"), "{}", ran.report());
}

#[test]
fn what_no_pipeline_has_is_refused_by_name() {
    let place = Place::new();
    let stage = Stage::root(&place, "strong");
    for (field, kind) in [
        ("groups", "a pipeline"),
        ("publish", "a pipeline"),
        ("effects.deploy.once", "an effect"),
        ("effects.deploy.approval", "an effect"),
        ("effects.deploy.publish", "an effect"),
        ("effects.deploy.retry", "an effect"),
        ("effects.deploy.secrets.TOKEN.vault", "a secret"),
    ] {
        let pipeline = format!("{{ effects.deploy.command = sh \"true\"; {field} = 1; }}");
        run(&mut stage.run(&pipeline))
            .code(3)
            .says(&format!("`{field}` is not a field of {kind}"));
    }
}

#[test]
fn facts_come_from_git_as_data_and_from_the_command_line_first() {
    let place = Place::new();
    let stage = Stage::root(&place, "strong");
    let branch = "${abort\"x\"}";
    let flake = format!(
        r#"{{ outputs = _: {{ pipelines.x86_64-linux = let {BUILDS} in {{
          default = facts: {{
            effects.show.command = sh ''for fact in "$@"; do echo "$fact"; done'' ++ [ "zero" ]
              ++ builtins.attrValues (builtins.mapAttrs (name: value: "${{name}}: ${{if builtins.isBool value then toString value else value}}") facts);
          }};
          strict = {{ rev, ticket, approver }}: {{ effects.show.command = [ "x" rev ticket approver ]; }};
        }}; }}; }}"#
    );
    place.write("project/flake.nix", flake);
    let git = |arguments: &[&str]| {
        let identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"];
        let mut command = place.command("git");
        run(command
            .args(identity)
            .args(arguments)
            .current_dir(place.at("project")))
        .ok()
        .stdout
        .trim()
        .to_owned()
    };
    git(&["init", "--quiet"]);
    git(&["checkout", "--quiet", "-b", branch]);
    git(&["add", "flake.nix"]);
    git(&["commit", "--quiet", "-m", "one"]);
    let rev = git(&["rev-parse", "HEAD"]);
    let reference = format!("path:{}", place.at("project").display());
    let show = |more: &[&str]| {
        let ran = run(&mut stage.pontoon(&[&["run", &reference, "--json"], more].concat())).ok();
        written(&ran, "show")
    };
    let text = show(&[]);
    assert_eq!(said(&text, "rev"), rev);
    assert_eq!(said(&text, "branch"), branch);
    assert_eq!(said(&text, "dirty"), "");
    assert!(!text.contains("tag: "), "{text}");
    git(&["tag", "v1"]);
    place.write("project/flake.nix", {
        fs_err::read_to_string(place.at("project/flake.nix")).unwrap() + "# changed\n"
    });
    let text = show(&[
        "--fact",
        "branch=''${builtins.abort \"y\"}",
        "--fact",
        "color=a=b",
    ]);
    assert_eq!(said(&text, "branch"), "''${builtins.abort \"y\"}");
    assert_eq!(said(&text, "color"), "a=b");
    assert_eq!((said(&text, "tag"), said(&text, "dirty")), ("v1", "1"));

    let strict = format!("{reference}#strict");
    let ran = run(&mut stage.pontoon(&["run", &strict, "--fact", "approver=me"]));
    ran.code(3).says("`ticket`").says("--fact ticket=");
    let twice = ["run", &strict, "--fact", "a=1", "--fact", "a=2"];
    run(&mut stage.pontoon(&twice)).code(2).says("`a`");
}
