//! The `/etc` of a room whose root is empty: accounts, hosts and services.

use crate::agent::room::{Network, Room, RoomError, file, write};
use crate::sandbox::Entry;

pub(super) const PASSWD: &str = "root:x:0:0:Nix build user:/build:/noshell\n\
    nixbld:x:1000:100:Nix build user:/build:/noshell\n\
    nobody:x:65534:65534:Nobody:/:/noshell\n";
pub(super) const GROUP: &str = "root:x:0:\nnixbld:!:100:\nnogroup:x:65534:\n";
const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost\n";
const NSSWITCH: &str = "hosts: files dns\nservices: files\n";

/// The accounts of a room with user ids of its own.
pub(super) fn accounts() -> [Entry; 2] {
    [
        file("/etc/passwd", PASSWD.as_bytes()),
        file("/etc/group", GROUP.as_bytes()),
    ]
}

impl Room<'_> {
    /// What names hosts and services.
    pub(super) fn etc(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        match self.network {
            Network::Private => entries.push(file("/etc/hosts", HOSTS.as_bytes())),
            Network::Open => {
                let shown = ["/etc/resolv.conf", "/etc/services", "/etc/hosts"];
                entries.extend(shown.map(Entry::of_the_machine));
                entries.push(file("/etc/nsswitch.conf", NSSWITCH.as_bytes()));
            }
        }
        entries
    }

    /// Accounts and services in a plain op, whose builder is a user of the machine's; what mounts bring
    /// is there.
    pub(super) fn furnish_etc(&self) -> Result<(), RoomError> {
        let user = format!(
            "nixbld:x:{}:{}:Nix build user:/build:/noshell\n",
            self.user.uid, self.user.gid
        );
        let passwd = PASSWD.replace("nixbld:x:1000:100:Nix build user:/build:/noshell\n", &user);
        let group = GROUP.replace(":100:", &format!(":{}:", self.user.gid));
        write("/etc/passwd", passwd.as_bytes())?;
        write("/etc/group", group.as_bytes())?;
        if self.network == Network::Open {
            write("/etc/nsswitch.conf", NSSWITCH.as_bytes())?;
        }
        Ok(())
    }
}
