//! Facts: what a pipeline that is a function may ask for.
//!
//! | fact     | value                                                | absent                     |
//! |----------|------------------------------------------------------|----------------------------|
//! | `rev`    | the commit, in full                                  | no commit yet              |
//! | `branch` | the branch checked out                               | a detached head            |
//! | `tag`    | the tag that is exactly here                         | none is                    |
//! | `dirty`  | boolean: tracked files differ from the commit        | –                          |
//!
//! All are absent where there is no git or no repository: a pipeline that needs one then says so.
//! Files that git does not track do not make it dirty, for a flake does not contain them either.
//! What the user gives (`--fact NAME=VALUE`, always strings) comes before what git says.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use serde_json::Value;

use super::nix::{Purity, scrubbed};
use super::process::{self, Ending, Program};
use super::quote;

/// Why a text is no fact.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no `=`.
    #[error("`{text}` is not of the form NAME=VALUE")]
    Form {
        /// What was typed.
        text: String,
    },
    /// No function could ask for this name.
    #[error("`{name}` cannot be the name of a fact")]
    Name {
        /// The name.
        name: String,
    },
    /// Nix has no strings with NUL.
    #[error("the fact `{name}` contains a NUL character")]
    Nul {
        /// The name.
        name: String,
    },
}

/// Parses `NAME=VALUE`. The value is a string, even where it says `true`.
pub fn parse(text: &str) -> Result<(String, Value), Error> {
    let (name, value) = text.split_once('=').ok_or_else(|| Error::Form {
        text: text.to_owned(),
    })?;
    if !quote::is_identifier(name) {
        return Err(Error::Name { name: name.into() });
    }
    if value.contains('\0') {
        return Err(Error::Nul { name: name.into() });
    }
    Ok((name.into(), value.into()))
}

/// The local directory that a flake reference means, if it means one.
pub fn directory(flake: &str) -> Option<PathBuf> {
    let address = flake.split(['#', '?']).next().unwrap_or_default();
    let path = ["path:", "git+file://", "git+file:", "file://"]
        .iter()
        .find_map(|scheme| address.strip_prefix(scheme));
    match (path, address) {
        (Some(""), _) => None,
        (Some(path), _) => Some(path.into()),
        (None, "") => Some(".".into()),
        (None, local) if local.starts_with(['/', '.']) => Some(local.into()),
        // Anything else is an address, or an entry of the registry.
        (None, _) => None,
    }
}

/// Asks git about a directory.
pub fn from_git(
    git: &Path,
    directory: &Path,
    environment: &[(OsString, OsString)],
    cancel: &AtomicBool,
) -> Result<BTreeMap<String, Value>, process::Error> {
    let ask = |arguments: &[&str]| ask(git, directory, environment, cancel, arguments);
    let mut facts = BTreeMap::new();
    if ask(&["rev-parse", "--git-dir"])?.is_none() {
        return Ok(facts);
    }
    let questions: [(&str, &[&str]); 3] = [
        (
            "rev",
            &["rev-parse", "--verify", "--quiet", "HEAD^{commit}"],
        ),
        ("branch", &["symbolic-ref", "--quiet", "--short", "HEAD"]),
        ("tag", &["describe", "--exact-match", "--tags", "HEAD"]),
    ];
    for (name, question) in questions {
        if let Some(answer) = ask(question)?.filter(|answer| !answer.is_empty()) {
            facts.insert(name.into(), answer.into());
        }
    }
    if let Some(changes) = ask(&["status", "--porcelain", "--untracked-files=no"])? {
        facts.insert("dirty".into(), (!changes.is_empty()).into());
    }
    Ok(facts)
}

/// The answer, where git has one.
pub(super) fn ask(
    git: &Path,
    directory: &Path,
    environment: &[(OsString, OsString)],
    cancel: &AtomicBool,
    arguments: &[&str],
) -> Result<Option<String>, process::Error> {
    let program = Program {
        path: git.to_owned(),
        called: "git".into(),
        // Reading must not take the index lock that somebody else's git may want.
        arguments: ["--no-optional-locks"]
            .iter()
            .chain(arguments)
            .map(OsString::from)
            .collect(),
        environment: scrubbed(environment, Purity::Pure),
        directory: Some(directory.to_owned()),
    };
    let finished = process::run(&program, cancel, &mut |_| ())?;
    let answer = String::from_utf8(finished.stdout).ok();
    Ok(answer
        .filter(|_| finished.ending == Ending::Code(0))
        .map(|text| text.strip_suffix('\n').unwrap_or(&text).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_facts_and_refuses_what_is_none() {
        assert_eq!(parse("a=b=c").unwrap(), ("a".into(), "b=c".into()));
        assert_eq!(parse("dirty=true").unwrap().1, Value::from("true"));
        assert!(matches!(parse("a"), Err(Error::Form { .. })));
        assert!(matches!(parse("1=a"), Err(Error::Name { .. })));
        assert!(matches!(parse("a=\0"), Err(Error::Nul { .. })));
    }

    #[test]
    fn tells_local_flakes() {
        let cases = [
            (".", Some(".")),
            ("", Some(".")),
            ("./a#b", Some("./a")),
            ("/a?dir=b", Some("/a")),
            ("path:/a", Some("/a")),
            ("git+file:///a?ref=x", Some("/a")),
            ("github:a/b", None),
            ("nixpkgs", None),
        ];
        for (flake, expected) in cases {
            assert_eq!(directory(flake), expected.map(PathBuf::from), "{flake}");
        }
    }
}
