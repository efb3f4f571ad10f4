//! What builders do, in `fixtures/builders.nix`: good ones, bad ones, and those with which we
//! differ from Nix 2.8 on purpose.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::support::{count, make_foreign};
use super::setting::{Way, Who};
use super::{
    Nix, Place, SETTINGS, Setting, Ways, assert_equal_stores, assert_nix_agrees, files,
    instantiate, logs, rows, run,
};

/// The place, and the expression in it.
struct Fixture {
    place: Place,
    file: PathBuf,
    sandbox_path: String,
}

impl Fixture {
    fn new() -> Self {
        let place = Place::new();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/fixtures");
        // The C compiler that linked this test statically can do the same here.
        let attempts = place.at("attempts");
        run(place
            .command("cc")
            .args(["-static", "-o"])
            .arg(&attempts)
            .arg(folder.join("attempts.c")))
        .ok();
        let foreign = place.at("foreign");
        fs_err::copy(&attempts, &foreign).unwrap();
        make_foreign(&foreign);
        let text = fs_err::read_to_string(folder.join("builders.nix")).unwrap();
        place.write("builders.nix", text);
        let port = listen();
        let text = format!("import ./builders.nix {{ port = \"{port}\"; }}");
        let file = place.write("expression.nix", text);
        Self {
            file,
            sandbox_path: format!("/bin/attempts={}", attempts.display()),
            place,
        }
    }

    fn ways(&self) -> Ways<'_> {
        Ways::new(&self.place, Some(&self.sandbox_path))
    }

    fn instantiate(&self, nix: &Nix, group: &str) -> BTreeMap<String, String> {
        instantiate(nix, &self.file, group)
    }
}

/// Says something to everybody who connects, as long as the test program runs; returns the port.
fn listen() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // Who has gone already hears nothing.
            stream
                .and_then(|mut stream| stream.write_all(b"from outside\n"))
                .ok();
        }
    });
    port
}

fn paths(drvs: &BTreeMap<String, String>) -> Vec<&str> {
    drvs.values().map(String::as_str).collect()
}

/// The store path of that name, on disk.
fn output(store: &Path, name: &str) -> PathBuf {
    let rows = rows(store);
    let path = rows.keys().find(|path| path[44..] == *name);
    let path = path.unwrap_or_else(|| panic!("nothing named {name} is valid"));
    store.join(path.trim_start_matches('/'))
}

#[test]
fn builders_do_what_they_do_in_nix() {
    let fixture = Fixture::new();
    let ways = fixture.ways();
    let drvs = fixture.instantiate(&ways.nix, "good");
    assert!(drvs.len() >= 25, "{}", drvs.len());
    let megabyte = drvs["megabyte"].clone();
    let drvs = paths(&drvs);
    ways.nix.realise(&drvs).ok();
    let printed = logs(&ways.nix, &drvs);
    assert!(printed.len() > 1_000_000);
    for setting in SETTINGS {
        for way in ways_of_the_gate(setting) {
            let store = ways.store(setting, way);
            if way == Way::Same {
                fixture.instantiate(&ways.nix.on(&store), "good");
                if let Some(user) = ways.user(setting.who) {
                    user.own(&store);
                }
            }
            let mut command = ways.build(setting, way, &store, &drvs);
            let _proxy = ways.proxy(setting, way, &mut command);
            run(&mut command).ok();
            assert_equal_stores(&store, ways.nix.root(), unlike(setting));
            if way == Way::Proxied {
                assert_hard_links(&store);
                assert_eq!(logs(&ways.nix.on(&store), &drvs), printed);
                assert_own_log(&ways, setting, &store, &megabyte);
                assert_nix_agrees(&ways.nix, &store, unlike(setting));
            }
        }
    }
    fixture.place.assert_no_process_left(Duration::from_secs(5));
}

/// In the gate the way that holds the others, and for root its opposite too.
fn ways_of_the_gate(setting: Setting) -> Vec<Way> {
    let opposite = count(usize::from(setting.who == Who::Root), 2);
    [Way::Proxied, Way::Same, Way::Apart][..=opposite].to_vec()
}

/// An ordinary user without other ids owns the sandbox's root, also with Nix.
fn unlike(setting: Setting) -> &'static [&'static str] {
    match setting.who {
        Who::Bare => &["unreachable"],
        Who::Root | Who::Ranged => &[],
    }
}

/// Checks that our own command shows the log that Nix shows.
fn assert_own_log(ways: &Ways<'_>, setting: Setting, store: &Path, drv: &str) {
    let mut command = ways.pontoon(setting, &["log", drv, "--store"]);
    let shown = run(command.arg(store)).ok().stdout;
    assert!(shown.len() > 1_000_000 && shown == logs(&ways.nix.on(store), &[drv]));
}

fn assert_hard_links(store: &Path) {
    let inode = |path: &str| output(store, path).symlink_metadata().unwrap().ino();
    let of = |name: &str, file: &str| {
        output(store, name)
            .join(file)
            .symlink_metadata()
            .unwrap()
            .ino()
    };
    assert_eq!(of("hard-links", "a"), of("hard-links", "b"));
    assert_eq!(of("hard-links", "a"), of("hard-links-dev", "c"));
    assert_eq!(of("hard-links", "s"), of("hard-links-dev", "s"));
    assert_ne!(inode("hard-links"), inode("hard-links-dev"));
}

#[test]
fn bad_builders_end_as_in_nix() {
    let fixture = Fixture::new();
    let ways = fixture.ways();
    let drvs = fixture.instantiate(&ways.nix, "bad");
    let codes: BTreeMap<&str, i32> = drvs
        .iter()
        .map(|(name, drv)| {
            let code = ways.nix.realise(&[drv]).status.code();
            (name.as_str(), code.expect("Nix ends by itself"))
        })
        .collect();
    let mut kinds: Vec<i32> = codes.values().copied().collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, [1, 100, 102]);
    // The log of what cannot be executed is, in 2.8, an error as Nix sends it between processes.
    let unstarted = ["directory", "foreign", "missing", "relative"];
    let logged: Vec<&str> = drvs
        .iter()
        .filter(|(name, _)| !unstarted.contains(&name.as_str()) && !name.contains("dependent"))
        .map(|(_, drv)| drv.as_str())
        .collect();
    let printed = logs(&ways.nix, &logged);
    for setting in SETTINGS {
        let store = ways.store(setting, Way::Apart);
        for (name, drv) in &drvs {
            let ran = run(&mut ways.build(setting, Way::Apart, &store, &[drv]));
            assert_eq!(
                ran.status.code(),
                Some(codes[name.as_str()]),
                "{}",
                ran.report()
            );
        }
        assert_equal_stores(&store, ways.nix.root(), &[]);
        let ours = ways.nix.on(&store);
        assert_eq!(logs(&ours, &logged), printed, "{setting:?}");
        for name in unstarted {
            let log = run(&mut ours.command("nix-store", &["--read-log", &drvs[name]])).ok();
            assert!(
                log.stdout.starts_with("error: executing '"),
                "{}",
                log.stdout
            );
        }
        ours.verify();
    }
    fixture.place.assert_no_process_left(Duration::from_secs(5));
}

/// Nix spec, appendix B.2.
#[test]
fn a_corrected_hash_needs_no_build() {
    let fixture = Fixture::new();
    let ways = fixture.ways();
    let wrong = fixture.instantiate(&ways.nix, "bad")["mismatch"].clone();
    let right = fixture.instantiate(&ways.nix, "corrected")["mismatch"].clone();
    assert_ne!(wrong, right);
    for setting in SETTINGS {
        let store = ways.store(setting, Way::Apart);
        for _ in 0..2 {
            // The second time the content is there already.
            run(&mut ways.build(setting, Way::Apart, &store, &[&wrong])).code(102);
        }
        let ran = run(ways
            .build(setting, Way::Apart, &store, &[&right])
            .arg("--json"))
        .ok();
        assert!(!ran.outcomes().contains_key("built"), "{}", ran.report());
        let text = fs_err::read_to_string(output(&store, "mismatch")).unwrap();
        assert_eq!(text, "real\n");
    }
}

#[test]
fn the_sandbox_is_that_of_nix() {
    let fixture = Fixture::new();
    let ways = fixture.ways();
    for setting in SETTINGS {
        let reference = ways.reference(setting.who);
        let drv = fixture.instantiate(&reference, "other")["state"].clone();
        run(&mut ways.nix_command(setting.who, "nix-store", &["--realise", &drv])).ok();
        fixture.instantiate(&ways.nix, "other");
        let store = ways.store(setting, Way::Apart);
        run(&mut ways.build(setting, Way::Apart, &store, &[&drv])).ok();
        let (ours, theirs) = (output(&store, "state"), output(reference.root(), "state"));
        let (ours, mut theirs) = (files(&ours), files(&theirs));
        let stat = theirs.get_mut(Path::new("stat")).unwrap();
        *stat = stat.replace("\n/etc 755 ", "\n/etc 555 ");
        if !setting.is_strong() {
            plainly(&mut theirs, &ours);
        }
        assert_eq!(ours, theirs, "{setting:?}");
    }
}

/// Turns what Nix's sandbox looks like into what a plain op looks like.
fn plainly(files: &mut BTreeMap<PathBuf, String>, ours: &BTreeMap<PathBuf, String>) {
    let stat = &ours[Path::new("stat")];
    let build = stat
        .lines()
        .find(|line| line.starts_with("/build "))
        .unwrap();
    let uid = build.split(' ').nth(2).unwrap();
    assert!(uid.starts_with("520") && uid.len() == 5, "{build}");
    let mut change = |name: &str, change: &dyn Fn(&str) -> String| {
        let text = files.get_mut(Path::new(name)).unwrap();
        *text = change(text);
    };
    change("etc", &|text| {
        text.replace("nixbld:x:1000:100:", &format!("nixbld:x:{uid}:{uid}:"))
            .replace("nixbld:!:100:", &format!("nixbld:!:{uid}:"))
    });
    // The op has no power to load modules and the like to begin with.
    let bounding = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("CapBnd:"));
        line.unwrap().to_owned()
    };
    let ours_bounding = bounding(&ours[Path::new("status")]);
    change("status", &|text| {
        text.replace(&bounding(text), &ours_bounding)
    });
    let ours_stat: Vec<&str> = stat.lines().collect();
    change("stat", &|text| {
        let lines = text
            .lines()
            .zip(&ours_stat)
            .map(|(line, our)| owned_plainly(line, our, uid));
        lines.collect()
    });
}

/// A line of `stat` in plain: no user namespace of its own, so root is 0 and the builder has the
/// slot's ids; devices may belong to a user that the op's namespace does not know.
fn owned_plainly(line: &str, our: &str, uid: &str) -> String {
    let mut words: Vec<&str> = line.splitn(5, ' ').collect();
    match words[0] {
        "/" | "/etc" => words[1] = "755",
        "/etc/hosts" => words[1] = "444",
        _ => {}
    }
    for (index, (inside, plain)) in [(2, ("1000", uid)), (3, ("100", uid))] {
        let is_device = our.starts_with("/dev/") || our.starts_with("/proc ");
        words[index] = match words[index] {
            word if word == inside && words[0] != "/" => plain,
            _ if is_device && our.contains(" 65534 65534 ") => "65534",
            _ => "0",
        };
    }
    words.join(" ") + "\n"
}

#[test]
fn differences_from_nix_are_those_written_down() {
    let fixture = Fixture::new();
    let ways = fixture.ways();
    let drvs = fixture.instantiate(&ways.nix, "other");
    let nix = |name: &str, code| ways.nix.realise(&[&drvs[name]]).code(code);
    nix("deeper", 0);
    nix("first", 0);
    nix("shut-directory", 0);
    nix("fixed-reference", 102);
    for setting in SETTINGS {
        let store = ways.store(setting, Way::Apart);
        let build = |name: &str| run(&mut ways.build(setting, Way::Apart, &store, &[&drvs[name]]));
        build("deeper").code(1).says("nested deeper than 63");
        build("fixed-reference")
            .code(1)
            .says("fixed-output derivations must not reference store paths");
        build("shut-directory").ok();
        let mode = |store: &Path| {
            let directory = output(store, "shut-directory").join("d");
            fs_err::metadata(directory).unwrap().permissions().mode() & 0o7777
        };
        assert_eq!((mode(&store), mode(ways.nix.root())), (0o555, 0o444));
        let first = build("first");
        if setting.is_strong() {
            first.ok();
            assert_eq!(
                fs_err::read_to_string(output(&store, "first")).unwrap(),
                "alive\n"
            );
        } else {
            // Process 1 is the agent, so that the builder can kill itself.
            first.code(100).says("signal 9");
        }
    }
}

#[test]
fn the_inputs_of_an_ordinary_user_are_read_only() {
    let fixture = Fixture::new();
    let ways = fixture.ways();
    let reference = ways.reference(Who::Bare);
    let input = fixture.instantiate(&reference, "other")["input"].clone();
    let unreachable = fixture.instantiate(&reference, "good")["unreachable"].clone();
    let drvs = [input.as_str(), &unreachable];
    // The first changes an input in Nix's store, so it must be the last there.
    for drv in drvs.iter().rev() {
        run(&mut ways.nix_command(Who::Bare, "nix-store", &["--realise", drv])).ok();
    }
    for group in ["good", "other"] {
        fixture.instantiate(&ways.nix, group);
    }
    let text = |store: &Path, name| fs_err::read_to_string(output(store, name)).unwrap();
    assert_eq!(text(reference.root(), "input"), "65534\nchanged\n");
    let his = text(reference.root(), "unreachable");
    let his = his.replace("touch /etc/new: worked", "touch /etc/new: failed");
    for setting in SETTINGS {
        let store = ways.store(setting, Way::Apart);
        run(&mut ways.build(setting, Way::Apart, &store, &drvs)).ok();
        let owner = match setting {
            Setting { who: Who::Bare, .. } => "1000",
            Setting {
                shape: "strong", ..
            } => "65534",
            Setting { .. } => "0",
        };
        assert_eq!(text(&store, "input"), format!("{owner}\nkept\n"));
        // In his sandbox the root is his own, also with Nix.
        let is_as_his = text(&store, "unreachable") == his;
        assert_eq!(is_as_his, setting.who == Who::Bare, "{setting:?}");
    }
}

#[test]
fn an_output_alone_is_wanted_and_the_others_built() {
    let fixture = Fixture::new();
    let ways = fixture.ways();
    let drv = fixture.instantiate(&ways.nix, "good")["three"].clone();
    let wanted = format!("{drv}^dev");
    for setting in SETTINGS {
        let store = ways.store(setting, Way::Apart);
        let mut command = ways.build(setting, Way::Apart, &store, &[&wanted]);
        let ran = run(command.arg("--print-out-paths")).ok();
        let dev = output(&store, "three-dev");
        assert!(
            dev.ends_with(ran.stdout.trim().trim_start_matches('/')),
            "{}",
            ran.report()
        );
        // All are built together, and valid.
        output(&store, "three");
        output(&store, "three-doc");
        let again = run(&mut ways.build(setting, Way::Apart, &store, &[&wanted])).ok();
        assert!(again.stderr.contains("1 valid"), "{}", again.report());
    }
}
