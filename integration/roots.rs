//! Effects with another root, or with the whole store: images, Dockerfiles, and Nix in an effect.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::effects::{BUILDS, Stage, finished, holding, said, sha256, written};
use super::support::{Image, Kind, Place, Ran, Registry, Scene, Seed, USER, count, run};

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
    let kinds = [
        Kind::BuildKit,
        Kind::BuildKitStrong,
        Kind::Docker20,
        Kind::Docker29,
        Kind::Docker29Strong,
    ];
    for kind in &kinds[..count(2, kinds.len())] {
        whole_store_on_a_daemon(*kind);
    }
}

fn whole_store_on_a_daemon(kind: Kind) {
    let place = Place::new();
    let pipeline = file(&place, &with_nix(&portable_nix(&place)));
    let scene = Scene::of(kind, &place);
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

/// What an effect says of the root it finds: `/bin/sh -euc` of this.
const LOOK: &str = r#"
  echo "image: $(cat /etc/image)"
  echo "path: $PATH"
  echo "variables: $MARK $OVER $HOME"
  echo "who: $(id -u | tr 0-9 n) $(id -un | tr 0-9 n)"
  echo "store: $(ls /nix/store | busybox cut -d- -f2 | sort | tr '\n' ' ')"
  echo "content: $(cat $CONTENT)"
  for file in /new /etc/new /nix/store/new $CONTENT; do
    (: > $file) 2> /dev/null && echo "$file is writable"
  done
  ls /.pontoon 2> /dev/null && echo "the agent's own is in sight"
  for place in $HOME $TMPDIR /dev/shm; do cat $TOKEN_FILE > $place/copy; done
  echo "token: $(busybox sha256sum < $HOME/copy | busybox cut -c1-64)"
"#;

/// A pipeline with an effect that looks at its root.
fn looking(place: &Place, root: &str) -> PathBuf {
    place.write("content", "of a source");
    let script = LOOK.replace("${", "''${");
    let text = format!(
        r#"let
          built = derivation {{
            name = "built"; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/bin";
            args = [ "-euc" "cp -r ${{./layout}} $out" ];
          }};
        in {{ effects.look = {{
          command = [ "/bin/sh" "-euc" ''{script}'' ];
          environment = {{ CONTENT = ./content; OVER = "ours"; }};
          secrets.TOKEN = {{ }};
          {root}
        }}; }}"#,
    );
    place.write("look.nix", text)
}

fn look(scene: &Scene<'_>, pipeline: &Path, token: &str) -> Ran {
    let mut command = scene.pontoon(&["run"]);
    run(command.arg("-f").arg(pipeline).env("TOKEN", token))
}

/// Checks what an effect says of an image with `mark`, and of the names in its store.
fn assert_rooted(kind: Kind, ran: &Ran, mark: &str, store: &str, token: &str) {
    let text = written(ran, "look");
    assert_eq!(said(&text, "image"), mark, "{text}");
    assert_eq!(said(&text, "path"), "/of/image:/bin", "{text}");
    assert_eq!(said(&text, "variables"), "marked ours /build", "{text}");
    let who = if kind.is_strong() {
        "nnnn nixbld"
    } else {
        "nnnnn nixbldnnnnn"
    };
    assert_eq!(said(&text, "who"), who, "{text}");
    assert_eq!(said(&text, "store"), format!("{store} "), "{text}");
    assert_eq!(said(&text, "content"), "of a source", "{text}");
    assert_eq!(said(&text, "token"), sha256(token), "{text}");
    assert!(!text.contains("writable"), "{text}");
    assert!(!text.contains("in sight"), "{text}");
}

const ENVIRONMENT: [&str; 3] = ["PATH=/of/image:/bin", "MARK=marked", "OVER=theirs"];

fn an_image_is_the_root_of_an_effect(kind: Kind) {
    let place = Place::new();
    let scene = Scene::of(kind, &place);
    let registry = Registry::start(&place, &scene.daemon);
    let image = Image::busybox(&place, "pulled", &ENVIRONMENT);
    let name = registry.add(&image, "test/busybox", "one");
    let pipeline = looking(&place, &format!("image = \"{name}\";"));
    let mut seed = Seed::new("rooted");
    let tokens = [(); 2].map(|()| format!("token-{:016x}", seed.next()));
    // The image is there after the first time; the effect runs each time.
    for token in &tokens {
        let ran = look(&scene, &pipeline, token).ok();
        assert_rooted(kind, &ran, "pulled", "content", token);
    }
    let ops = scene.daemon.ops();
    let effects = ops.iter().filter(|op| op.contains(" effect look"));
    assert_eq!(effects.count(), 2, "{ops:#?}");
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    assert_eq!(holding(place.path(), &tokens), Vec::<PathBuf>::new());
    let missing = looking(
        &place,
        &format!("image = \"{}/test/none:one\";", registry.address()),
    );
    let ran = look(&scene, &missing, "token").code(20);
    let failed = finished(&ran.json_lines(), "look")["outcome"].to_string();
    assert!(failed.contains("cannot make its root"), "{failed}");
    assert!(failed.contains("test/none:one"), "{failed}");
}

#[test]
fn an_image_is_the_root_of_an_effect_on_buildkitd() {
    an_image_is_the_root_of_an_effect(Kind::BuildKit);
}

#[test]
fn an_image_is_the_root_of_an_effect_on_dockerd_29() {
    an_image_is_the_root_of_an_effect(Kind::Docker29);
}

#[test]
fn an_image_is_the_root_of_an_effect_on_strong_daemons() {
    for kind in &Kind::STRONG[..count(1, 2)] {
        an_image_is_the_root_of_an_effect(*kind);
    }
}

#[test]
fn an_image_is_the_root_of_an_effect_on_dockerd_20() {
    an_image_is_the_root_of_an_effect(Kind::Docker20);
}

fn a_dockerfile_makes_the_root_of_an_effect(kind: Kind) {
    let place = Place::new();
    let scene = Scene::of(kind, &place);
    let registry = Registry::start(&place, &scene.daemon);
    let image = Image::busybox(&place, "based", &ENVIRONMENT);
    let name = registry.add(&image, "test/busybox", "one");
    let dockerfile = format!(
        "FROM {name} AS made\nARG VERSION\nCOPY sub/note /etc/note\n         RUN [\"/bin/sh\", \"-c\", \"echo $VERSION $(cat /etc/note) > /etc/image\"]\n         FROM made AS broken\nRUN [\"/bin/sh\", \"-c\", \"echo last words; exit 3\"]\n"
    );
    place.write("deploy/ci/Dockerfile", dockerfile);
    place.write("deploy/sub/note", "noted");
    let root = |target: &str| {
        format!(
            "dockerfile = {{ context = ./deploy; file = \"ci/Dockerfile\"; \
             target = \"{target}\"; args.VERSION = \"two\"; }};"
        )
    };
    let pipeline = looking(&place, &root("made"));
    for token in ["one", "two"] {
        let ran = look(&scene, &pipeline, token).ok();
        assert_rooted(kind, &ran, "two noted", "content deploy", token);
    }
    let ops = scene.daemon.ops();
    let count = |part: &str| ops.iter().filter(|op| op.contains(part)).count();
    // What the Dockerfile makes is cached, the effect on it never.
    assert_eq!(
        (count("/etc/image"), count(" effect look")),
        (1, 2),
        "{ops:#?}"
    );
    let broken = looking(&place, &root("broken"));
    let ran = look(&scene, &broken, "token").code(20);
    let failed = finished(&ran.json_lines(), "look")["outcome"].to_string();
    assert!(failed.contains("cannot make its root"), "{failed}");
    assert!(failed.contains("last words"), "{failed}");
}

#[test]
fn a_dockerfile_makes_the_root_of_an_effect_on_buildkitd() {
    a_dockerfile_makes_the_root_of_an_effect(Kind::BuildKit);
}

#[test]
fn a_dockerfile_makes_the_root_of_an_effect_on_dockerd_29() {
    a_dockerfile_makes_the_root_of_an_effect(Kind::Docker29);
}

#[test]
fn a_dockerfile_makes_the_root_of_an_effect_on_strong_daemons() {
    for kind in &Kind::STRONG[..count(1, 2)] {
        a_dockerfile_makes_the_root_of_an_effect(*kind);
    }
}

#[test]
fn a_dockerfile_makes_the_root_of_an_effect_on_dockerd_20() {
    a_dockerfile_makes_the_root_of_an_effect(Kind::Docker20);
}

fn an_image_of_a_layout_is_the_root_of_an_effect(kind: Kind) {
    let place = Place::new();
    let scene = Scene::of(kind, &place);
    let image = Image::busybox(&place, "laid", &ENVIRONMENT);
    image.layout(&place, "layout");
    // One that lies on this machine, and one that only the daemon's store has.
    for (field, store) in [("./layout", "content layout"), ("built", "built content")] {
        let pipeline = looking(&place, &format!("image = {field};"));
        for token in ["one", "two"] {
            let ran = look(&scene, &pipeline, token).ok();
            assert_rooted(kind, &ran, "laid", store, token);
        }
    }
    fs_err::write(place.at("layout/index.json"), "{}").unwrap();
    let none = looking(&place, "image = ./layout;");
    let ran = look(&scene, &none, "token").code(20);
    let failed = finished(&ran.json_lines(), "look")["outcome"].to_string();
    assert!(
        failed.contains("cannot make its root: the layout has 0 images"),
        "{failed}"
    );
}

#[test]
fn an_image_of_a_layout_is_the_root_of_an_effect_on_buildkitd() {
    an_image_of_a_layout_is_the_root_of_an_effect(Kind::BuildKit);
}

#[test]
fn an_image_of_a_layout_is_the_root_of_an_effect_on_dockerd_29() {
    an_image_of_a_layout_is_the_root_of_an_effect(Kind::Docker29);
}

#[test]
fn an_image_of_a_layout_is_the_root_of_an_effect_on_strong_daemons() {
    for kind in &Kind::STRONG[..count(1, 2)] {
        an_image_of_a_layout_is_the_root_of_an_effect(*kind);
    }
}

#[test]
fn a_layout_is_refused_by_name_on_dockerd_20() {
    let place = Place::new();
    let scene = Scene::of(Kind::Docker20, &place);
    Image::busybox(&place, "laid", &ENVIRONMENT).layout(&place, "layout");
    let pipeline = looking(&place, "image = built;");
    let ran = look(&scene, &pipeline, "token").code(7);
    let ran = ran.says("effect `look` has another root (image /nix/store/");
    let ran = ran.says("`source.ocilayout`");
    assert!(!ran.stdout.contains("node-started"), "{}", ran.report());
}

#[test]
fn an_image_comes_from_a_registry_that_asks_for_a_password() {
    let place = Place::new();
    let scene = Scene::of(Kind::BuildKit, &place);
    let registry = Registry::with_password(&place, &scene.daemon);
    let image = Image::busybox(&place, "kept", &ENVIRONMENT);
    let name = registry.add(&image, "test/kept", "one");
    place.write("tools/bin/tool", "");
    let pipeline = looking(&place, &format!("image = \"{name}\"; tools = [ ./tools ];"));
    let refused = look(&scene, &pipeline, "token").code(20);
    let failed = finished(&refused.json_lines(), "look")["outcome"].to_string();
    assert!(failed.contains("401"), "{failed}");
    let (user, password) = USER;
    let mut encode = place.command("base64");
    let encoded = run(encode.arg(place.write("login", format!("{user}:{password}")))).ok();
    let login = serde_json::json!({ "auth": encoded.stdout.trim() });
    let logins = serde_json::json!({ "auths": { registry.address(): login } });
    place.write("home/.docker/config.json", logins.to_string());
    let ran = look(&scene, &pipeline, "token").ok();
    let text = written(&ran, "look");
    assert_eq!(said(&text, "image"), "kept", "{text}");
    let path = said(&text, "path");
    assert!(path.ends_with("-tools/bin:/of/image:/bin"), "{path}");
    assert!(!ran.report().contains(password), "{}", ran.report());
}
