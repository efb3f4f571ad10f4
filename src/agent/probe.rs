//! `agent probe`: what an op sees of its room, for `pontoon doctor`.
//!
//! It opens no store and builds nothing. Its answer is one line of JSON over the tunnel, so that it
//! works exactly where a build's would; it ends when that was received.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::agent::{Orders, PLAIN_STORE, Shape, exit};
use crate::sandbox::ids::{self, UserMap};
use crate::tunnel;

/// How long the answer may take to be received.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an op sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Which op.
    pub nonce: String,
    /// Which boot of which kernel: the same for all containers of a machine.
    pub boot: String,
    /// Which network it is in: the same number, at the same boot, is the same network.
    pub network: String,
    /// Network interfaces besides the loopback.
    pub interfaces: Vec<String>,
    /// Whether it can make namespaces; else the kernel's answer.
    pub namespaces: Result<(), String>,
    /// The store's directory, if the op has one.
    pub store: Option<Place>,
    /// How many user ids there are.
    pub ids: u64,
}

/// A directory and the file system it is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Where.
    pub path: String,
    /// What `statfs` calls the file system's type.
    pub kind: u64,
    /// Bytes that are free.
    pub free: u64,
    /// Whether it can be written to; else the kernel's answer.
    pub writable: Result<(), String>,
}

impl Place {
    /// Looks at a directory.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub fn look(path: &Path) -> std::io::Result<Self> {
        let system = rustix::fs::statfs(path)?;
        let writable = rustix::fs::access(path, rustix::fs::Access::WRITE_OK);
        Ok(Self {
            path: path.display().to_string(),
            #[expect(
                clippy::cast_sign_loss,
                reason = "32 bits that the kernel calls signed"
            )]
            kind: (system.f_type as u64) & 0xffff_ffff,
            free: system.f_bavail * u64::try_from(system.f_bsize).unwrap_or(0),
            writable: writable.map_err(|error| error.to_string()),
        })
    }
}

/// Looks around and tells; returns the exit code of the process.
pub fn run(orders: &Orders) -> i32 {
    match tell(&look(orders)) {
        Ok(()) => exit::DONE,
        Err(_) => exit::LOST,
    }
}

fn tell(seen: &Seen) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(tunnel::SOCKET)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(seen)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    // Without an answer nobody knows that the last bytes have arrived.
    stream.read_exact(&mut [0])
}

fn look(orders: &Orders) -> Seen {
    let store = Path::new(match orders.shape {
        Shape::Strong => "/nix",
        Shape::Plain => PLAIN_STORE,
    });
    let (boot, network) = own_network();
    let (store, interfaces, ids) = (Place::look(store).ok(), interfaces(), ids());
    // The last thing: it changes what this process sees.
    let all = UserMap::Single { uid: 0, gid: 0 };
    let namespaces = ids::enter_user_namespace(&all);
    Seen {
        nonce: orders.nonce.clone(),
        boot,
        network,
        interfaces,
        namespaces: namespaces.map_err(|error| tunnel::MachineError::of(&error).text),
        store,
        ids,
    }
}

/// Names the boot and the network that this process is in.
pub fn own_network() -> (String, String) {
    let boot = fs_err::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let network = fs_err::read_link("/proc/self/ns/net").unwrap_or_default();
    (boot.trim().to_owned(), network.display().to_string())
}

fn interfaces() -> Vec<String> {
    let table = fs_err::read_to_string("/proc/net/dev").unwrap_or_default();
    let names = table.lines().filter_map(|line| line.split_once(':'));
    names
        .map(|(name, _)| name.trim().to_owned())
        .filter(|name| name != "lo")
        .collect()
}

/// Counts the ids of this process's user namespace.
fn ids() -> u64 {
    let map = fs_err::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let counts = map
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2));
    counts.filter_map(|count| count.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_this_machine() {
        let here = Place::look(Path::new("/proc")).unwrap();
        assert_eq!((here.kind, here.free), (0x9fa0, 0));
        let (boot, network) = own_network();
        assert!(
            boot.len() == 36 && network.starts_with("net:["),
            "{boot} {network}"
        );
        assert!(ids() > 0);
    }
}
