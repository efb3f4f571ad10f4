//! The directories and files of a store, made as Nix makes them on first use (Nix spec §6.1).

use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use fs_err::os::unix::fs::OpenOptionsExt as _;
use rustix::fs::{FallocateFlags, FlockOperation};

use super::locks::flock;
use super::{Error, NixDir};

/// The schema that Nix 2.8 to 2.34 have in common.
pub const SCHEMA: &str = "10";
/// A file that Nix deletes before collecting garbage on a full disk.
const RESERVED: u64 = 8 * 1024 * 1024;

/// What the schema file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// There is none yet: the tables must be made.
    Missing,
    /// [`SCHEMA`].
    Present,
}

/// A prepared store, before its database is open.
pub struct Layout {
    /// Held shared.
    pub big_lock: fs_err::File,
    /// Whether the tables exist.
    pub schema: Schema,
}

impl Layout {
    /// Makes what is missing.
    pub fn prepare(dir: &NixDir) -> Result<Self, Error> {
        refuse_symlinks(dir)?;
        make(dir).map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Error::NotWritable {
                    dir: dir.path().to_owned(),
                    source,
                }
            }
            _ => Error::Io(source),
        })?;
        let path = dir.db().join("big-lock");
        let big_lock = fs_err::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|source| Error::NotWritable {
                dir: dir.path().to_owned(),
                source,
            })?;
        flock(&big_lock, FlockOperation::LockShared)?;
        let schema = read_schema(dir)?;
        Ok(Self { big_lock, schema })
    }
}

/// Checks that a store to be read exists and is of a known schema. The lock is only taken where it
/// may be: whoever may not write cannot always open it.
pub fn check_existing(dir: &NixDir) -> Result<Option<fs_err::File>, Error> {
    let lock = fs_err::File::open(dir.db().join("big-lock")).ok();
    if let Some(lock) = &lock {
        // An upgrade in progress is seen by its schema file; waiting for it is not worth a hang.
        let _ = rustix::fs::flock(lock, FlockOperation::NonBlockingLockShared);
    }
    match read_schema(dir)? {
        Schema::Present => Ok(lock),
        Schema::Missing => Err(Error::Missing {
            dir: dir.path().to_owned(),
        }),
    }
}

fn read_schema(dir: &NixDir) -> Result<Schema, Error> {
    match fs_err::read(dir.db().join("schema")) {
        Ok(text) if text.trim_ascii() == SCHEMA.as_bytes() => Ok(Schema::Present),
        Ok(text) => Err(Error::Schema {
            dir: dir.path().to_owned(),
            found: text.escape_ascii().to_string(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Schema::Missing),
        Err(error) => Err(error.into()),
    }
}

/// Says, once the tables exist, that they do.
pub fn write_schema(dir: &NixDir) -> Result<(), Error> {
    write_whole(&dir.db(), "schema", SCHEMA.as_bytes(), 0o644).map_err(Error::Io)
}

/// Writes a file so that it is never seen in part, and durably.
pub fn write_whole(folder: &Path, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(mode))
        .prefix(".new-")
        .tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(folder.join(name))
        .map_err(|error| error.error)?;
    fs_err::File::open(folder)?.sync_all()
}

/// Refuses a store below a symbolic link, as Nix does: its files would have two names.
pub fn refuse_symlinks(dir: &NixDir) -> Result<(), Error> {
    let store = std::path::absolute(dir.store())?;
    for path in store.ancestors() {
        if path
            .symlink_metadata()
            .is_ok_and(|metadata| metadata.is_symlink())
        {
            return Err(Error::Symlink {
                path: path.to_owned(),
            });
        }
    }
    Ok(())
}

fn make(dir: &NixDir) -> io::Result<()> {
    // What is made last stands for all: an existing store costs one look.
    let last = dir.runs();
    if last.is_dir() && dir.db().join("reserved").exists() {
        return writable(dir);
    }
    make_directory(dir.path())?;
    make_store_directory(&dir.store())?;
    let state = dir.state();
    let gcroots_existed = dir.gcroots().exists();
    for folder in [
        dir.store().join(".links"),
        dir.db(),
        dir.temproots(),
        state.join("profiles/per-user"),
        dir.gcroots().join("per-user"),
        dir.logs().join("drvs"),
        dir.gcroots().join("pontoon"),
        dir.attempts(),
        dir.slots(),
    ] {
        make_directory(&folder)?;
    }
    if !gcroots_existed {
        // Relative: this directory has another absolute name inside a container.
        tolerate(fs_err::os::unix::fs::symlink(
            "../profiles",
            dir.gcroots().join("profiles"),
        ))?;
    }
    make_reserved(&dir.db().join("reserved"))?;
    make_directory(&last)
}

fn writable(dir: &NixDir) -> io::Result<()> {
    use rustix::fs::{Access, access};
    let path = dir.db();
    access(&path, Access::WRITE_OK)
        .map_err(io::Error::from)
        .map_err(|source| io::Error::new(source.kind(), format!("{}: {source}", path.display())))
}

fn tolerate(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Makes a directory and those above it, 0755 whatever the umask.
fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        make_directory(parent)?;
    }
    match std::fs::DirBuilder::new().mode(0o755).create(path) {
        Ok(()) => fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o755)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!("cannot create directory `{}`: {error}", path.display()),
        )),
    }
}

/// In a store of root's, builders make their outputs where only root may delete them.
fn make_store_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    make_directory(path)?;
    let group = rustix::process::geteuid()
        .is_root()
        .then(build_group)
        .flatten();
    if let Some(group) = group {
        let owner = fs_err::symlink_metadata(path)?.uid();
        fs_err::os::unix::fs::chown(path, Some(owner), Some(group))?;
        fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o1775))?;
    }
    Ok(())
}

/// The group id of `nixbld`, where this system has it.
fn build_group() -> Option<u32> {
    let groups = fs_err::read_to_string("/etc/group").ok()?;
    let line = groups.lines().find(|line| line.starts_with("nixbld:"))?;
    line.split(':').nth(2)?.parse().ok()
}

fn make_reserved(path: &Path) -> io::Result<()> {
    let file = fs_err::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    // Only a reserve: a full disk is found out soon enough, and by something that matters.
    if rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, RESERVED).is_err() {
        file.set_len(RESERVED)?;
    }
    Ok(())
}
