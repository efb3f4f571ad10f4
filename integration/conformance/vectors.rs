//! The test vectors: what Nix made of them once is in `tests/vectors/manifest.json`, what it makes
//! of them now is in a store beside ours.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use pontoon::engine::device::Users;
use serde_json::Value;

use super::super::support::{BuildUsers, Daemon, Kind, Nix, count, sandbox_paths};
use super::setting::{WAYS, Way};
use super::{
    Place, SETTINGS, Setting, Ways, assert_equal_but_for, assert_nix_agrees, files, instantiate,
    logs, name_of, rows, run,
};

/// Those that build and are supported.
const GOOD: &str = "simple multi deps depDevOnly selfRef escapes rawBytes coercions longName punct \
    drvAsInput envDump passFile placeholders perms names refScan i686 fodFlat fodSha1 fodMd5 \
    fodSha512 fodRec fodRecSha1 fodUserA fodUserA2";
/// Those whose outputs are the same as those of some above: who builds first is their deriver.
const AGAIN: &str = "fodFlatSri fodUserB fodUserB2";
/// Those that fail.
const BAD: &str = "badExit badNoOutput badMode badCycle fodBad badFodDep";
/// Those that are refused, and one whose builder is in no sandbox.
const OTHERS: &str = "bare refGraph structured fetchFile userEnv badAllowedRefs badDisallowedReq";

/// What describes the sandbox itself.
const OF_THE_SANDBOX: [&str; 2] = ["env-dump", "pass-file"];

struct Vectors {
    place: Place,
    file: PathBuf,
    manifest: Vec<Value>,
}

impl Vectors {
    fn new() -> Self {
        let place = Place::new();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
        run(place
            .command("cp")
            .arg("-r")
            .arg(folder.join("input"))
            .arg(place.at("input")))
        .ok();
        // Neither can be relied on in a checkout: git keeps no empty directory, and not everywhere links.
        fs_err::create_dir(place.at("input/src/sub/empty")).unwrap();
        fs_err::remove_file(place.at("input/src/link")).unwrap();
        std::os::unix::fs::symlink("file", place.at("input/src/link")).unwrap();
        let groups = [("good", GOOD), ("again", AGAIN), ("bad", BAD)]
            .map(|(name, list)| format!("{name} = {{ inherit (vectors) {list}; }};"))
            .join("\n");
        let text = format!("let vectors = import ./vectors.nix; in {{ {groups} }}");
        let file = place.write("input/groups.nix", text);
        let manifest = fs_err::read_to_string(folder.join("manifest.json")).unwrap();
        let manifest: Value = serde_json::from_str(&manifest).unwrap();
        let manifest = manifest["derivations"].as_array().unwrap().clone();
        Self {
            place,
            file,
            manifest,
        }
    }

    /// Those of the manifest in a list, by attribute.
    fn listed(&self, list: &str) -> Vec<&Value> {
        let names: BTreeSet<&str> = list.split_whitespace().collect();
        let of_list = |one: &&Value| names.contains(one["attr"].as_str().unwrap());
        self.manifest.iter().filter(of_list).collect()
    }

    /// Checks a store against the manifest.
    fn assert_as_recorded(&self, store: &Path, except: &[&str]) {
        let rows = rows(store);
        let mut compared = 0;
        for vector in self.listed(GOOD).into_iter().chain(self.listed(AGAIN)) {
            if except.contains(&name_of(vector["drv"].as_str().unwrap())) {
                continue;
            }
            for output in vector["outputs"].as_object().unwrap().values() {
                let path = output["path"].as_str().unwrap();
                let row = rows
                    .get(path)
                    .unwrap_or_else(|| panic!("{path} is not valid"));
                let references = output["references"].as_array().unwrap();
                let hash = output["narHash"]["hex"].as_str().unwrap();
                assert_eq!(row.hash, format!("sha256:{hash}"), "{path}");
                assert_eq!(row.nar_size, output["narSize"].as_i64(), "{path}");
                assert_eq!(row.deriver.as_deref(), output["deriver"].as_str(), "{path}");
                assert_eq!(row.ca.as_deref(), output["ca"].as_str(), "{path}");
                assert_eq!(
                    row.ultimate == Some(1),
                    output["ultimate"] == true,
                    "{path}"
                );
                let found: Vec<&str> = row.references.iter().map(String::as_str).collect();
                let recorded: Vec<&str> = references.iter().filter_map(Value::as_str).collect();
                assert_eq!(found, recorded, "{path}");
                compared += 1;
            }
        }
        assert!(compared >= 28, "{compared}");
    }
}

#[test]
fn no_vector_is_forgotten() {
    let vectors = Vectors::new();
    let listed: BTreeSet<&str> = [GOOD, AGAIN, BAD, OTHERS]
        .into_iter()
        .flat_map(str::split_whitespace)
        .collect();
    let all = vectors
        .manifest
        .iter()
        .map(|vector| vector["attr"].as_str().unwrap());
    assert_eq!(listed, all.collect());
}

#[test]
fn vectors_are_built_as_recorded_and_as_nix_builds_them() {
    let vectors = Vectors::new();
    let ways = Ways::new(&vectors.place, None);
    let groups = ["good", "again"].map(|group| instantiate(&ways.nix, &vectors.file, group));
    let groups = groups.map(|group| group.into_values().collect::<Vec<_>>());
    let groups: Vec<Vec<&str>> = groups
        .iter()
        .map(|group| group.iter().map(String::as_str).collect())
        .collect();
    for group in &groups {
        ways.nix.realise(group).ok();
    }
    vectors.assert_as_recorded(ways.nix.root(), &[]);
    let printed = logs(&ways.nix, &groups[0]);
    for setting in SETTINGS {
        for way in WAYS {
            let store = ways.store(setting, way);
            build(&vectors, &ways, setting, way, &store, &groups);
            let except = if setting.is_strong() {
                &[][..]
            } else {
                &OF_THE_SANDBOX
            };
            vectors.assert_as_recorded(&store, except);
            assert_equal_but_for(&store, ways.nix.root(), except, &absent(way, &groups[1]));
            if way == Way::Same {
                if setting.is_strong() {
                    assert_eq!(logs(&ways.nix.on(&store), &groups[0]), printed);
                } else {
                    assert_differs_as_written_down(ways.nix.root(), &store);
                }
                assert_nix_agrees(&ways.nix, &store, except);
            }
        }
    }
}

/// Builds the vectors on a daemon: those that build are as recorded, and those that fail fail as
/// recorded and leave nothing valid.
fn on_a_daemon(kind: Kind) {
    let vectors = Vectors::new();
    let daemon = if kind.is_strong() {
        Daemon::strong(kind, &vectors.place, Users::Machine)
    } else {
        Daemon::of(kind, &vectors.place)
    };
    let nix = Nix::new(&vectors.place, "evaluated", BuildUsers::Nobody);
    let added = run(&mut nix.command("nix-store", &["--add", "/bin/busybox"])).ok();
    let paths = sandbox_paths();
    let names = paths.iter().filter_map(|path| path.split('=').next());
    let paths = names.map(|name| format!("{name}={}", added.stdout.trim()));
    let paths = paths.collect::<Vec<_>>().join(" ");
    let build = |drvs: &[String]| {
        let mut command = nix.pontoon(&["build", "--cores", "1", "--sandbox-paths", &paths]);
        run(daemon.serve(command.args(drvs)))
    };
    for group in ["good", "again"] {
        let drvs = instantiate(&nix, &vectors.file, group);
        let all: Vec<String> = drvs.values().map(|drv| format!("{drv}^*")).collect();
        build(&all).ok();
    }
    let except = if kind.is_strong() {
        &[][..]
    } else {
        &OF_THE_SANDBOX
    };
    vectors.assert_as_recorded(&daemon.root(), except);
    instantiate(&nix, &vectors.file, "bad");
    let before = rows(&daemon.root());
    let bad = vectors.listed(BAD);
    for vector in &bad[..count(2, bad.len())] {
        let drv = vector["drv"].as_str().unwrap();
        let code = i32::try_from(vector["exitCode"].as_i64().unwrap()).unwrap();
        build(&[drv.to_owned()]).code(code);
    }
    let after = rows(&daemon.root());
    let with_deriver = after.iter().filter(|(_, row)| row.deriver.is_some());
    for (path, row) in with_deriver.filter(|(path, _)| !before.contains_key(*path)) {
        let deriver = name_of(row.deriver.as_deref().unwrap());
        assert_eq!(deriver, "fod-bad", "{path}");
    }
    daemon.verify(&nix);
}

#[test]
fn vectors_are_built_as_recorded_by_buildkitd() {
    on_a_daemon(Kind::BuildKit);
}

#[test]
fn vectors_are_built_as_recorded_in_a_store_that_is_a_device() {
    for kind in Kind::STRONG {
        on_a_daemon(kind);
    }
}

#[test]
fn vectors_are_built_as_recorded_by_dockerd_20() {
    on_a_daemon(Kind::Docker20);
}

#[test]
fn vectors_are_built_as_recorded_by_dockerd_29() {
    on_a_daemon(Kind::Docker29);
}

fn build(
    vectors: &Vectors,
    ways: &Ways,
    setting: Setting,
    way: Way,
    store: &Path,
    groups: &[Vec<&str>],
) {
    if way == Way::Same {
        for group in ["good", "again"] {
            instantiate(&ways.nix.on(store), &vectors.file, group);
        }
        if let Some(user) = ways.user(setting.who) {
            user.own(store);
        }
    }
    for group in groups {
        let mut command = ways.build(setting, way, store, group);
        let proxy = ways.proxy(setting, way, &mut command);
        run(&mut command).ok();
        if let Some(proxy) = proxy {
            assert!(
                proxy.carried() > 500,
                "it went another way: {}",
                proxy.carried()
            );
        }
    }
}

/// What needs no building is not imported.
fn absent<'a>(way: Way, drvs: &[&'a str]) -> BTreeSet<&'a str> {
    match way {
        Way::Same => BTreeSet::new(),
        Way::Apart | Way::Proxied => drvs.iter().copied().collect(),
    }
}

/// Checks that V23 and V24 in plain are what they are in Nix, but for what process 1 and the ids
/// are: the list of `docs/differences-from-nix.md`.
fn assert_differs_as_written_down(theirs: &Path, ours: &Path) {
    let output = |store: &Path, name: &str| -> BTreeMap<PathBuf, String> {
        let rows = rows(store);
        let path = rows.keys().find(|path| path[44..] == *name).unwrap();
        files(&store.join(path.trim_start_matches('/')))
    };
    let mut expected = output(theirs, "env-dump");
    let mut found = output(ours, "env-dump");
    let id = found[Path::new("id")].clone();
    let uid = id
        .strip_prefix("uid=")
        .and_then(|id| id.split('(').next())
        .unwrap();
    assert!(uid.starts_with("520") && uid.len() == 5, "{id}");
    for (name, from, to) in [
        (
            "id",
            "uid=1000(nixbld) gid=100(nixbld)".to_owned(),
            format!("uid={uid}(nixbld) gid={uid}(nixbld)"),
        ),
        ("passwd", ":1000:100:".to_owned(), format!(":{uid}:{uid}:")),
        (
            "group",
            "nixbld:!:100:".to_owned(),
            format!("nixbld:!:{uid}:"),
        ),
    ] {
        let text = expected.get_mut(Path::new(name)).unwrap();
        assert!(text.contains(&from), "{text}");
        *text = text.replace(&from, &to);
    }
    let words = found.remove(Path::new("cmdline")).unwrap();
    expected.remove(Path::new("cmdline")).unwrap();
    let words: Vec<&str> = words.lines().collect();
    assert!(
        matches!(words[..], [program, "helper"] if program.ends_with("/pontoon")),
        "{words:?}"
    );
    expected.insert("environ".into(), String::new());
    assert_eq!(found, expected);

    let mut expected = output(theirs, "pass-file");
    expected.insert("environ".into(), String::new());
    assert_eq!(output(ours, "pass-file"), expected);
}

#[test]
fn bad_vectors_end_as_recorded() {
    let vectors = Vectors::new();
    let ways = Ways::new(&vectors.place, None);
    instantiate(&ways.nix, &vectors.file, "bad");
    let wanted = vectors.listed(BAD);
    for setting in SETTINGS {
        let store = ways.store(setting, Way::Apart);
        for vector in &wanted {
            let drv = vector["drv"].as_str().unwrap();
            let code = i32::try_from(vector["exitCode"].as_i64().unwrap()).unwrap();
            run(&mut ways.build(setting, Way::Apart, &store, &[drv])).code(code);
        }
        // The real content of the fixed output with a wrong hash is valid, nothing else.
        let rows = rows(&store);
        let outputs: Vec<_> = rows.values().filter(|row| row.deriver.is_some()).collect();
        assert_eq!(outputs.len(), 1, "{outputs:?}");
        assert_eq!(name_of(outputs[0].deriver.as_deref().unwrap()), "fod-bad");
        assert!(outputs[0].ca.is_some());
    }
}
