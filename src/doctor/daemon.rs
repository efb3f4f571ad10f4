//! Examines a `BuildKit` daemon: asks what it says of itself, then tries.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::agent::probe::{Seen, own_network};
use crate::buildkit::workers::{CdiAccess, Worker};
use crate::buildkit::{Address, Daemon};
use crate::doctor::{Ability, Examined, Fact, Kind, LIMIT, change, collection, disk};
use crate::engine::device::Setup;
use crate::engine::embedded::machine::Accounts;
use crate::engine::lower::{STORE_CACHE, STORE_DEVICE};
use crate::engine::probe::{Answers, Probe, Prober};

/// How long a daemon may take to say what it is.
const PATIENCE: Duration = Duration::from_secs(15);

/// What an examination needs.
#[derive(Debug, Clone)]
pub struct Means {
    /// This executable, which is the program of every probe.
    pub program: std::path::PathBuf,
    /// Where a directory for the tunnel's socket is made.
    pub temporary: std::path::PathBuf,
    /// No other examination has it.
    pub id: String,
    /// How the strong shape would be configured.
    pub setup: Setup,
}

/// Examines a daemon, within [`LIMIT`]: what was found out by then is kept.
pub fn examine(kind: Kind, address: &Address, means: &Means) -> Examined {
    let found = Arc::new(Mutex::new(Examined::new(kind, address.to_string())));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Err(error) => add(&found, Fact::missing("connection", error.to_string())),
        Ok(runtime) => runtime.block_on(async {
            let work = Box::pin(visit(kind, address, means, &found));
            if tokio::time::timeout(LIMIT, work).await.is_err() {
                let text = format!("given up after {} s", LIMIT.as_secs());
                add(&found, Fact::missing("connection", text));
            }
        }),
    }
    found.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

type Found = Arc<Mutex<Examined>>;

fn with<T>(found: &Found, change: impl FnOnce(&mut Examined) -> T) -> T {
    change(&mut found.lock().unwrap_or_else(PoisonError::into_inner))
}

fn add(found: &Found, fact: Fact) {
    with(found, |found| found.facts.push(fact));
}

async fn visit(kind: Kind, address: &Address, means: &Means, found: &Found) {
    let daemon = match tokio::time::timeout(PATIENCE, Daemon::connect(address)).await {
        Ok(Ok(daemon)) => daemon,
        Ok(Err(error)) => {
            let text = crate::tunnel::MachineError::of(&error).text;
            return add(found, Fact::missing("connection", text));
        }
        Err(_) => return add(found, Fact::missing("connection", "it does not answer")),
    };
    let worker = match tokio::time::timeout(PATIENCE, daemon.worker()).await {
        Ok(Ok(worker)) => worker,
        Ok(Err(error)) => return add(found, Fact::missing("version", error.message)),
        Err(_) => return add(found, Fact::missing("version", "it lists no worker")),
    };
    add(found, version(&daemon, &worker));
    let directory = tempfile::Builder::new()
        .prefix("pontoon-doctor-")
        .tempdir_in(&means.temporary);
    let opened = match directory {
        Err(error) => Err(error.to_string()),
        Ok(directory) => match Answers::listen(directory.path().join("tunnel")) {
            Err(error) => Err(error.to_string()),
            Ok(answers) => {
                let prober = Prober::open(daemon, answers, &means.program, means.id.clone());
                prober.await.map(|prober| (prober, directory))
            }
        },
    };
    match opened {
        Err(reason) => add(found, Fact::missing("plain", reason)),
        Ok((mut prober, _directory)) => {
            try_all(kind, &worker, &mut prober, means, found).await;
        }
    }
    for fact in of_rules(&worker) {
        let needs_rules = fact.state != crate::doctor::State::Fine;
        add(found, fact);
        if needs_rules {
            let executor = worker.labels.get("executor").map_or("oci", String::as_str);
            let change = change::collection(kind, executor);
            with(found, |found| found.changes.push(change));
        }
    }
    add(
        found,
        Fact::fine(
            "logs",
            "the daemon clips what a step writes (2 MiB); a build's log does not pass there",
        ),
    );
}

fn version(daemon: &Daemon, worker: &Worker) -> Fact {
    let mut text = daemon.describe();
    if let (None, Some(version)) = (&daemon.version, &worker.version) {
        text = format!("{text}, BuildKit {version}");
    }
    for key in ["executor", "snapshotter"] {
        if let Some(value) = worker.labels.get(key) {
            text = format!("{text}, {value}");
        }
    }
    let own = format!("linux/{}", platform());
    if let Some(platform) = worker.platforms.first() {
        text = format!("{text}, {platform}");
        if *platform != own {
            text = format!("{text}; this pontoon is for {own}");
            return Fact::missing("version", text);
        }
    }
    Fact::fine("version", text)
}

/// This executable's architecture, as daemons call it.
fn platform() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

async fn try_all(kind: Kind, worker: &Worker, prober: &mut Prober, means: &Means, found: &Found) {
    match prober.run(Probe::Plain).await {
        Ok(seen) => {
            with(found, |found| found.ability = Ability::Builds);
            add(
                found,
                Fact::fine("plain", "an op without any privilege ran"),
            );
            if let Some(store) = &seen.store {
                add(found, disk(store, &format!("cache mount `{STORE_CACHE}`")));
            }
        }
        Err(reason) => add(found, Fact::missing("plain", reason)),
    }
    let network = network(kind, worker, prober, found).await;
    add(found, network);
    let insecure = prober.run(Probe::Insecure).await;
    let device = worker.device(STORE_DEVICE);
    let strong = match (&insecure, device) {
        (Ok(seen), Some(access)) if seen.namespaces.is_ok() => {
            tried(prober.run(Probe::Strong(access)).await, access, found)
        }
        _ => Fact::missing("strong", lacks(&insecure, device)),
    };
    let is_missing = strong.state == crate::doctor::State::Missing;
    add(found, strong);
    if is_missing {
        let changes = change::strong(kind, &means.setup, &Accounts::of_this_machine());
        with(found, |found| found.changes.extend(changes));
    }
}

/// What came of a strong op.
fn tried(answer: Result<Seen, String>, access: CdiAccess, found: &Found) -> Fact {
    let seen = match answer {
        Ok(seen) => seen,
        Err(reason) => return Fact::missing("strong", reason),
    };
    let Some(store) = &seen.store else {
        return Fact::missing(
            "strong",
            format!("the device `{STORE_DEVICE}` brings no `/nix`"),
        );
    };
    if let Err(error) = &store.writable {
        return Fact::missing(
            "strong",
            format!("the device's `/nix` cannot be written: {error}"),
        );
    }
    add(found, disk(store, &format!("device `{STORE_DEVICE}`")));
    with(found, |found| found.ability = Ability::Builds);
    let who = match access {
        CdiAccess::Everyone => "which every client of the daemon may use",
        CdiAccess::Entitled => "for clients with the entitlement `device`",
    };
    Fact::fine(
        "strong",
        format!("a privileged op ran and made namespaces, with `{STORE_DEVICE}`, {who}"),
    )
}

/// What the strong shape lacks.
fn lacks(insecure: &Result<Seen, String>, device: Option<CdiAccess>) -> String {
    let mut lacks = Vec::new();
    if device.is_none() {
        lacks.push(format!("there is no device `{STORE_DEVICE}`"));
    }
    match insecure {
        Err(reason) if reason.contains("security.insecure") && reason.contains("not allowed") => {
            lacks.push("`security.insecure` is not granted".to_owned());
        }
        Err(reason) => lacks.push(format!("a privileged op does not run: {reason}")),
        Ok(seen) => {
            if let Err(reason) = &seen.namespaces {
                lacks.push(format!("a privileged op makes no namespaces: {reason}"));
            }
        }
    }
    lacks.join("; ")
}

/// What fixed-output builds and effects have.
async fn network(kind: Kind, worker: &Worker, prober: &mut Prober, found: &Found) -> Fact {
    // A dockerd 29 says `host` of its bridge.
    let label = worker.labels.get("network").map(String::as_str);
    let configured = label.filter(|_| kind == Kind::Buildkitd);
    match prober.run(Probe::Network).await {
        Ok(seen) if seen.interfaces.is_empty() => Fact::missing(
            "network",
            "fixed-output builds and effects get a network without any interface",
        ),
        Ok(seen) => {
            let is_ours = (seen.boot, seen.network) == own_network();
            if is_ours || configured == Some("host") {
                Fact::warning(
                    "network",
                    "fixed-output builds and effects are on the network of the daemon's host: there is no CNI",
                )
            } else {
                let names = seen.interfaces.join(", ");
                Fact::fine(
                    "network",
                    format!("fixed-output builds and effects have one of their own ({names})"),
                )
            }
        }
        Err(reason) => match prober.run(Probe::HostNetwork).await {
            Ok(_) => Fact::warning(
                "network",
                format!(
                    "fixed-output builds and effects are on the network of the daemon's host \
                     (`network.host`): it has no default one: {reason}"
                ),
            ),
            Err(host) => {
                with(found, |found| {
                    found.changes.push(change::host_network(kind));
                });
                Fact::missing(
                    "network",
                    format!(
                        "fixed-output builds and effects have none: {reason}; nor that of the host \
                         (`network.host`): {host}"
                    ),
                )
            }
        },
    }
}

/// What the collector means for a store in a cache mount.
fn of_rules(worker: &Worker) -> Vec<Fact> {
    let danger = collection::danger(&worker.rules);
    let numbers = |rules: &[usize]| {
        let rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
        rules.join(", ")
    };
    let mut facts = Vec::new();
    if !danger.remove.is_empty() {
        let text = format!(
            "the rules {} may remove a store in a cache mount between runs",
            numbers(&danger.remove)
        );
        facts.push(Fact::warning("collection", text));
    } else if !danger.measure.is_empty() {
        let text = format!(
            "the rules {} measure a store in a cache mount: an op that starts meanwhile may get an \
             empty one",
            numbers(&danger.measure)
        );
        facts.push(Fact::warning("collection", text));
    } else if worker.rules.is_empty() {
        facts.push(Fact::fine(
            "collection",
            "the daemon collects nothing by itself",
        ));
    } else {
        facts.push(Fact::fine("collection", "no rule touches the store"));
    }
    facts
}

/// Whether a socket is there at all; one of another scheme may be.
pub fn may_exist(address: &Address) -> bool {
    match &address.socket {
        crate::buildkit::address::Socket::Unix(path) => Path::new(path).exists(),
        crate::buildkit::address::Socket::Tcp(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_strong_shape_lacks_is_named() {
        let refused = Err("security.insecure is not allowed".to_owned());
        insta::assert_snapshot!(lacks(&refused, None), @"there is no device `pontoon.dev/store=nix`; `security.insecure` is not granted");
        let broken = Err("runc is missing".to_owned());
        insta::assert_snapshot!(lacks(&broken, Some(CdiAccess::Everyone)), @"a privileged op does not run: runc is missing");
    }
}
