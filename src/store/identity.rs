//! Which store this is, and which copy of it.
//!
//! `pontoon/identity` holds two lines of 32 hexadecimal digits, made once. The first is the store's
//! id. The second is a seed: the instance id is made from it and the device and inode of the
//! directory, so that a copied store is another instance of the same store without being written.

use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::{Error, NixDir};

/// Names a store and one copy of it; each 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The store, kept when it is copied.
    pub store: String,
    /// This copy. It changes when the directory's device number does.
    pub instance: String,
}

impl Identity {
    /// Reads the identity, and makes it on first use.
    pub(super) fn obtain(dir: &NixDir) -> Result<Self, Error> {
        if let Some(identity) = Self::read(dir)? {
            return Ok(identity);
        }
        let text = format!("{}\n{}\n", random()?, random()?);
        let mut file = tempfile::Builder::new()
            .permissions(std::fs::Permissions::from_mode(0o644))
            .prefix(".identity-")
            .tempfile_in(dir.pontoon())?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        match file.persist_noclobber(dir.pontoon().join("identity")) {
            Ok(_) => fs_err::File::open(dir.pontoon())?.sync_all()?,
            // Another process was faster: its identity holds.
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.error.into()),
        }
        Self::read(dir)?.ok_or_else(|| Error::Missing {
            dir: dir.path().to_owned(),
        })
    }

    /// The identity for a reader: a store that was never opened for writing by this program is
    /// named by its directory alone.
    pub(super) fn of_reader(dir: &NixDir) -> Result<Self, Error> {
        if let Some(identity) = Self::read(dir)? {
            return Ok(identity);
        }
        let name = of_place("", &dir.store())?;
        Ok(Self {
            store: name.clone(),
            instance: name,
        })
    }

    fn read(dir: &NixDir) -> Result<Option<Self>, Error> {
        let path = dir.pontoon().join("identity");
        let text = match fs_err::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let lines: Vec<&str> = text.lines().collect();
        let [store, seed] = lines[..] else {
            return Err(bad(&path));
        };
        let is_id =
            |text: &str| text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_id(store) || !is_id(seed) {
            return Err(bad(&path));
        }
        let instance = of_place(seed, &dir.pontoon())?;
        Ok(Some(Self {
            store: store.to_owned(),
            instance,
        }))
    }
}

fn bad(path: &Path) -> Error {
    Error::Name {
        what: "store",
        name: path.display().to_string(),
    }
}

fn of_place(seed: &str, folder: &Path) -> Result<String, Error> {
    let metadata = fs_err::metadata(folder)?;
    let text = format!("{seed}:{}:{}", metadata.dev(), metadata.ino());
    Ok(hex(&Sha256::digest(text)[..16]))
}

/// 32 random hexadecimal digits.
pub(super) fn random() -> Result<String, Error> {
    let mut bytes = [0; 16];
    fs_err::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(hex(&bytes))
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a string takes everything");
            text
        })
}
