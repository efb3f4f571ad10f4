//! Temp roots: paths that no collector may take while this process lives (Nix spec §10.2).

use std::collections::HashSet;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use fs_err::os::unix::fs::OpenOptionsExt as _;
use rustix::fs::FlockOperation;

use super::locks::{GcLock, try_flock};
use super::{Error, NixDir};
use crate::nix::StorePath;

/// The first number no file of ours may have: collectors read the name as a signed 32-bit pid.
const END: u32 = 1 << 31;
/// The longest address of a Unix socket.
const MAX_SOCKET: usize = 107;

/// This process's file of temp roots.
///
/// Nix names the file by the process's id. Inside a container that is nearly always 1, so ours takes
/// a free number that no process can have; collectors only parse the name and test the lock.
#[derive(Debug)]
pub struct TempRoots {
    file: fs_err::File,
    held: HashSet<StorePath>,
}

impl TempRoots {
    /// Makes the file.
    pub fn create(dir: &NixDir) -> Result<Self, Error> {
        let floor = pid_max();
        loop {
            let path = dir
                .temproots()
                .join(random_between(floor, END)?.to_string());
            let options = fs_err::OpenOptions::new()
                .read(true)
                .append(true)
                .create_new(true)
                .mode(0o600)
                .open(path);
            let file = match options {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                other => other?,
            };
            // A collector may take the file for a stale one before it is locked.
            if try_flock(&file, FlockOperation::NonBlockingLockExclusive)?
                && file.metadata()?.len() == 0
            {
                return Ok(Self {
                    file,
                    held: HashSet::new(),
                });
            }
        }
    }

    /// Protects these paths. A collector at work is told first, and answers when it is not just
    /// deleting the path.
    pub fn add<'a>(
        &mut self,
        dir: &NixDir,
        paths: impl IntoIterator<Item = &'a StorePath>,
    ) -> Result<(), Error> {
        let mut new: Vec<StorePath> = paths
            .into_iter()
            .filter(|path| !self.held.contains(path))
            .cloned()
            .collect();
        new.sort_unstable();
        new.dedup();
        if new.is_empty() {
            return Ok(());
        }
        loop {
            if let Some(_lock) = GcLock::try_shared(dir)? {
                self.append(&new)?;
                break;
            }
            if tell_collector(dir, &new)? {
                self.append(&new)?;
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.held.extend(new);
        Ok(())
    }

    fn append(&mut self, paths: &[StorePath]) -> Result<(), Error> {
        let mut bytes = Vec::with_capacity(paths.len() * 80);
        for path in paths {
            bytes.extend_from_slice(path.to_absolute_path().as_bytes());
            bytes.push(0);
        }
        Ok(self.file.write_all(&bytes)?)
    }
}

impl Drop for TempRoots {
    fn drop(&mut self) {
        // Nothing is lost if it stays: unlocked, it is stale, and the next collector removes it.
        let _ = fs_err::remove_file(self.file.path());
    }
}

/// Tells a running collector; `false` if it ended meanwhile, and all is to be tried again.
fn tell_collector(dir: &NixDir, paths: &[StorePath]) -> Result<bool, Error> {
    let Some(stream) = connect(dir)? else {
        return Ok(false);
    };
    let mut answers = BufReader::new(&stream);
    for path in paths {
        let line = format!("{path}\n");
        if let Err(error) = (&stream).write_all(line.as_bytes()) {
            return retry(error);
        }
        match answers.fill_buf() {
            Ok(b"") => return Ok(false),
            Ok([b'1', ..]) => answers.consume(1),
            Ok(_) => {
                let source = std::io::Error::new(ErrorKind::InvalidData, "not the answer `1`");
                return Err(source.into());
            }
            Err(error) => return retry(error),
        }
    }
    Ok(true)
}

fn retry(error: std::io::Error) -> Result<bool, Error> {
    match error.kind() {
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof => Ok(false),
        _ => Err(error.into()),
    }
}

fn connect(dir: &NixDir) -> Result<Option<UnixStream>, Error> {
    let folder = dir.state().join("gc-socket");
    let mut address = folder.join("socket");
    let handle;
    if address.as_os_str().len() > MAX_SOCKET {
        handle = fs_err::File::open(&folder)?;
        address = PathBuf::from(format!("/proc/self/fd/{}/socket", handle.as_raw_fd()));
    }
    match UnixStream::connect(&address) {
        Ok(stream) => Ok(Some(stream)),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// One more than the highest process id of this system.
fn pid_max() -> u32 {
    // Without /proc the kernel's own upper limit serves.
    fs_err::read_to_string("/proc/sys/kernel/pid_max")
        .ok()
        .and_then(|text| text.trim().parse::<u32>().ok())
        .unwrap_or(1 << 22)
        .clamp(1 << 22, END - 1)
        + 1
}

fn random_between(floor: u32, end: u32) -> Result<u32, Error> {
    let mut bytes = [0; 4];
    fs_err::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(floor + u32::from_le_bytes(bytes) % (end - floor))
}
