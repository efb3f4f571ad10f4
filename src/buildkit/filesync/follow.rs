//! Symlinks on the way to what a daemon asks for: a path it names is of no use without what it
//! leads over.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::pattern::{Patterns, clean};

/// Returns the paths and every symlink on the way to them and on from there, all below the root:
/// an absolute target begins there, and nothing leads out. The last part of a path may be a
/// pattern.
///
/// # Errors
///
/// A directory or a link cannot be read.
pub(super) fn follow(root: &Path, paths: &[String]) -> io::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for path in paths {
        one(root, &clean(path), &mut found)?;
    }
    Ok(found)
}

fn one(root: &Path, path: &str, found: &mut BTreeSet<String>) -> io::Result<()> {
    let mut current = String::new();
    let mut parts = path.split('/').peekable();
    while let Some(part) = parts.next() {
        let parent = current.clone();
        current = join(&parent, part);
        let targets = targets(root, &parent, part)?;
        let last = parts.peek().is_none();
        // What was gone through before leads nowhere new; so loops end.
        if (last || !targets.is_empty()) && !found.insert(current.clone()) {
            return Ok(());
        }
        if !targets.is_empty() {
            let rest: Vec<&str> = parts.collect();
            for target in targets {
                one(root, &clean(&format!("{target}/{}", rest.join("/"))), found)?;
            }
            return Ok(());
        }
    }
    Ok(())
}

/// Where a name leads, or each of the names that match it, as paths below the root.
fn targets(root: &Path, parent: &str, name: &str) -> io::Result<Vec<String>> {
    let mut names = vec![name.to_owned()];
    if name.contains(['*', '?', '[']) {
        let pattern = Patterns::new(&[name.to_owned()]).map_err(io::Error::other)?;
        names = match fs_err::read_dir(root.join(parent)) {
            Err(error) if is_absent(&error) => return Ok(Vec::new()),
            entries => entries?
                .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
                .collect(),
        };
        names.retain(|name| pattern.as_ref().is_some_and(|p| p.matches(name, None).0));
    }
    let mut targets = Vec::new();
    for name in names {
        match fs_err::read_link(root.join(parent).join(&name)) {
            Ok(target) => {
                let target = target.to_string_lossy();
                targets.push(match target.strip_prefix('/') {
                    Some(absolute) => clean(absolute),
                    None => clean(&join(parent, &target)),
                });
            }
            // Not a link, or not there.
            Err(error) if error.kind() == ErrorKind::InvalidInput || is_absent(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(targets)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() {
        name.to_owned()
    } else {
        format!("{parent}/{name}")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn follows_links_and_never_out() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs_err::create_dir_all(at("real/deep")).unwrap();
        fs_err::write(at("real/deep/file"), "").unwrap();
        symlink("real", at("directory")).unwrap();
        symlink("/directory/deep/file", at("file")).unwrap();
        symlink("../../../../etc/passwd", at("out")).unwrap();
        symlink("loop", at("loop")).unwrap();
        let follow = |path: &str| {
            let found = follow(root.path(), &[path.to_owned()]).unwrap();
            found.into_iter().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(follow("plain"), "plain");
        assert_eq!(follow("/file"), "directory file real/deep/file");
        assert_eq!(follow("directory/deep"), "directory real/deep");
        assert_eq!(follow("out"), "etc/passwd out");
        assert_eq!(follow("loop"), "loop");
        assert_eq!(follow("fil*"), "directory fil* real/deep/file");
    }
}
