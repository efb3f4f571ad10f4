//! What comes of outputs: links, names, programs to run, for root and for an ordinary user.

use std::path::Path;
use std::process::Command;

use super::commands::Stage;
use super::support::{Place, User, run, sandbox_paths};

#[test]
fn outputs_are_named_where_a_link_would_not_resolve() {
    let place = Place::new();
    let stage = Stage::new(&place);
    let ran = run(&mut stage.build(&["-A", "hello", "-A", "many^dev"])).ok();
    let ran = ran
        .says("no link is made")
        .says("pontoon exec --store")
        .says("many^dev: /nix/store/");
    assert!(ran.stdout.is_empty(), "{}", ran.report());
    assert!(!place.at("result").is_symlink());
    let printed = run(&mut stage.build(&["-A", "hello", "--print-out-paths"]))
        .ok()
        .stdout;
    let hello = printed.trim();
    assert!(
        fs_err::metadata(stage.nix.physical(hello))
            .unwrap()
            .is_dir()
    );
    for program in [hello.to_owned(), format!("{hello}/bin/hello")] {
        let arguments = ["exec", &program, "--", "a b", "-c"];
        let ran = run(&mut stage.pontoon_before(&arguments)).ok();
        assert_eq!(ran.stdout, "hello a b -c\n");
    }
    let ran = run(&mut stage.pontoon(&["exec", "/bin/sh"])).code(2);
    ran.says("not below `/nix/store`");
}

impl Stage<'_> {
    /// `pontoon` with the store named before a `--`.
    fn pontoon_before(&self, arguments: &[&str]) -> Command {
        let store = self.nix.root().to_str().unwrap();
        let (command, rest) = arguments.split_first().unwrap();
        self.place
            .pontoon(&[&[*command, "--store", store], rest].concat())
    }
}

#[test]
fn an_ordinary_user_evaluates_builds_and_runs_in_his_own_store() {
    let place = Place::new();
    let stage = Stage::new(&place);
    for user in [User::with_range(&place), User::without_range(&place)] {
        let paths = sandbox_paths().join(" ");
        // No store is named: his own is made below his home.
        let his = user.home().join("state");
        let own = |command: &mut Command| run(command.env("XDG_STATE_HOME", &his));
        let arguments = [
            "build",
            "-f",
            &stage.file,
            "-A",
            "hello",
            "--sandbox-paths",
            &paths,
        ];
        let store = his.join("pontoon/store");
        let printed =
            own(&mut user.pontoon(&[&arguments[..], &["--print-out-paths"]].concat())).ok();
        let hello = printed.stdout.trim().to_owned();
        assert!(
            store.join(hello.trim_start_matches('/')).is_dir(),
            "{hello}"
        );
        let ran = own(&mut user.pontoon(&["exec", &hello, "--", "there"])).ok();
        assert_eq!(ran.stdout, "hello there\n");
        stage.nix.on(&store).verify();
    }
}

#[test]
fn the_guide_says_what_happens() {
    let place = Place::new();
    let stage = Stage::new(&place);
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/guide.md");
    let guide = fs_err::read_to_string(guide).unwrap();
    let flake = guide.split("```nix\n").nth(1).unwrap();
    let flake = flake.split("```").next().unwrap();
    place.write("project/flake.nix", flake);
    fs_err::create_dir_all(place.at("project/tools/bin")).unwrap();
    run(place
        .command("cp")
        .args(["/bin/busybox", "project/tools/bin/"]))
    .ok();
    let shown = |arguments: &[&str], secret: Option<&str>, code| {
        let mut command = stage.pontoon(arguments);
        command.current_dir(place.at("project"));
        if let Some(secret) = secret {
            command.env("TOKEN", secret);
        }
        let ran = run(&mut command).code(code);
        // What differs from run to run: places, hashes, times.
        let same = |line: &str| {
            let varies = [" in ", "after", "/", "time ", "evaluating"];
            let is_commit = |word: &str| word.len() >= 40;
            !varies.iter().any(|word| line.contains(word)) && !line.split([' ', ',']).any(is_commit)
        };
        for line in (ran.stdout.clone() + &ran.stderr)
            .lines()
            .filter(|line| same(line))
        {
            assert!(
                guide.contains(line),
                "the guide lacks `{line}`: {}",
                ran.report()
            );
        }
        ran
    };
    shown(&["build", "path:."], None, 0);
    shown(&["plan", "--pipeline", "path:."], None, 0);
    shown(&["run", "path:."], None, 1);
    for _ in 0..2 {
        let ran = shown(&["run", "path:.", "-L"], Some("very-secret"), 0);
        ran.says("announcing 'Hello, world!' of no revision, with a token of 11 bytes");
    }
    let red = flake.replace("echo 'Hello, world!'", "echo 'Goodbye!'");
    place.write("project/flake.nix", red);
    shown(&["run", "path:."], Some("very-secret"), 100).says("held effect announce");
    let lines = guide.lines().filter_map(|line| line.strip_prefix("$ "));
    let script: Vec<&str> = lines
        .skip_while(|line| !line.contains("echo 'Goodbye!'/echo"))
        .take_while(|line| !line.contains("pontoon"))
        .collect();
    assert_eq!(script.len(), 2, "the error is mended, then committed");
    let mut commit = place.command("sh");
    commit
        .args(["-euc", &script.join("\n")])
        .current_dir(place.at("project"));
    for who in ["AUTHOR", "COMMITTER"] {
        commit
            .env(format!("GIT_{who}_NAME"), "a")
            .env(format!("GIT_{who}_EMAIL"), "a@example.org");
    }
    run(&mut commit).ok();
    let ran = shown(&["run", "-L"], Some("very-secret"), 0);
    let commit = run(place
        .command("git")
        .args(["-C", "project", "rev-parse", "HEAD"]))
    .ok();
    ran.says(&format!("'Hello, world!' of {}", commit.stdout.trim()));
    let page = include_str!("../docs/environment.md");
    for entry in fs_err::read_dir(stage.nix.root().join("nix/pontoon")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(page.contains(&format!("| `pontoon/{name}")), "{name}");
    }
}

/// The machine's own store, which is another one in a mount namespace of its own.
#[test]
fn links_are_made_where_they_resolve_and_are_roots() {
    let place = Place::new();
    let stage = Stage::new(&place);
    fs_err::create_dir_all(place.at("machine/nix/store")).unwrap();
    fs_err::create_dir(place.at("work")).unwrap();
    let script = format!(
        r#"set -eu
        mount --bind {machine} /nix
        cd {work}
        pontoon() {{ {pontoon} "$@"; }}
        pontoon build -f {file} -A hello -A 'many^dev,out'
        ./result/bin/hello linked
        cat result-1 result-1-dev
        pontoon build -f {file} -A word-of -o sub/word --cores 3
        cat sub/word
        nix-collect-garbage > /dev/null 2>&1
        ./result/bin/hello kept
        pontoon exec ./result -- run
        pontoon build -f {file} -A word-of --no-link --print-out-paths
        pontoon build -f {file} -A hello -o ci 2> error || true
        echo mine > taken
        pontoon build -f {file} -A hello -o taken 2> error && exit 1
        cat error taken
        rm sub/word; nix-collect-garbage > /dev/null 2>&1
        ls /nix/store | cut -d- -f2- | sort
        nix-store --verify --check-contents"#,
        machine = place.at("machine/nix").display(),
        work = place.at("work").display(),
        pontoon = env!("CARGO_BIN_EXE_pontoon"),
        file = stage.file,
    );
    let mut command = place.command("unshare");
    command
        .args(["--mount", "sh", "-c", &script])
        .env("NIX_CONF_DIR", stage.nix.configuration());
    let ran = run(&mut command).ok();
    for text in [
        "hello linked\nout\ndev\nnone 3\nhello kept\nhello run\n/nix/store/",
        "is in the way",
        "mine\n",
        "hello\n",
    ] {
        assert!(ran.stdout.contains(text), "`{text}`: {}", ran.report());
    }
    let kept = ran.stdout.split("mine\n").nth(1).unwrap();
    assert!(
        kept.lines().any(|line| line == "many-dev"),
        "{}",
        ran.report()
    );
    assert!(!kept.lines().any(|line| line == "word"), "{}", ran.report());
    assert!(!Path::new("/nix/store").join("none").exists());
}

#[test]
fn logs_and_cores_follow_their_options() {
    let place = Place::new();
    let stage = Stage::new(&place);
    let options = [
        "-A",
        "word-of",
        "--no-link",
        "-L",
        "--cores",
        "5",
        "--argstr",
        "word",
        "seen",
    ];
    let ran = run(&mut stage.build(&options))
        .ok()
        .says("word> said /nix/store/");
    assert!(ran.stdout.is_empty());
    let path =
        run(&mut stage.build(&[&options[..3], &options[6..], &["--print-out-paths"]].concat()));
    let path = path.ok().stdout;
    let text = fs_err::read_to_string(stage.nix.physical(path.trim())).unwrap();
    assert_eq!(text, "seen 5\n");
    let quiet = run(&mut stage.build(&["-A", "many", "--no-link", "-q"])).ok();
    assert!(
        quiet.stdout.is_empty() && !quiet.stderr.contains("building"),
        "{}",
        quiet.report()
    );
}
