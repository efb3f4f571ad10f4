//! `pontoon exec`: runs a program of a store whose links do not resolve on this machine.
//!
//! The process gets a mount namespace in which the store's nix directory is `/nix`, chooses the
//! program by its ordinary path there, and becomes it. Nothing else of the machine changes for it,
//! but it sees its user as root, for that is who may mount. It is no sandbox.
//!
//! The store of a daemon is not on this machine: there the same is done in a container, by the
//! agent, and what the program reads and writes goes through this process.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli::error::{Error, Kind};
use crate::cli::surroundings::Surroundings;
use crate::cli::{apart, args, container, engine, enter, settings};
use crate::nix::STORE_DIR;

/// Run a program of the store
///
/// PATH is a program in the store, or an output that has one in its `bin`. The program sees the
/// store at /nix and the rest of the machine as it is. With a daemon it runs there, in a container
/// that has PATH's closure, an empty root and the daemon's network, and no terminal.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  pontoon exec /nix/store/…-hello
  pontoon exec --store /srv/store /nix/store/…-coreutils/bin/ls -- -l /nix/store
  pontoon exec --engine buildkit /nix/store/…-sqlite < queries.sql")]
pub struct Args {
    /// The program or output
    #[arg(value_name = "PATH")]
    pub path: PathBuf,

    /// The program's arguments
    #[arg(value_name = "ARGS", last = true)]
    pub arguments: Vec<OsString>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc would become part of the help")]
    pub stores: args::Stores,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc would become part of the help")]
    pub engine: args::Engine,
}

impl Args {
    /// Becomes the program, and comes back only with an error; a daemon's program is waited for.
    pub fn run(self, around: &Surroundings) -> Result<u8, Error> {
        let path = logical(&self.path)?;
        // Who names a store means that one, wherever runs take theirs from.
        let named = self.stores.store.is_some() && self.engine.engine.is_none();
        let engine = engine::decide(&self.engine, around)?;
        if !named && !engine.is_here() {
            if self.stores.store.is_some() {
                return Err(Error::usage("`--store` names a store of this machine")
                    .hint("leave it out, or leave out `--engine`"));
            }
            return container::run(&path, &self.arguments, engine, around);
        }
        let place = settings::stores(&self.stores, around)?;
        if !place.store.resolves() {
            enter::nix(&place.store.nix_dir())?;
        }
        become_program(&path, &self.arguments)
    }
}

/// Becomes a program; comes back only with an error.
pub fn become_program<A: AsRef<OsStr>>(path: &Path, arguments: &[A]) -> Result<u8, Error> {
    let program = program(path)?;
    let source = Command::new(&program).args(arguments).exec();
    Err(Error::new(Kind::Other, Exec { program, source }))
}

/// Runs a program in a container, as its first process.
pub fn run_entered<A: AsRef<OsStr>>(path: &Path, arguments: &[A]) -> Result<u8, Error> {
    let program = program(path)?;
    match apart::entered(&program, arguments) {
        Ok(code) => Ok(code),
        Err(source) => Err(Error::new(Kind::Other, Exec { program, source })),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cannot run `{program}`")]
struct Exec {
    program: PathBuf,
    source: std::io::Error,
}

/// A path below the store; a link such as `result` is followed once.
fn logical(path: &Path) -> Result<PathBuf, Error> {
    if path.starts_with(STORE_DIR) {
        return Ok(path.to_owned());
    }
    match fs_err::read_link(path) {
        Ok(target) if target.starts_with(STORE_DIR) => Ok(target),
        _ => Err(
            Error::usage(format!("`{}` is not below `{STORE_DIR}`", path.display()))
                .hint("name the path as the store does, wherever the store lies"),
        ),
    }
}

/// Whether a path has something to run. What a link in it leads to is known in the store alone.
pub fn runs(place: &Path) -> bool {
    match fs_err::symlink_metadata(place) {
        Ok(found) if found.is_file() => found.permissions().mode() & 0o111 != 0,
        Ok(found) if found.is_dir() => fs_err::symlink_metadata(place.join("bin")).is_ok(),
        Ok(_) => true,
        Err(_) => false,
    }
}

/// The program itself, or the one in `bin`: the only one, or the one named like the output.
fn program(path: &Path) -> Result<PathBuf, Error> {
    let metadata = fs_err::metadata(path).map_err(|source| Error::new(Kind::Other, source))?;
    if !metadata.is_dir() {
        return Ok(path.to_owned());
    }
    let bin = path.join("bin");
    let mut programs: Vec<PathBuf> = fs_err::read_dir(&bin)
        .map_err(|source| Error::new(Kind::Other, source))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.metadata()
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        })
        .collect();
    programs.sort();
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .map_or("", package);
    match programs.as_slice() {
        [] => Err(Error::new(
            Kind::Other,
            format!("no program is in `{}`", bin.display()),
        )),
        [only] => Ok(only.clone()),
        several => {
            let named_so = |path: &&PathBuf| path.file_name() == Some(name.as_ref());
            several.iter().find(named_so).cloned().ok_or_else(|| {
                let all: Vec<_> = several
                    .iter()
                    .map(|path| path.display().to_string())
                    .collect();
                let text = format!("`{}` holds several programs", bin.display());
                Error::new(Kind::Usage, text).hint(format!("name one: {}", all.join(", ")))
            })
        }
    }
}

/// `hello` of `<hash>-hello-2.12`: up to the first dash before a digit, as Nix splits names.
fn package(base: &str) -> &str {
    let name = base.split_once('-').map_or(base, |(_, name)| name);
    let dash = name.match_indices('-').find(|(at, _)| {
        name[at + 1..]
            .chars()
            .next()
            .is_some_and(|next| !next.is_ascii_alphabetic())
    });
    dash.map_or(name, |(at, _)| &name[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_hash_and_version() {
        assert_eq!(
            package("0c0rl5kb4b7jlqq8q01qmjdy4vgn2mny-hello-2.12.1"),
            "hello"
        );
        assert_eq!(
            package("0c0rl5kb4b7jlqq8q01qmjdy4vgn2mny-git-minimal"),
            "git-minimal"
        );
    }

    #[test]
    fn chooses_the_program_one_would_expect() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("hash-hello-2.12");
        let add = |name: &str, mode: u32| {
            let path = output.join("bin").join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(&path, "").unwrap();
            fs_err::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        };
        add("notes.txt", 0o644);
        assert!(
            program(&output)
                .unwrap_err()
                .to_string()
                .contains("no program")
        );
        add("greet", 0o755);
        assert!(program(&output).unwrap().ends_with("bin/greet"));
        add("part", 0o755);
        let error = program(&output).unwrap_err();
        assert!(error.kind == Kind::Usage && error.hints[0].contains("bin/greet"));
        add("hello", 0o755);
        assert!(program(&output).unwrap().ends_with("bin/hello"));
        assert!(
            program(&output.join("bin/part"))
                .unwrap()
                .ends_with("bin/part")
        );
    }

    #[test]
    fn only_paths_of_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("result");
        let target = "/nix/store/0c0rl5kb4b7jlqq8q01qmjdy4vgn2mny-hello";
        fs_err::os::unix::fs::symlink(target, &link).unwrap();
        assert_eq!(logical(&link).unwrap(), Path::new(target));
        assert_eq!(logical(Path::new("/bin/sh")).unwrap_err().kind, Kind::Usage);
    }
}
