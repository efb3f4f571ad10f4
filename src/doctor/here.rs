//! Examines the embedded engine: with an op of its own, and the machine's accounts.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::agent::probe::{Place, Seen};
use crate::buildkit::workers::CdiAccess;
use crate::doctor::daemon::Means;
use crate::doctor::{Ability, Examined, Fact, Kind, disk};
use crate::engine::embedded::machine::{Accounts, UserMapping};
use crate::engine::embedded::{Config, Embedded};
use crate::engine::lower::STORE_DEVICE;
use crate::engine::probe::{self, Answers, Probe};
use crate::engine::{Engine as _, EngineEvent, Op, OpExit, OpRoot};
use crate::sandbox::ids;

/// How long the op may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Examines this machine, whose store would be below `nix_dir`.
pub fn examine(nix_dir: &Path, means: &Means) -> Examined {
    let mut found = Examined::new(Kind::Embedded, "this machine");
    let accounts = Accounts::of_this_machine();
    let mapping = accounts.mapping(
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    let forbidden = (mapping == UserMapping::Root)
        .then(ids::forbidden)
        .flatten();
    let tried = match forbidden {
        Some(reason) => Err(reason),
        None => run(&accounts, mapping, means),
    };
    match tried {
        Ok(seen) if seen.namespaces.is_ok() => {
            found.ability = Ability::Builds;
            found.facts.push(Fact::fine(
                "strong",
                "an op ran and made namespaces of its own",
            ));
        }
        Ok(Seen { namespaces, .. }) => {
            let reason = namespaces.err().unwrap_or_default();
            let text = format!("an op makes no namespaces: {reason}");
            found.facts.push(Fact::missing("strong", text));
        }
        Err(reason) => found.facts.push(Fact::missing("strong", reason)),
    }
    found.facts.push(users(&accounts, mapping));
    let existing = nix_dir.ancestors().find(|path| path.exists());
    let called = format!("`{}`", nix_dir.display());
    found.facts.push(match existing.map(Place::look) {
        Some(Ok(place)) => disk(&place, &called),
        Some(Err(error)) => Fact::missing("store", format!("{called}: {error}")),
        None => Fact::missing("store", format!("{called} is nowhere")),
    });
    found
}

/// Runs the op; its store is an empty directory.
fn run(accounts: &Accounts, mapping: UserMapping, means: &Means) -> Result<Seen, String> {
    let text = |error: &dyn std::error::Error| crate::tunnel::MachineError::of(error).text;
    let directory = tempfile::Builder::new()
        .prefix("pontoon-doctor-")
        .tempdir_in(&means.temporary)
        .map_err(|error| text(&error))?;
    let (nix_dir, scratch) = (directory.path().join("nix"), directory.path().join("root"));
    for path in [&nix_dir, &scratch] {
        fs_err::create_dir(path).map_err(|error| text(&error))?;
    }
    let answers = Answers::listen(directory.path().join("tunnel")).map_err(|error| text(&error))?;
    let mut device = accounts
        .builders(mapping, &nix_dir)
        .store_device(STORE_DEVICE, &nix_dir);
    // The locks of build users are no concern of an op that builds nothing.
    device.mounts.truncate(1);
    let (tell, heard) = channel();
    let config = Config {
        program: means.program.clone(),
        tunnel: answers.socket.clone(),
        scratch,
        caches: BTreeMap::new(),
        devices: vec![device],
        users: mapping,
    };
    let engine = Embedded::start(config, move |event| {
        let _ = tell.send(event);
    });
    let mut engine = engine.map_err(|error| text(&error))?;
    let nonce = format!("{}-probe-here", means.id);
    let op = Op {
        nonce: nonce.clone(),
        definition: probe::embedded(Probe::Strong(CdiAccess::Everyone), &nonce)
            .map_err(|error| text(&error))?,
        secrets: BTreeMap::new(),
        root: OpRoot::Defined,
    };
    engine.start(op).map_err(|error| text(&error))?;
    match heard.recv_timeout(PATIENCE) {
        Ok(EngineEvent::Ended(end)) => match end.how {
            OpExit::Code(0) => {}
            OpExit::NotStarted { reason } => return Err(reason),
            OpExit::Code(code) => return Err(format!("the op exits with {code}")),
            OpExit::Signal(signal) => return Err(format!("the op is killed by signal {signal}")),
        },
        Ok(EngineEvent::Gone { reason }) => return Err(reason),
        Ok(_) | Err(_) => return Err("the op has not ended".to_owned()),
    }
    let silent = || "the op ended without a word: its tunnel leads nowhere".to_owned();
    answers.of(&nonce).ok_or_else(silent)
}

/// Who builders are.
fn users(accounts: &Accounts, mapping: UserMapping) -> Fact {
    match mapping {
        UserMapping::Root => match ids::build_users(&accounts.group, &accounts.passwd, "nixbld") {
            Ok(members) => {
                let text = format!("builders are the members of `nixbld`: {}", members.len());
                Fact::fine("users", text)
            }
            Err(_) => Fact::fine(
                "users",
                "builders are 51000 to 51063: there is no group `nixbld` with members",
            ),
        },
        UserMapping::Subordinate { uids, .. } => {
            let (first, count) = uids;
            let text = format!("builders are from your {count} subordinate ids, from {first} on");
            Fact::fine("users", text)
        }
        UserMapping::Single { uid, .. } if accounts.has_newuidmap => Fact::warning(
            "users",
            format!("builders are you ({uid}): no range of yours in /etc/subuid and /etc/subgid"),
        ),
        UserMapping::Single { uid, .. } => Fact::warning(
            "users",
            format!("builders are you ({uid}): `newuidmap` is not installed (Debian: uidmap)"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_builders_are_is_told() {
        let accounts = Accounts {
            passwd: "nixbld1:x:999:994::/:/x\n".to_owned(),
            group: "nixbld:x:994:nixbld1\n".to_owned(),
            ..Accounts::default()
        };
        let alone = UserMapping::Single { uid: 7, gid: 7 };
        let range = UserMapping::Subordinate {
            uid: 7,
            gid: 7,
            uids: (100_000, 65_536),
            gids: (100_000, 65_536),
        };
        let told = [UserMapping::Root, alone, range].map(|mapping| users(&accounts, mapping).text);
        insta::assert_snapshot!(told.join("\n"), @"
        builders are the members of `nixbld`: 1
        builders are you (7): `newuidmap` is not installed (Debian: uidmap)
        builders are from your 65536 subordinate ids, from 100000 on
        ");
    }
}
