//! Which pipeline it is, among all that run on one store.
//!
//! Two repositories may both have a pipeline `release`, and one repository has many checkouts. So a
//! pipeline is known by where it comes from, in this order, and by its name:
//!
//! | it lies in | it comes from |
//! |---|---|
//! | a git repository with a remote `origin` | the remote's address, and the place in the repository |
//! | any other directory of this machine | its absolute path |
//! | another flake | its address |
//!
//! An address is `HOST/PATH`, whichever way leads there, without revision and parameters: a
//! pipeline of tomorrow's commit is the same one. Whoever logs in on the way is left out, for that
//! may be a secret.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::facts::ask;
use super::process;

/// What flakes call hosts that they know by name.
const HOSTS: [(&str, &str); 3] = [
    ("github", "github.com"),
    ("gitlab", "gitlab.com"),
    ("sourcehut", "git.sr.ht"),
];

/// Where a directory comes from by what git says of it, if it says anything.
pub fn of_repository(
    git: &Path,
    directory: &Path,
    environment: &[(OsString, OsString)],
    cancel: &AtomicBool,
) -> Result<Option<String>, process::Error> {
    let ask = |arguments: &[&str]| ask(git, directory, environment, cancel, arguments);
    let Some(remote) = ask(&["config", "--get", "remote.origin.url"])? else {
        return Ok(None);
    };
    let inside = ask(&["rev-parse", "--show-prefix"])?.unwrap_or_default();
    let place = format!("{}/{inside}", address(&remote));
    Ok(Some(place.trim_end_matches('/').to_owned()))
}

/// Where a directory of this machine comes from if nothing else is known of it.
pub fn of_directory(directory: &Path) -> String {
    let absolute = directory.canonicalize();
    absolute
        .as_deref()
        .unwrap_or(directory)
        .display()
        .to_string()
}

/// The directory of the flake that is meant by a directory: its own, or one above.
pub fn flake_of(directory: &Path) -> PathBuf {
    let absolute = directory.canonicalize();
    let above = absolute.iter().flat_map(|directory| directory.ancestors());
    let flake = above
        .into_iter()
        .find(|above| above.join("flake.nix").exists());
    flake.unwrap_or(directory).to_owned()
}

/// The part of a source that a flake reference says its flake is in.
pub fn folder(reference: &str) -> Option<&str> {
    let (_, parameters) = reference.split_once('?')?;
    let mut parameters = parameters.split('&');
    parameters.find_map(|parameter| parameter.strip_prefix("dir="))
}

/// Where a flake that is elsewhere comes from.
pub fn of_flake(reference: &str) -> String {
    let bare = reference.split('?').next().unwrap_or_default();
    let known = HOSTS.iter().find_map(|(name, host)| {
        let path = bare.strip_prefix(name)?.strip_prefix(':')?;
        // What follows the repository is a branch or a revision.
        let repository: Vec<&str> = path.splitn(3, '/').take(2).collect();
        Some(format!("{host}/{}", repository.join("/")))
    });
    let place = known.unwrap_or_else(|| address(bare));
    match folder(reference) {
        Some(folder) => format!("{place}/{folder}"),
        None => place,
    }
}

/// An address without the way and without whoever logs in.
fn address(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let bare = match text.split_once("://") {
        Some((_, rest)) => without_user(rest).to_owned(),
        // As `user@host:path`, which is no local path.
        None => match text.split_once(':') {
            Some((host, path)) if !host.contains('/') => {
                format!("{}/{}", without_user(host), path.trim_start_matches('/'))
            }
            _ => text.to_owned(),
        },
    };
    let bare = bare.trim_end_matches('/');
    bare.strip_suffix(".git").unwrap_or(bare).to_owned()
}

/// Leaves out what is before the host.
fn without_user(rest: &str) -> &str {
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => &rest[at + 1..],
        None => rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_same_whichever_way_leads_there_and_tells_no_secret() {
        for text in [
            "https://example.org/team/tool.git",
            "https://job:secret@example.org/team/tool.git/",
            "ssh://git@example.org/team/tool",
            "git@example.org:team/tool.git",
            "example.org:/team/tool",
        ] {
            assert_eq!(address(text), "example.org/team/tool", "{text}");
        }
        assert_eq!(address("/srv/git/tool.git"), "/srv/git/tool");
        assert_eq!(address("file:///srv/git/tool"), "/srv/git/tool");
        assert_eq!(address("../tool"), "../tool");
        assert_eq!(address("https://h/a@b/c"), "h/a@b/c");
    }

    #[test]
    fn a_flake_is_the_same_in_every_revision() {
        for text in [
            "github:team/tool",
            "github:team/tool/main",
            "github:team/tool/branch/with/slashes",
            "github:team/tool?rev=0123",
            "git+https://github.com/team/tool.git?ref=main",
        ] {
            assert_eq!(of_flake(text), "github.com/team/tool", "{text}");
        }
        assert_eq!(of_flake("github:a/b?ref=x&dir=ci"), "github.com/a/b/ci");
        assert_eq!(of_flake("nixpkgs"), "nixpkgs");
    }
}
