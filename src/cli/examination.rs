//! Which engines are examined, and waiting for all of them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::error::{Error, Kind};
use super::session;
use super::settings::Store;
use super::signals::Asked;
use super::surroundings::Surroundings;
use crate::buildkit::address::{Address, Service};
use crate::doctor::daemon::{self, Means};
use crate::doctor::{self, Examined, Fact, Report, change, evaluation, here};

/// How often it is asked whether the user has lost patience.
const TICK: Duration = Duration::from_millis(50);

/// Examines everything; `named` is the nix directory a daemon's strong store would have.
pub fn report(
    store: &Store,
    named: Option<&Path>,
    around: &Surroundings,
    asked: &Asked,
) -> Result<Report, Error> {
    let program = std::env::current_exe().map_err(|source| Error::new(Kind::Other, source))?;
    let means = Means {
        program,
        temporary: std::env::temp_dir(),
        id: session::run_id()?,
        setup: change::setup(named),
    };
    let mut candidates = daemons(doctor::Kind::Buildkitd, around);
    candidates.extend(daemons(doctor::Kind::Dockerd, around));
    let (tell, heard) = channel();
    let nix_dir = store.nix_dir();
    start(0, &tell, {
        let means = means.clone();
        move || here::examine(&nix_dir, &means)
    });
    let count = candidates.len() + 1;
    for (number, candidate) in candidates.into_iter().enumerate() {
        let mut means = means.clone();
        means.id = format!("{}-{number}", means.id);
        start(number + 1, &tell, move || candidate.examine(&means));
    }
    let search = around.variables.get("PATH").map(OsString::as_os_str);
    let environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    let evaluation = evaluation::examine(search, &environment, &asked.cancel());
    let mut found = Vec::new();
    while found.len() < count {
        asked.check()?;
        match heard.recv_timeout(TICK) {
            Ok(examined) => found.push(examined),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    found.sort_by_key(|(number, _)| *number);
    Ok(Report {
        engines: found.into_iter().map(|(_, examined)| examined).collect(),
        evaluation,
    })
}

fn start(
    number: usize,
    tell: &Sender<(usize, Examined)>,
    work: impl FnOnce() -> Examined + Send + 'static,
) {
    let tell = tell.clone();
    std::thread::spawn(move || tell.send((number, work())));
}

/// A daemon that may be there.
#[derive(Debug, PartialEq, Eq)]
enum Candidate {
    /// It can be tried.
    Address(doctor::Kind, Address),
    /// It cannot.
    None(Examined),
}

impl Candidate {
    fn examine(self, means: &Means) -> Examined {
        match self {
            Self::Address(kind, address) => daemon::examine(kind, &address, means),
            Self::None(examined) => examined,
        }
    }
}

/// The daemons of one kind: the one the variable names, else those at the usual sockets.
fn daemons(kind: doctor::Kind, around: &Surroundings) -> Vec<Candidate> {
    let (variable, service, rootful, rootless) = match kind {
        doctor::Kind::Dockerd => (
            "DOCKER_HOST",
            Service::Dockerd,
            Address::usual_dockerd(),
            "docker.sock",
        ),
        _ => (
            "BUILDKIT_HOST",
            Service::BuildKitd,
            Address::usual(),
            "buildkit/buildkitd.sock",
        ),
    };
    if let Some(value) = around.variables.get(variable) {
        let text = value.to_string_lossy().into_owned();
        return vec![match Address::parse(service, &text) {
            Ok(address) => Candidate::Address(kind, address),
            Err(error) => {
                let fact = Fact::missing("connection", format!("`{variable}`: {error}"));
                none(kind, &text, fact)
            }
        }];
    }
    let own = around
        .directory("XDG_RUNTIME_DIR")
        .map(|directory: PathBuf| {
            let path = directory.join(rootless);
            Address::parse(service, &format!("unix://{}", path.display()))
        });
    let usual: Vec<Address> = [rootful.clone()]
        .into_iter()
        .chain(own.and_then(Result::ok))
        .collect();
    let there: Vec<Candidate> = usual
        .into_iter()
        .filter(daemon::may_exist)
        .map(|address| Candidate::Address(kind, address))
        .collect();
    if !there.is_empty() {
        return there;
    }
    let text = format!("nobody listens at its usual sockets; `{variable}` names another");
    vec![none(
        kind,
        &rootful.to_string(),
        Fact::missing("connection", text),
    )]
}

fn none(kind: doctor::Kind, place: &str, fact: Fact) -> Candidate {
    let mut examined = Examined::new(kind, place);
    examined.facts.push(fact);
    Candidate::None(examined)
}
