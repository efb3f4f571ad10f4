//! The installed `nix`: where it is, whether it is new enough, how it is called.
//!
//! # Its environment
//!
//! Evaluation should not depend on who runs it, so only what the allow-list below names reaches
//! `nix`; the locale is `C`. Pure evaluation cannot read variables at all; what is kept is for
//! Nix's own work:
//!
//! | variables                                              | why                                  |
//! |--------------------------------------------------------|--------------------------------------|
//! | `PATH`, `HOME`, `USER`, `LOGNAME`, `TMPDIR`, `XDG_*`   | git, caches, configuration           |
//! | `NIX_REMOTE`, `NIX_DAEMON_SOCKET_PATH`                 | which store, unless we say one       |
//! | `NIX_CONFIG`, `NIX_USER_CONF_FILES`, `NIX_CONF_DIR`    | settings, such as access tokens      |
//! | `NIX_STATE_DIR`, `NIX_LOG_DIR`, `NIX_DATA_DIR`         | an installation elsewhere            |
//! | `NIX_SSL_CERT_FILE`, `SSL_CERT_FILE`, `*_proxy`        | fetching                             |
//! | `SSH_AUTH_SOCK`, `GIT_SSH*`, `NIX_SSHOPTS`, `NETRC`    | fetching from private places         |
//! | `NIX_PATH`, `NIXPKGS_*`                                | only for a file: its `<nixpkgs>`     |
//!
//! `NIX_STORE_DIR` is never kept: everything here is about `/nix/store`. Settings can come from
//! files and from `NIX_CONFIG` alike; neither makes an evaluation impure, for the new commands
//! override that one setting.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::process::{self, Ending, Program};

/// The oldest `nix` that we drive.
pub const OLDEST: Version = Version { major: 2, minor: 8 };

/// Variables kept for every evaluation; a `*` at an end stands for anything.
const KEPT: [&str; 29] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "TMPDIR",
    "XDG_*",
    "NIX_REMOTE",
    "NIX_DAEMON_SOCKET_PATH",
    "NIX_CONFIG",
    "NIX_USER_CONF_FILES",
    "NIX_CONF_DIR",
    "NIX_STATE_DIR",
    "NIX_LOG_DIR",
    "NIX_DATA_DIR",
    "NIX_SSL_CERT_FILE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "CURL_CA_BUNDLE",
    "*_proxy",
    "*_PROXY",
    "SSH_AUTH_SOCK",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "GIT_SSL_CAINFO",
    "NIX_SSHOPTS",
    "NETRC",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_KEY_*",
    "GIT_CONFIG_VALUE_*",
];

/// Variables kept besides for evaluating a file, impurely.
const KEPT_FOR_FILES: [&str; 2] = ["NIX_PATH", "NIXPKGS_*"];

/// An installed `nix` that is new enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nix {
    /// The executable.
    pub path: PathBuf,
    /// Its version.
    pub version: Version,
}

/// A version of Nix, as far as we tell versions apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 2 in `2.8.0`.
    pub major: u32,
    /// 8 in `2.8.0`.
    pub minor: u32,
}

/// Whether an evaluation may see the machine it runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purity {
    /// Flakes and expressions.
    Pure,
    /// Files, as `nix-build` evaluates them.
    Impure,
}

/// Why there is no `nix` to use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// None is installed.
    #[error("no `nix` on the search path")]
    Missing,
    /// The one named is not there.
    #[error("`{}` is not an executable file", path.display())]
    NotExecutable {
        /// What was named.
        path: PathBuf,
    },
    /// It does not tell its version as Nix does.
    #[error("`{} --version` answers `{answer}`, which is no version of Nix", path.display())]
    NoVersion {
        /// The executable.
        path: PathBuf,
        /// What it wrote.
        answer: String,
    },
    /// It is older than what we drive.
    #[error("`{}` is Nix {version}, but {OLDEST} or newer is needed", path.display())]
    TooOld {
        /// The executable.
        path: PathBuf,
        /// Its version.
        version: Version,
    },
    /// It could not be run.
    #[error("cannot ask `nix` for its version")]
    Run(#[source] process::Error),
}

/// Finds `nix`: the one given, else the first on `search` (a `PATH`). Whether it is new enough is
/// still to be asked.
pub fn locate(given: Option<&Path>, search: Option<&OsStr>) -> Result<PathBuf, Error> {
    match given {
        Some(path) if process::is_executable(path) => Ok(path.to_owned()),
        Some(path) => Err(Error::NotExecutable {
            path: path.to_owned(),
        }),
        None => on_search_path("nix", search).ok_or(Error::Missing),
    }
}

impl Nix {
    /// Finds `nix`, see [`locate`], and asks its version.
    pub fn find(
        given: Option<&Path>,
        search: Option<&OsStr>,
        environment: &[(OsString, OsString)],
        cancel: &AtomicBool,
    ) -> Result<Self, Error> {
        Self::ask(locate(given, search)?, environment, cancel)
    }

    /// Asks an executable for its version.
    pub fn ask(
        path: PathBuf,
        environment: &[(OsString, OsString)],
        cancel: &AtomicBool,
    ) -> Result<Self, Error> {
        let program = Program {
            path: path.clone(),
            called: "nix".into(),
            arguments: vec!["--version".into()],
            environment: scrubbed(environment, Purity::Pure),
            directory: None,
        };
        let finished = process::run(&program, cancel, &mut |_| ()).map_err(Error::Run)?;
        let answer = String::from_utf8_lossy(&finished.stdout).trim().to_owned();
        let version = match finished.ending {
            Ending::Code(0) => Version::parse(&answer),
            _ => None,
        };
        match version {
            None => Err(Error::NoVersion { path, answer }),
            Some(version) if version < OLDEST => Err(Error::TooOld { path, version }),
            Some(version) => Ok(Self { path, version }),
        }
    }
}

impl Version {
    /// Parses the answer of `nix --version`: its last word begins with the numbers, whatever the
    /// distribution calls itself before (`nix (Lix, like Nix) 2.91.1`).
    pub fn parse(answer: &str) -> Option<Self> {
        let mut numbers = answer.lines().next()?.split_whitespace().last()?.split('.');
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next()?;
        let digits = minor
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(minor.len());
        Some(Self {
            major,
            minor: minor[..digits].parse().ok()?,
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Finds a program on a `PATH`. Empty and relative entries are passed over: what evaluates must
/// not depend on the directory one stands in.
pub fn on_search_path(program: &str, search: Option<&OsStr>) -> Option<PathBuf> {
    std::env::split_paths(search?)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(program))
        .find(|path| process::is_executable(path))
}

/// What of the user's environment reaches `nix`, with the locale set.
pub fn scrubbed(environment: &[(OsString, OsString)], purity: Purity) -> Vec<(OsString, OsString)> {
    let more: &[&str] = match purity {
        Purity::Pure => &[],
        Purity::Impure => &KEPT_FOR_FILES,
    };
    let mut kept: Vec<_> = environment
        .iter()
        .filter(|(name, _)| {
            KEPT.iter()
                .chain(more)
                .any(|pattern| matches(pattern, name))
        })
        .cloned()
        .collect();
    kept.push(("LC_ALL".into(), "C".into()));
    // Nobody could answer git's question: there is no stdin.
    kept.push(("GIT_TERMINAL_PROMPT".into(), "0".into()));
    kept
}

fn matches(pattern: &str, name: &OsStr) -> bool {
    let Some(name) = name.to_str() else {
        return false;
    };
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(end), _) => name.ends_with(end),
        (_, Some(begin)) => name.starts_with(begin),
        (None, None) => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions_of_every_distribution() {
        let parse = |text| Version::parse(text).map(|version| version.to_string());
        assert_eq!(parse("nix (Nix) 2.8.0").unwrap(), "2.8");
        assert_eq!(parse("nix (Nix) 2.29.0pre20250409_1234").unwrap(), "2.29");
        assert_eq!(parse("nix (Nix) 2.34pre1").unwrap(), "2.34");
        assert_eq!(
            parse("nix (Lix, like Nix) 2.91.1\nSystem type: x").unwrap(),
            "2.91"
        );
        assert_eq!(parse("nix (Determinate Nix 3.0.0) 2.26.3").unwrap(), "2.26");
        assert_eq!(parse("busybox"), None);
        assert!(Version { major: 2, minor: 7 } < OLDEST);
    }

    #[test]
    fn keeps_only_what_is_listed() {
        let all = [
            "PATH",
            "HOME",
            "NIX_PATH",
            "NIXPKGS_ALLOW_UNFREE",
            "SECRET",
            "https_proxy",
            "NIX_STORE_DIR",
            "LANG",
            "XDG_CACHE_HOME",
        ]
        .map(|name| (name.into(), "v".into()));
        let names = |purity| {
            let names: Vec<_> = scrubbed(&all, purity)
                .into_iter()
                .map(|(name, _)| name.into_string().unwrap())
                .collect();
            names.join(" ")
        };
        let ours = "LC_ALL GIT_TERMINAL_PROMPT";
        assert_eq!(
            names(Purity::Pure),
            format!("PATH HOME https_proxy XDG_CACHE_HOME {ours}")
        );
        assert_eq!(
            names(Purity::Impure),
            format!("PATH HOME NIX_PATH NIXPKGS_ALLOW_UNFREE https_proxy XDG_CACHE_HOME {ours}")
        );
    }

    #[test]
    fn the_page_of_variables_has_all_that_are_kept() {
        let page = include_str!("../../docs/environment.md");
        let section = page
            .split("## ")
            .find(|part| part.starts_with("Variables that reach"));
        let lines = section.unwrap().lines();
        let lines = lines.filter_map(|line| line.strip_prefix("- "));
        let mut named: Vec<&str> = lines
            .flat_map(|line| line.split('`').skip(1).step_by(2))
            .collect();
        let mut kept = [&KEPT[..], &KEPT_FOR_FILES].concat();
        named.sort_unstable();
        kept.sort_unstable();
        assert_eq!(named, kept);
    }

    #[test]
    fn finds_and_refuses() {
        let directory = tempfile::tempdir().unwrap();
        let nix = directory.path().join("nix");
        let cancel = AtomicBool::new(false);
        let find = || Nix::find(None, Some(directory.path().as_os_str()), &[], &cancel);
        assert!(matches!(find(), Err(Error::Missing)));
        for (version, good) in [("2.7.0", false), ("2.8.0", true)] {
            fs_err::write(&nix, format!("#!/bin/sh\necho 'nix (Nix) {version}'\n")).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs_err::set_permissions(&nix, mode).unwrap();
            match find() {
                Ok(found) => assert!(good && found.path == nix),
                Err(error) => assert!(!good && matches!(error, Error::TooOld { .. }), "{error}"),
            }
        }
    }
}
