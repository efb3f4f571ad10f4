//! Effects: what holds them, what they are given, and what nobody else ever sees.
//!
//! Each runs as root and as ordinary users, strong and plain.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use super::support::{BuildUsers, Nix, Place, Ran, Running, Seed, User, run, sandbox_paths};

/// Tools in the store, and two builds of which the pipelines below make use.
pub(super) const BUILDS: &str = r#"
  make = name: text: derivation {
    inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-euc" text ]; PATH = "/bin";
  };
  tool = make "tool" ''
    mkdir -p $out/bin
    cp /bin/sh $out/bin/busybox
    for name in sh ls cat env sort cut tr sha256sum wget sleep id wc chmod; do ln -s busybox $out/bin/$name; done
  '';
  hello = make "hello" "echo hello > $out";
  other = make "other" "echo other > $out";
  bad = make "bad" "echo last words; exit 3";
  sh = text: [ "${tool}/bin/sh" "-euc" text ];
"#;

/// Who runs, and in which shape.
pub(super) struct Stage<'p> {
    name: &'static str,
    shape: &'static str,
    user: Option<User<'p>>,
    nix: Nix<'p>,
    store: PathBuf,
}

impl<'p> Stage<'p> {
    fn all(place: &'p Place) -> Vec<Self> {
        vec![
            Self::root(place, "strong"),
            Self::root(place, "plain"),
            Self::user(place, "user", User::with_range(place), "strong"),
            Self::user(place, "user", User::with_range(place), "plain"),
            // Plain takes a second user id.
            Self::user(place, "bare", User::without_range(place), "strong"),
        ]
    }

    /// Those in which an effect may have the whole store.
    pub(super) fn strong(place: &'p Place) -> Vec<Self> {
        let mut all = Self::all(place);
        all.retain(|stage| stage.shape == "strong");
        all
    }

    /// Where a store path lies on disk.
    pub(super) fn physical(&self, path: &str) -> PathBuf {
        self.nix.physical(path)
    }

    /// Checks that real Nix finds nothing wrong with the store.
    pub(super) fn verify(&self) {
        self.nix.verify();
    }

    fn user(place: &'p Place, name: &'static str, user: User<'p>, shape: &'static str) -> Self {
        let store = user.home().join(format!("store-{shape}"));
        Self {
            name,
            shape,
            nix: Nix::new(place, &format!("{name}-{shape}"), BuildUsers::Nobody).on(&store),
            user: Some(user),
            store,
        }
    }

    pub(super) fn root(place: &'p Place, shape: &'static str) -> Self {
        let nix = Nix::new(place, &format!("root-{shape}"), BuildUsers::Group);
        let store = nix.root().to_owned();
        Self {
            name: "root",
            shape,
            user: None,
            nix,
            store,
        }
    }

    /// `pontoon` with these arguments, on this stage's store.
    pub(super) fn pontoon(&self, arguments: &[&str]) -> Command {
        let mut command = match &self.user {
            Some(user) => user.pontoon(arguments),
            None => self.nix.pontoon(arguments),
        };
        if self.user.is_some() {
            let paths = sandbox_paths().join(" ");
            command
                .arg("--store")
                .arg(&self.store)
                .env("NIX_CONF_DIR", self.nix.configuration())
                .args(["--sandbox-paths", &paths]);
        }
        command.args(["--shape", self.shape]);
        command
    }

    /// `pontoon run` of a pipeline written as an expression with [`BUILDS`] around it.
    pub(super) fn run(&self, pipeline: &str) -> Command {
        let text = format!("let {BUILDS} in {pipeline}");
        self.pontoon(&["run", "--expr", &text, "--json"])
    }
}

/// The event in which a node ended.
pub(super) fn finished<'e>(events: &'e [Value], name: &str) -> &'e Value {
    events
        .iter()
        .find(|event| event["event"] == "node-finished" && event["name"] == name)
        .unwrap_or_else(|| panic!("`{name}` did not finish in {events:#?}"))
}

/// The position of an event.
fn position(events: &[Value], event: &str, name: &str) -> usize {
    events
        .iter()
        .position(|one| one["event"] == event && one["name"] == name)
        .unwrap_or_else(|| panic!("no `{event}` of `{name}` in {events:#?}"))
}

/// What an effect wrote.
pub(super) fn written(ran: &Ran, effect: &str) -> String {
    let node = format!("effect:{effect}");
    let events = ran.json_lines();
    let lines = events
        .iter()
        .filter(|event| event["event"] == "node-log" && event["node"] == node.as_str())
        .map(|event| event["line"].as_str().expect("a line is text"));
    lines.fold(String::new(), |all, line| all + line + "\n")
}

/// The line that follows a word.
pub(super) fn said<'t>(text: &'t str, word: &str) -> &'t str {
    let prefix = format!("{word}: ");
    text.lines()
        .find_map(|line| line.strip_prefix(&prefix))
        .unwrap_or_else(|| panic!("no `{word}` in\n{text}"))
}

/// A server on this machine's loopback. It answers when as many as `together` have asked, with
/// `well done`; it ends after the last answer.
struct Server {
    port: u16,
    thread: JoinHandle<usize>,
}

impl Server {
    fn new(together: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let thread = std::thread::spawn(move || {
            let mut asked: Vec<TcpStream> = Vec::new();
            while asked.len() < together {
                let (stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut line = String::new();
                while reader.read_line(&mut line).unwrap() > 2 {
                    line.clear();
                }
                asked.push(stream);
            }
            for stream in &mut asked {
                let answer = "HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\nwell done\n";
                stream.write_all(answer.as_bytes()).unwrap();
            }
            asked.len()
        });
        Self { port, thread }
    }
}

/// A text's hash, in hexadecimal digits.
pub(super) fn sha256(text: &str) -> String {
    let algorithm = pontoon::nix::HashAlgorithm::Sha256;
    let hash = pontoon::nix::hash_bytes(algorithm, text.as_bytes());
    let digits = |all: String, byte: &u8| format!("{all}{byte:02x}");
    hash.digest_as_bytes().iter().fold(String::new(), digits)
}

/// The files below a directory that hold any of these texts. Nothing is skipped: root reads all. What
/// a daemon removes meanwhile is not there.
pub(super) fn holding(directory: &Path, needles: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in there(fs_err::read_dir(directory)).into_iter().flatten() {
        let entry = entry.unwrap();
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            found.extend(holding(&path, needles));
        } else if kind.is_file() {
            let bytes = there(fs_err::read(&path)).unwrap_or_default();
            let holds = |needle: &&str| {
                bytes
                    .windows(needle.len())
                    .any(|window| window == needle.as_bytes())
            };
            if needles.iter().any(holds) {
                found.push(path);
            }
        }
    }
    found
}

/// What was read, or nothing if it is gone.
fn there<T>(read: std::io::Result<T>) -> Option<T> {
    match read {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        other => Some(other.unwrap()),
    }
}

#[test]
fn an_effect_gets_what_it_asks_for_and_nothing_else() {
    let place = Place::new();
    let mut seed = Seed::new("effect-room");
    let secrets = [(); 3].map(|()| format!("value-{:016x}", seed.next()));
    let certificate = place.write("certificate", &secrets[2]);
    for stage in Stage::all(&place) {
        let server = Server::new(1);
        let pipeline = format!(
            r#"{{
              builds = {{ inherit hello other; }};
              effects.deploy = {{
                command = sh ''
                  echo "arguments: $0|$1"
                  echo "path: $PATH"
                  echo "names: $(env | cut -d= -f1 | sort | tr '\n' ' ')"
                  echo "mode: $MODE"
                  echo "store: $(ls /nix/store | cut -d- -f2 | sort | tr '\n' ' ')"
                  echo "content: $(cat $CONTENT)"
                  (: > $CONTENT) 2>/dev/null && echo "an input is writable"
                  (: > /nix/store/new) 2>/dev/null && echo "the store is writable"
                  ls /.pontoon/store 2>/dev/null && echo "the whole store is in sight"
                  : > $HOME/file; : > $TMPDIR/file
                  for secret in TOKEN KEY CERTIFICATE; do
                    eval file=\$''${{secret}}_FILE
                    echo "$secret: $file $(cat $file | sha256sum | cut -c1-64)"
                  done
                  echo "uid: $(id -u)"
                  echo "fetched: $(wget -q -O - http://127.0.0.1:{port}/)"
                '' ++ [ "zero" "a b" ];
                tools = [ tool ];
                environment = {{ MODE = "deploy it"; CONTENT = hello; }};
                secrets = {{ TOKEN.env = "MY_TOKEN"; KEY = {{ }}; CERTIFICATE.file = "{certificate}"; }};
              }};
            }}"#,
            port = server.port,
            certificate = certificate.display(),
        );
        let mut command = stage.run(&pipeline);
        command.env("MY_TOKEN", &secrets[0]).env("KEY", &secrets[1]);
        let ran = run(&mut command).ok();
        assert_eq!(server.thread.join().unwrap(), 1);
        let text = written(&ran, "deploy");
        let case = format!("{} {}\n{text}", stage.name, stage.shape);
        assert_eq!(said(&text, "arguments"), "zero|a b", "{case}");
        assert_eq!(said(&text, "mode"), "deploy it");
        assert_eq!(said(&text, "content"), "hello");
        assert_eq!(said(&text, "store"), "hello tool ", "{case}");
        assert_eq!(said(&text, "fetched"), "well done", "{case}");
        assert!(said(&text, "path").ends_with("-tool/bin"), "{case}");
        assert!(!said(&text, "path").contains(':'), "{case}");
        let names = "CERTIFICATE_FILE CONTENT HOME KEY_FILE LANG MODE PATH PWD SHLVL TERM TMPDIR \
                     TOKEN_FILE ";
        assert_eq!(said(&text, "names"), names, "{case}");
        assert!(!text.contains("writable"), "{case}");
        assert!(!text.contains("in sight"), "{case}");
        for (name, value) in ["TOKEN", "KEY", "CERTIFICATE"].into_iter().zip(&secrets) {
            let hash = sha256(value);
            let expected = format!("/run/secrets/{name} {hash}");
            assert_eq!(said(&text, name), expected, "{case}");
        }
        stage.nix.verify();
    }
    place.assert_no_process_left(Duration::from_secs(5));
}

#[test]
fn a_secret_is_nowhere_but_with_its_effect() {
    let place = Place::new();
    let mut seed = Seed::new("effect-secrets");
    for stage in Stage::all(&place) {
        let secret = format!("nowhere-{:016x}", seed.next());
        let pipeline = r#"{
          builds = { inherit hello; };
          effects.deploy = {
            command = sh "cat $TOKEN_FILE > $HOME/copy; cat $HOME/copy > $TMPDIR/copy; cat $TOKEN_FILE | sha256sum; exit 5";
            tools = [ tool ];
            secrets.TOKEN = { };
          };
        }"#;
        let with_secret = |command: &mut Command| run(command.env("TOKEN", &secret));
        let ran = with_secret(&mut stage.run(pipeline)).code(20);
        let text = format!("let {BUILDS} in {pipeline}");
        let mut shown = vec![ran.stdout.clone(), ran.stderr.clone()];
        for format in ["llb", "llb-text", "json", "text"] {
            let arguments = ["plan", "--pipeline", "--expr", &text, "--format", format];
            let plan = with_secret(&mut stage.pontoon(&arguments)).ok();
            assert!(!plan.stdout.is_empty());
            shown.extend([plan.stdout, plan.stderr]);
        }
        assert!(shown[0].contains("effect:deploy"));
        assert!(shown[2].contains("/run/secrets/TOKEN"), "{}", shown[2]);
        for text in &shown {
            assert!(!text.contains(&secret), "{}\n{text}", stage.shape);
        }
        let found = holding(place.path(), &[&secret]);
        assert!(found.is_empty(), "{found:?}");
        let drv = fs_err::read_dir(stage.store.join("nix/pontoon/attempts")).unwrap();
        assert!(drv.count() > 0, "attempts are recorded");
    }
}

#[test]
fn a_red_build_holds_every_effect_behind_it() {
    let place = Place::new();
    for stage in Stage::all(&place) {
        let pipeline = r#"{
          builds = { inherit hello bad; };
          effects.all.command = sh "echo must not run";
          effects.narrow = { command = sh "echo narrow"; gate = [ "hello" ]; };
          effects.none = { command = sh "echo none"; gate = [ ]; after = [ "narrow" ]; };
          effects.behind = { command = sh "echo must not run"; gate = [ ]; after = [ "all" ]; };
          effects.needs = { command = sh "cat ${bad}"; gate = [ ]; };
        }"#;
        let ran = run(&mut stage.run(pipeline)).code(100);
        let events = ran.json_lines();
        assert!(!ran.stdout.contains("must not run"), "{}", ran.report());
        let bad = finished(&events, "bad");
        assert_eq!(bad["outcome"]["tail"], serde_json::json!(["last words"]));
        for (effect, because) in [
            ("all", bad["node"].as_str().unwrap()),
            ("needs", bad["node"].as_str().unwrap()),
            ("behind", "effect:all"),
        ] {
            let outcome = &finished(&events, effect)["outcome"];
            assert_eq!(outcome["outcome"], "held", "{effect}: {}", ran.report());
            assert_eq!(outcome["because"], because, "{effect}");
        }
        for effect in ["narrow", "none"] {
            assert_eq!(finished(&events, effect)["outcome"]["outcome"], "succeeded");
        }
        assert!(
            position(&events, "node-finished", "narrow")
                < position(&events, "node-started", "none")
        );
        let last = events.last().unwrap();
        assert_eq!(last["summary"]["effects_held"], 3);
        assert_eq!(last["exit_code"], 100);
    }
    place.assert_no_process_left(Duration::from_secs(5));
}

#[test]
fn a_failed_effect_holds_those_after_it() {
    let place = Place::new();
    let stage = Stage::root(&place, "strong");
    let pipeline = r#"{
      effects.a = { command = sh "echo broken; exit 7"; };
      effects.b = { command = sh "echo must not run"; after = [ "a" ]; };
      effects.c = { command = sh "echo free"; };
    }"#;
    let ran = run(&mut stage.run(pipeline)).code(20);
    let events = ran.json_lines();
    let failed = &finished(&events, "a")["outcome"];
    assert_eq!(failed["failure"]["code"], 7);
    assert_eq!(failed["tail"], serde_json::json!(["broken"]));
    assert_eq!(finished(&events, "b")["outcome"]["because"], "effect:a");
    assert_eq!(finished(&events, "c")["outcome"]["outcome"], "succeeded");
}

#[test]
fn every_run_runs_its_effects_also_two_at_once() {
    let place = Place::new();
    for stage in Stage::all(&place) {
        // It answers only when both effects ask at the same time: neither run waits for the other,
        // and neither takes the other's effect for its own.
        let server = Server::new(2);
        let pipeline = format!(
            r#"{{
              builds = {{ inherit hello; }};
              effects.meet = {{ command = sh "wget -q -O - http://127.0.0.1:{}/"; tools = [ tool ]; }};
            }}"#,
            server.port
        );
        let runs = [(); 2].map(|()| Running::start(&mut stage.run(&pipeline)));
        let mut built = 0;
        for running in runs {
            let ran = running.end().ok();
            assert_eq!(written(&ran, "meet"), "well done\n");
            let events = ran.json_lines();
            built += events.last().unwrap()["summary"]["built"].as_u64().unwrap();
        }
        assert_eq!(server.thread.join().unwrap(), 2);
        assert_eq!(built, 2, "`tool` and `hello`, each by one of the runs");
        let again = Server::new(1);
        let pipeline = pipeline.replace(&server.port.to_string(), &again.port.to_string());
        let ran = run(&mut stage.run(&pipeline)).ok();
        let events = ran.json_lines();
        assert_eq!(events.last().unwrap()["summary"]["built"], 0);
        assert_eq!(again.thread.join().unwrap(), 1);
    }
    place.assert_no_process_left(Duration::from_secs(5));
}

#[test]
fn an_effect_that_takes_too_long_is_ended() {
    let place = Place::new();
    for stage in Stage::all(&place) {
        let pipeline = r#"{
          effects.slow = { command = sh "sleep 300 & sleep 300"; tools = [ tool ]; timeout = "1s"; };
        }"#;
        let ran = run(&mut stage.run(pipeline)).code(20);
        let outcome = finished(&ran.json_lines(), "slow")["outcome"].clone();
        assert_eq!(
            outcome["failure"]["failure"],
            "timed-out",
            "{}",
            ran.report()
        );
        assert_eq!(outcome["failure"]["seconds"], 1);
        assert!(ran.took < Duration::from_mins(1), "{}", ran.report());
        place.assert_no_process_left(Duration::from_secs(5));
    }
    let stage = Stage::root(&place, "strong");
    let pipeline = r#"{ effects.mute = { command = sh "sleep 300"; tools = [ tool ]; }; }"#;
    for (flag, failure) in [("--timeout", "timed-out"), ("--max-silent-time", "silent")] {
        let ran = run(stage.run(pipeline).args([flag, "1"])).code(20);
        let outcome = finished(&ran.json_lines(), "mute")["outcome"].clone();
        assert_eq!(outcome["failure"]["failure"], failure);
    }
}
