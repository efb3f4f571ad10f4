//! `result`, `result-dev`, `result-1`: links to outputs, each a root for the garbage collector.
//!
//! Names are those of `nix build`: the number of the installable from the second on, then the
//! output unless it is `out`. A link is replaced only if it is a link into the store; anything else
//! of that name is the user's. The conductor registers the links as indirect roots, while the run's
//! own roots still hold.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fs_err::os::unix::fs::symlink;

use super::error::{Error, Kind};
use crate::nix::{STORE_DIR, StorePath};

/// A link to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Where.
    pub path: PathBuf,
    /// To what.
    pub target: StorePath,
}

/// Names the links for the outputs of each installable, in the order they were typed.
pub fn name<'a>(
    prefix: &Path,
    results: impl IntoIterator<Item = &'a BTreeMap<String, StorePath>>,
) -> Vec<Link> {
    let mut links = vec![];
    for (number, outputs) in results.into_iter().enumerate() {
        for (output, target) in outputs {
            let mut path = prefix.as_os_str().to_owned();
            if number > 0 {
                path.push(format!("-{number}"));
            }
            if output != "out" {
                path.push(format!("-{output}"));
            }
            links.push(Link {
                path: path.into(),
                target: target.clone(),
            });
        }
    }
    links
}

/// Makes a link; gives back its absolute path. `here` is what relative links are relative to.
pub fn make(link: &Link, here: &Path) -> Result<PathBuf, Error> {
    let path: PathBuf = here.join(&link.path).components().collect();
    let fail = |source: std::io::Error| Error::new(Kind::Other, source);
    if let Ok(metadata) = fs_err::symlink_metadata(&path) {
        let ours = metadata.is_symlink()
            && fs_err::read_link(&path)
                .map_err(fail)?
                .starts_with(STORE_DIR);
        if !ours {
            let text = format!(
                "`{}` is in the way: it is no link into the store",
                path.display()
            );
            return Err(Error::new(Kind::Other, text)
                .hint("name the links with `--out-link PATH`, or make none with `--no-link`"));
        }
    }
    if let Some(parent) = path.parent() {
        fs_err::create_dir_all(parent).map_err(fail)?;
    }
    replace(&path, Path::new(&link.target.to_string())).map_err(fail)?;
    Ok(path)
}

/// Points a link somewhere else without a moment in which it is missing.
fn replace(link: &Path, target: &Path) -> std::io::Result<()> {
    let mut temporary = link.as_os_str().to_owned();
    temporary.push(format!(".tmp-{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    symlink(target, &temporary)?;
    fs_err::rename(&temporary, link).inspect_err(|_| {
        // The rename's failure is what matters.
        fs_err::remove_file(&temporary).ok();
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> StorePath {
        format!("{STORE_DIR}/0c0rl5kb4b7jlqq8q01qmjdy4vgn2mny-{name}")
            .parse()
            .unwrap()
    }

    #[test]
    fn names_are_those_of_nix_build() {
        let outputs = |names: &[&str]| {
            names
                .iter()
                .map(|name| ((*name).to_owned(), path(name)))
                .collect::<BTreeMap<_, _>>()
        };
        let results = [outputs(&["out", "dev"]), outputs(&["out", "lib"])];
        let links = name(Path::new("result"), &results);
        let names: Vec<_> = links
            .iter()
            .map(|link| link.path.to_str().unwrap())
            .collect();
        assert_eq!(names, ["result-dev", "result", "result-1-lib", "result-1"]);
    }

    #[test]
    fn replaces_links_into_the_store_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path();
        let link = |target: &str| Link {
            path: "./sub/result".into(),
            target: path(target),
        };
        make(&link("a"), here).unwrap();
        let made = make(&link("b"), here).unwrap();
        assert_eq!(made, here.join("sub/result"));
        let target = path("b").to_string();
        assert_eq!(fs_err::read_link(&made).unwrap(), Path::new(&target));
        assert_eq!(fs_err::read_dir(here.join("sub")).unwrap().count(), 1);

        fs_err::remove_file(&made).unwrap();
        fs_err::write(&made, "mine").unwrap();
        let error = make(&link("a"), here).unwrap_err();
        assert!(error.to_string().contains("in the way"), "{error}");
        assert_eq!(fs_err::read_to_string(&made).unwrap(), "mine");
    }
}
