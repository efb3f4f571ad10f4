//! What is in a directory, in the protocol's order: parents before children, names of a directory
//! in byte order, what is below a directory right after it.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use prost::bytes::Bytes;

use super::Narrowing;
use super::pattern::Matched;
use crate::buildkit::protocol::fsutil::types::Stat;

/// Go's bits for what Unix has in the upper part of `st_mode`.
const MODES: [(u32, u32); 7] = [
    (0o040_000, 1 << 31),
    (0o120_000, 1 << 27),
    (0o060_000, 1 << 26),
    (0o020_000, 1 << 26 | 1 << 21),
    (0o010_000, 1 << 25),
    (0o100_000, 0),
    (0o140_000, 1 << 24),
];
const SPECIAL: [(u32, u32); 3] = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];

/// One thing in a directory.
#[derive(Debug)]
pub(super) struct Entry {
    /// As it is told of.
    pub(super) stat: Stat,
    /// Where its bytes are, if it is a file that is sent as one.
    pub(super) file: Option<PathBuf>,
}

/// Walks until all is found, or `found` has enough; then that is its answer.
pub(super) fn walk<E>(
    root: &Path,
    narrowing: &Narrowing,
    found: &mut dyn FnMut(Entry) -> Result<(), E>,
) -> Result<(), Failure<E>> {
    let mut walk = Walk {
        narrowing,
        found,
        parents: Vec::new(),
        links: BTreeMap::new(),
    };
    walk.directory("", root, None, None)
}

/// Why a walk ended early.
#[derive(Debug)]
pub(super) enum Failure<E> {
    /// Something could not be read.
    Io(io::Error),
    /// Whoever listened has had enough.
    Enough(E),
}

struct Walk<'a, E> {
    narrowing: &'a Narrowing,
    found: &'a mut dyn FnMut(Entry) -> Result<(), E>,
    /// The directories that lead here and were not told of: they are if something in them is.
    parents: Vec<Option<Entry>>,
    /// The first path of each file with several.
    links: BTreeMap<(u64, u64), String>,
}

impl<E> Walk<'_, E> {
    fn directory(
        &mut self,
        path: &str,
        real: &Path,
        included: Option<&Matched>,
        excluded: Option<&Matched>,
    ) -> Result<(), Failure<E>> {
        let mut names: Vec<_> = fs_err::read_dir(real)
            .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect())
            .map_err(Failure::Io)?;
        names.sort_by(|a: &std::ffi::OsString, b| a.as_bytes().cmp(b.as_bytes()));
        for name in names {
            let real = real.join(&name);
            let Some(name) = name.to_str() else {
                let text = format!("`{}` is not UTF-8", real.display());
                return Err(Failure::Io(io::Error::new(ErrorKind::InvalidData, text)));
            };
            let path = if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}/{name}")
            };
            let metadata = match fs_err::symlink_metadata(&real) {
                // It went away meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                other => other.map_err(Failure::Io)?,
            };
            if !metadata.file_type().is_socket() {
                self.entry(&path, &real, &metadata, included, excluded)?;
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        path: &str,
        real: &Path,
        metadata: &Metadata,
        included: Option<&Matched>,
        excluded: Option<&Matched>,
    ) -> Result<(), Failure<E>> {
        let narrowing = self.narrowing;
        let (wanted, included) = match &narrowing.include {
            Some(patterns) => {
                let (wanted, matched) = patterns.matches(path, included);
                (wanted, Some(matched))
            }
            None => (true, None),
        };
        let (unwanted, excluded) = match &narrowing.exclude {
            Some(patterns) => {
                let (unwanted, matched) = patterns.matches(path, excluded);
                (unwanted, Some(matched))
            }
            None => (false, None),
        };
        let told = wanted && !unwanted;
        if told {
            let entry = self.describe(path, real, metadata).map_err(Failure::Io)?;
            self.tell(entry)?;
        }
        if !metadata.is_dir() {
            return Ok(());
        }
        let nothing_wanted = |patterns: &super::Patterns| !wanted && !patterns.may_match_in(path);
        let all_unwanted = |patterns: &super::Patterns| unwanted && !patterns.may_except_in(path);
        if narrowing.include.as_ref().is_some_and(nothing_wanted)
            || narrowing.exclude.as_ref().is_some_and(all_unwanted)
        {
            return Ok(());
        }
        let pending = if told {
            None
        } else {
            Some(self.describe(path, real, metadata).map_err(Failure::Io)?)
        };
        self.parents.push(pending);
        let walked = self.directory(path, real, included.as_ref(), excluded.as_ref());
        self.parents.pop();
        match walked {
            // Nothing in it was asked for by name.
            Err(Failure::Io(error)) if !told && error.kind() == ErrorKind::PermissionDenied => {
                Ok(())
            }
            walked => walked,
        }
    }

    fn tell(&mut self, entry: Entry) -> Result<(), Failure<E>> {
        for parent in &mut self.parents {
            if let Some(parent) = parent.take() {
                (self.found)(parent).map_err(Failure::Enough)?;
            }
        }
        (self.found)(entry).map_err(Failure::Enough)
    }

    fn describe(&mut self, path: &str, real: &Path, metadata: &Metadata) -> io::Result<Entry> {
        let mut stat = Stat {
            path: path.to_owned(),
            mode: go_mode(metadata.mode()),
            mod_time: metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec(),
            xattrs: attributes(real),
            ..Stat::default()
        };
        let kind = metadata.file_type();
        let mut file = None;
        if kind.is_symlink() {
            let target = fs_err::read_link(real)?.into_os_string().into_string();
            let broken = |_| {
                let text = format!("the target of `{}` is not UTF-8", real.display());
                io::Error::new(ErrorKind::InvalidData, text)
            };
            stat.linkname = target.map_err(broken)?;
        } else if kind.is_block_device() || kind.is_char_device() {
            stat.devmajor = i64::from(rustix::fs::major(metadata.rdev()));
            stat.devminor = i64::from(rustix::fs::minor(metadata.rdev()));
        } else if kind.is_file() {
            let first = (metadata.nlink() > 1).then(|| {
                let key = (metadata.dev(), metadata.ino());
                self.links.entry(key).or_insert_with(|| path.to_owned())
            });
            match first {
                Some(first) if first != path => stat.linkname.clone_from(first),
                _ => {
                    stat.size = i64::try_from(metadata.len()).unwrap_or(i64::MAX);
                    file = Some(real.to_owned());
                }
            }
        }
        Ok(Entry { stat, file })
    }
}

/// Go's `os.FileMode` of a Unix mode.
fn go_mode(mode: u32) -> u32 {
    let kind = MODES.iter().find(|(unix, _)| mode & 0o170_000 == *unix);
    let special = SPECIAL.iter().filter(|(unix, _)| mode & unix != 0);
    let special = special.fold(0, |all, (_, go)| all | go);
    mode & 0o777 | special | kind.map_or(0, |(_, go)| *go)
}

/// Extended attributes that mean the same on another machine. Where there are none to be had, there
/// are none.
fn attributes(real: &Path) -> std::collections::HashMap<String, Bytes> {
    let mut names = vec![0; 64 << 10];
    let Ok(count) = rustix::fs::llistxattr(real, &mut names[..]) else {
        return std::collections::HashMap::new();
    };
    let names = names[..count].split(|byte| *byte == 0);
    let names = names.filter_map(|name| std::str::from_utf8(name).ok());
    let names = names.filter(|name| *name == "security.capability" || name.starts_with("user."));
    names
        .filter_map(|name| {
            let mut value = vec![0; 64 << 10];
            let count = rustix::fs::lgetxattr(real, name, &mut value[..]).ok()?;
            value.truncate(count);
            Some((name.to_owned(), Bytes::from(value)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::super::Patterns;
    use super::*;

    fn patterns(texts: &[&str]) -> Option<Patterns> {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        Patterns::new(&texts).unwrap()
    }

    fn list(root: &Path, include: &[&str], exclude: &[&str]) -> Vec<Stat> {
        let narrowing = Narrowing {
            include: patterns(include),
            exclude: patterns(exclude),
        };
        let mut stats = Vec::new();
        walk(root, &narrowing, &mut |entry: Entry| {
            stats.push(entry.stat);
            Ok::<(), ()>(())
        })
        .unwrap();
        stats
    }

    fn paths(stats: &[Stat]) -> Vec<&str> {
        stats.iter().map(|stat| stat.path.as_str()).collect()
    }

    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for directory in ["a", "src/app", "src/empty", "docs/keep"] {
            fs_err::create_dir_all(root.path().join(directory)).unwrap();
        }
        for file in ["a/b", "a.b", "a-b", "src/app/main", "docs/x", "docs/keep/y"] {
            fs_err::write(root.path().join(file), file).unwrap();
        }
        root
    }

    #[test]
    fn a_slash_ranks_below_every_other_byte() {
        let root = tree();
        let found = list(root.path(), &["a*"], &[]);
        assert_eq!(paths(&found), ["a", "a/b", "a-b", "a.b"]);
    }

    #[test]
    fn directories_come_with_what_is_wanted_in_them() {
        let root = tree();
        let found = list(root.path(), &["src/app"], &[]);
        assert_eq!(paths(&found), ["src", "src/app", "src/app/main"]);
        let found = list(
            root.path(),
            &["src", "docs"],
            &["docs", "!docs/keep", "**/main"],
        );
        let expected = [
            "docs",
            "docs/keep",
            "docs/keep/y",
            "src",
            "src/app",
            "src/empty",
        ];
        assert_eq!(paths(&found), expected);
        assert!(list(root.path(), &["none"], &[]).is_empty());
    }

    #[test]
    fn says_what_each_thing_is() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs_err::write(at("file"), "12345").unwrap();
        fs_err::set_permissions(at("file"), std::fs::Permissions::from_mode(0o4750)).unwrap();
        fs_err::hard_link(at("file"), at("link")).unwrap();
        symlink("nowhere", at("symlink")).unwrap();
        fs_err::create_dir(at("sticky")).unwrap();
        fs_err::set_permissions(at("sticky"), std::fs::Permissions::from_mode(0o1777)).unwrap();
        let _listening = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let found = list(root.path(), &[], &[]);
        let told: Vec<String> = found
            .iter()
            .map(|s| {
                format!(
                    "{} {:o} {} {} {}:{}",
                    s.path, s.mode, s.size, s.linkname, s.uid, s.gid
                )
            })
            .collect();
        insta::assert_snapshot!(told.join("\n"), @"
        file 40000750 5  0:0
        link 40000750 0 file 0:0
        sticky 20004000777 0  0:0
        symlink 1000000777 0 nowhere 0:0
        ");
    }

    #[test]
    fn a_name_that_cannot_be_sent_is_named() {
        let root = tempfile::tempdir().unwrap();
        let name = std::ffi::OsStr::from_bytes(b"\xff");
        fs_err::write(root.path().join(name), "").unwrap();
        let walked = walk(
            root.path(),
            &Narrowing::default(),
            &mut |_| Ok::<(), ()>(()),
        );
        let Err(Failure::Io(error)) = walked else {
            panic!("it is sent");
        };
        assert!(error.to_string().contains("is not UTF-8"), "{error}");
    }
}
