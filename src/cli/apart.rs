//! What commands ask of the modules below outside of a run: a log, namespaces of their own, and to
//! be the processes that only an engine starts.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::Path;

use super::commands::exec;
use super::error::{Error, Kind};
use super::settings::Store;
use crate::nix::StorePath;
use crate::store::NixDir;
use crate::{agent, engine};

/// Opens the log of a derivation, or of the one that made a path, in the first store that has it.
pub fn log(stores: &[Store], path: &StorePath) -> Result<Box<dyn BufRead>, Error> {
    for store in stores {
        let dir = NixDir::new(store.nix_dir());
        if !dir.path().is_dir() {
            continue;
        }
        let drv = if path.is_derivation() {
            Some(path.clone())
        } else {
            deriver(&dir, path).map_err(|source| Error::new(Kind::Store, source))?
        };
        let Some(drv) = drv else { continue };
        let log = crate::store::logs::open(&dir, &drv);
        if let Some(log) = log.map_err(|source| Error::new(Kind::Store, source))? {
            return Ok(Box::new(BufReader::new(log)));
        }
    }
    let roots: Vec<String> = stores
        .iter()
        .map(|store| store.root.display().to_string())
        .collect();
    let text = format!("there is no log of `{path}` in {}", roots.join(", "));
    Err(Error::new(Kind::Other, text).hint("name the store it was built in: `--store DIR`"))
}

fn deriver(dir: &NixDir, path: &StorePath) -> Result<Option<StorePath>, crate::store::Error> {
    if !dir.db().join("db.sqlite").exists() {
        return Ok(None);
    }
    let store = crate::store::Store::open_read_only(dir.clone())?;
    Ok(store.info(path)?.and_then(|info| info.deriver))
}

/// Makes this process root of a user namespace of its own, with its own mounts; as root, it
/// only gets its own mounts' tree by the same way.
pub fn own_namespaces() -> Result<(), Error> {
    let map = crate::sandbox::ids::UserMap::Single {
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
    };
    crate::sandbox::ids::enter_user_namespace(&map).map_err(|source| {
        let error = Error::new(Kind::Engine, source);
        match crate::sandbox::ids::obstacle() {
            Some(obstacle) => error.hint(obstacle),
            None => error,
        }
    })
}

/// Runs the agent, as an op orders it.
pub fn agent(arguments: &[String]) -> Result<u8, Error> {
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let environment: Vec<(String, String)> = std::env::vars_os().filter_map(text).collect();
    let variable = |name| std::env::var(name).unwrap_or_default();
    if let [install, id] = arguments
        && install == "install"
    {
        let shape = agent::Shape::read(&variable(agent::SHAPE))
            .ok_or_else(|| Error::usage("only an engine delivers the agent"))?;
        let code = agent::install::run(id, shape, &variable(agent::NONCE));
        return Ok(u8::try_from(code).unwrap_or(1));
    }
    if let [export, place] = arguments
        && export == "export"
    {
        let shape = agent::Shape::read(&variable(agent::SHAPE));
        let shape = shape.ok_or_else(|| Error::usage("an export has no shape"))?;
        agent::export::run(place, shape).map_err(|source| Error::new(Kind::Store, source))?;
        return Ok(0);
    }
    if let [enter, path, rest @ ..] = arguments
        && enter == "enter"
    {
        return exec::run_entered(Path::new(path), rest);
    }
    let orders = agent::Orders::read(arguments, &environment)
        .ok_or_else(|| Error::usage("only an engine starts the agent"))?;
    Ok(u8::try_from(agent::run(&orders)).unwrap_or(1))
}

/// Runs a program for as long as its lifeline lasts.
pub fn entered<A: AsRef<OsStr>>(program: &Path, arguments: &[A]) -> std::io::Result<u8> {
    let lost = u8::try_from(agent::exit::LOST).unwrap_or(1);
    Ok(agent::entered::run(program, arguments)?.unwrap_or(lost))
}

/// Runs the embedded engine's helper, whose conductor is at the other end of stdin.
pub fn helper() -> Result<u8, Error> {
    let socket = std::io::stdin().as_fd().try_clone_to_owned();
    let socket = socket.map_err(|source| Error::new(Kind::Engine, source))?;
    Ok(u8::try_from(engine::embedded::helper::serve(socket)).unwrap_or(1))
}
