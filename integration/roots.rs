//! Effects with another root, or with the whole store: images, Dockerfiles, and Nix in an effect.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::buildkit::Scene;
use super::effects::{BUILDS, Stage, said, written};
use super::support::{Place, run};

/// Real Nix with its libraries in one directory, which runs from anywhere: for an effect.
fn portable_nix(place: &Place) -> PathBuf {
    let directory = place.at("portable-nix");
    fs_err::create_dir_all(directory.join("lib")).unwrap();
    let program = fs_err::canonicalize("/usr/bin/nix-store").expect("nix-bin is installed");
    fs_err::copy(&program, directory.join("nix")).unwrap();
    let listed = run(place.command("ldd").arg(&program)).ok().stdout;
    for library in listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        let name = Path::new(library).file_name().unwrap();
        fs_err::copy(library, directory.join("lib").join(name)).unwrap();
    }
    directory
}

/// A pipeline whose effect, without a machine to send builds to, adds a file to the store with real Nix, builds a derivation of its own
/// there, and asks the database about what was built before it. `nix` is the directory of Nix.
pub(super) fn with_nix(nix: &Path) -> String {
    format!(
        r##"{{
          builds = {{ inherit hello; }};
          effects.nix = {{
            command = sh ''
              nix() {{ name=$1; shift; $NIX/lib/ld-linux-x86-64.so.2 --argv0 $name --library-path $NIX/lib $NIX/nix "$@"; }}
              printf '#!/bin/sh\necho "# decline-permanently" >&2\n' > $HOME/hook; chmod +x $HOME/hook
              echo "uid: $(id -u)"
              echo "known: $(nix nix-store --query --requisites ${{tool}} | wc -l)"
              echo of an effect > $HOME/note
              echo "added: $(nix nix-store --add $HOME/note)"
              cat > $HOME/made.nix <<END
                derivation {{ name = "made"; system = "x86_64-linux"; builder = "${{tool}}/bin/sh";
                  args = [ "-c" "echo made by an effect > \$out" ]; }}
              END
              drv=$(nix nix-instantiate $HOME/made.nix)
              echo "made: $(nix nix-store --realise $drv)"
            '';
            tools = [ tool ];
            environment = {{
              NIX = ./{nix};
              NIX_CONFIG = "build-users-group =\nsubstitute = false\nbuild-hook = /build/hook";
            }};
            secrets.TOKEN = {{ }};
            store = "whole";
          }};
        }}"##,
        nix = nix.file_name().unwrap().display(),
    )
}

/// Writes a pipeline with [`BUILDS`] around it to a file, where it may name files beside it.
pub(super) fn file(place: &Place, pipeline: &str) -> PathBuf {
    place.write("pipeline.nix", format!("let {BUILDS} in {pipeline}"))
}

fn of_file(stage: &Stage<'_>, verb: &[&str], file: &Path) -> Command {
    let mut command = stage.pontoon(verb);
    command.arg("-f").arg(file).env("TOKEN", "whole-secret");
    command
}

#[test]
fn an_effect_with_the_whole_store_runs_nix_there() {
    let place = Place::new();
    let pipeline = file(&place, &with_nix(&portable_nix(&place)));
    for stage in Stage::strong(&place) {
        let ran = run(of_file(&stage, &["run", "--json"], &pipeline).arg("-L")).ok();
        let text = written(&ran, "nix");
        assert_eq!(said(&text, "uid"), "0", "{text}");
        assert_eq!(said(&text, "known"), "1", "{text}");
        for (word, content) in [("added", "of an effect\n"), ("made", "made by an effect\n")] {
            let path = said(&text, word);
            assert!(path.starts_with("/nix/store/"), "{text}");
            let read = fs_err::read_to_string(stage.physical(path)).unwrap();
            assert_eq!(read, content, "{text}");
        }
        // The build of the effect is in the store's database, for everybody.
        stage.verify();
    }
    let stage = Stage::root(&place, "plain");
    run(&mut of_file(&stage, &["run", "--json"], &pipeline))
        .code(7)
        .says("effect `nix` asks for the whole store")
        .says("leave out `--shape plain`");
}

#[test]
fn an_effect_on_a_daemon_with_the_whole_store_runs_nix_there() {
    let place = Place::new();
    let pipeline = file(&place, &with_nix(&portable_nix(&place)));
    let scene = Scene::new(&place);
    let mut command = scene.pontoon(&["run"]);
    let ran = run(command
        .arg("-f")
        .arg(&pipeline)
        .env("TOKEN", "whole-secret"))
    .ok();
    let text = written(&ran, "nix");
    assert_eq!(said(&text, "uid"), "0", "{text}");
    assert_eq!(said(&text, "known"), "1", "{text}");
    assert_eq!(scene.read(said(&text, "added")), "of an effect\n");
    assert_eq!(scene.read(said(&text, "made")), "made by an effect\n");
    scene.daemon.verify(&scene.nix);
}

#[test]
fn a_root_that_only_a_daemon_makes_is_refused_by_name() {
    let place = Place::new();
    let stage = Stage::root(&place, "strong");
    place.write("deploy/Dockerfile", "FROM scratch\n");
    place.write("layout/index.json", "{}");
    for (field, root) in [
        (
            "image = \"busybox:1.36\"",
            "image docker.io/library/busybox:1.36",
        ),
        ("image = ./layout", "image /nix/store/"),
        ("dockerfile = ./deploy", "Dockerfile of /nix/store/"),
        (
            "dockerfile = { context = ./deploy; file = \"sub/File\"; target = \"last\"; }",
            "sub/File of /nix/store/",
        ),
    ] {
        let text = format!(
            "{{ builds = {{ inherit hello; }}; effects.deploy = {{ command = sh \"true\"; {field}; }}; }}"
        );
        let pipeline = file(&place, &text);
        for verb in [&["run"][..], &["plan", "--pipeline"]] {
            let ran = run(&mut of_file(&stage, verb, &pipeline)).code(7);
            let ran = ran.says(&format!("effect `deploy` has another root ({root}"));
            let ran = ran.says("--engine buildkit");
            assert!(!ran.stderr.contains("hello"), "{}", ran.report());
        }
    }
}

#[test]
fn a_root_that_makes_no_sense_is_named_with_its_field() {
    let place = Place::new();
    let stage = Stage::root(&place, "strong");
    place.write("deploy/Dockerfile", "FROM scratch\n");
    for (fields, message) in [
        (
            "image = 1;",
            "`effects.deploy.image` must be the name of an image",
        ),
        (
            "image = \"/srv/layout\";",
            "`effects.deploy.image` is a path outside the store",
        ),
        (
            "image = \"./layout\";",
            "`effects.deploy.image` is a path outside the store",
        ),
        (
            "image = \"Not A Name\";",
            "`effects.deploy.image` is no name of an image",
        ),
        (
            "dockerfile = \"/srv\";",
            "`effects.deploy.dockerfile` is a path outside the store",
        ),
        (
            "dockerfile = true;",
            "`effects.deploy.dockerfile` must be a directory with a Dockerfile",
        ),
        (
            "dockerfile = { };",
            "`effects.deploy.dockerfile.context` is missing",
        ),
        (
            "dockerfile = { context = ./deploy; tag = \"x\"; };",
            "`effects.deploy.dockerfile.tag` is not a field of a dockerfile",
        ),
        (
            "dockerfile = { context = ./deploy; file = \"../x\"; };",
            "`effects.deploy.dockerfile.file` must be a file below the context",
        ),
        (
            "dockerfile = { context = ./deploy; args.A = \"${hello}\"; };",
            "`effects.deploy.dockerfile.args.A` refers to the store",
        ),
        (
            "image = \"busybox\"; dockerfile = ./deploy;",
            "`effects.deploy` has both `image` and `dockerfile`",
        ),
        (
            "store = \"half\";",
            "`effects.deploy.store` must be \"whole\"",
        ),
        ("store = true;", "`effects.deploy.store` must be \"whole\""),
    ] {
        let text = format!("{{ effects.deploy = {{ command = sh \"true\"; {fields} }}; }}");
        let pipeline = file(&place, &text);
        run(&mut of_file(&stage, &["run"], &pipeline))
            .code(3)
            .says(message);
    }
}
