//! A program of a daemon's store, run in a container of the daemon.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;

use super::args::{self, Shape};
use super::engine::Engine;
use super::error::{Error, Kind};
use super::session::{self, Session};
use super::surroundings::Surroundings;
use super::{failure, settings, signals};
use crate::engine::enter::{self, End, Stream};
use crate::nix::InStore;
use crate::run;

/// Runs a program to its exit code.
pub fn run(
    path: &Path,
    arguments: &[OsString],
    engine: Engine,
    around: &Surroundings,
) -> Result<u8, Error> {
    let place = path.to_str().and_then(InStore::parse);
    let place =
        place.ok_or_else(|| Error::usage(format!("`{}` is no path of a store", path.display())))?;
    let arguments = text(arguments)?;
    let asked = signals::watch()?;
    let engine = engine.settle(&asked)?;
    let Engine::BuildKit {
        address,
        entitlements,
        ..
    } = &engine
    else {
        return Err(Error::usage("the embedded engine needs no container"));
    };
    if engine.shape() == Shape::Strong {
        let text = "its store is a directory of its machine, which its containers cannot have";
        return Err(Error::new(Kind::Engine, text)
            .hint("on that machine: `pontoon exec --store DIR`")
            .hint("`--shape plain` is the store of its plain ops"));
    }
    let session = Session {
        place: &settings::stores(&args::Stores::default(), around)?,
        engine: &engine,
        how: &settings::how(
            &args::Building::default(),
            &args::NixOptions::default(),
            around,
        ),
        around,
        asked: &asked,
    };
    let options = session.options(session::run_id()?)?;
    let ended = run::with_closure(&options, &place.path, |lowering, closure, lifeline| {
        let exec = lowering.enter(&place, arguments, closure);
        let place = enter::Where {
            address,
            entitlements,
            lifeline,
        };
        enter::run(place, &exec, std::io::stdin(), &mut write, &asked.cancel())
    });
    match ended.map_err(|error| failure::run(error, &asked))? {
        None => {
            let text = format!("`{}` is not in the store of {engine}", place.path);
            Err(Error::new(Kind::Store, text).hint("`pontoon build` with that engine makes it"))
        }
        Some(Ok(End::Code(code))) => Ok(code),
        Some(Ok(End::Unheard(source))) if source.kind() == std::io::ErrorKind::BrokenPipe => {
            Err(Error::new(Kind::ClosedPipe, source))
        }
        Some(Ok(End::Unheard(source))) => Err(Error::new(Kind::Other, source)),
        Some(Err(error)) => Err(failure::engine(error, &asked)),
    }
}

/// A daemon takes text only.
fn text(arguments: &[OsString]) -> Result<Vec<String>, Error> {
    let one = |argument: &OsString| {
        let text = argument.to_str().map(str::to_owned);
        text.ok_or_else(|| {
            let shown = argument.display();
            Error::usage(format!(
                "a daemon takes no argument that is not UTF-8: `{shown}`"
            ))
        })
    };
    arguments.iter().map(one).collect()
}

fn write(stream: Stream, data: &[u8]) -> std::io::Result<()> {
    match stream {
        Stream::Output => {
            let mut out = std::io::stdout().lock();
            out.write_all(data)?;
            out.flush()
        }
        Stream::Error => std::io::stderr().lock().write_all(data),
    }
}
