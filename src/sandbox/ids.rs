//! Users: those who build, those an ordinary user may use, and how one becomes root of them.
//!
//! A static executable must not load name service modules, so the files are read as text; the
//! caller reads them and says which. Users that exist only in a directory service are not found.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::process::Command;

use super::sys::{self, Cloned};
use super::{Child, Exit};

/// A user that builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildUser {
    /// The name.
    pub name: String,
    /// The user id.
    pub uid: u32,
    /// The id of the group of builders, which is not always the user's own.
    pub gid: u32,
}

/// Consecutive ids that somebody may use in a user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub start: u32,
    /// How many.
    pub count: u32,
}

/// Which ids exist in a user namespace besides root, and who root is outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserMap {
    /// Only root.
    Single {
        /// The caller's user id.
        uid: u32,
        /// The caller's group id.
        gid: u32,
    },
    /// Root, and from 1 on those of the ranges, by `newuidmap` and `newgidmap`.
    Subordinate {
        /// The caller's user id.
        uid: u32,
        /// The caller's group id.
        gid: u32,
        /// From `/etc/subuid`.
        uids: Range,
        /// From `/etc/subgid`.
        gids: Range,
    },
}

/// Why there are no ids.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such group.
    #[error("the group `{group}` does not exist")]
    NoGroup {
        /// The group.
        group: String,
    },
    /// A group without members.
    #[error("the group `{group}` has no members")]
    NoMembers {
        /// The group.
        group: String,
    },
    /// A member that is no user.
    #[error("the user `{user}` in the group `{group}` does not exist")]
    NoUser {
        /// The member.
        user: String,
        /// The group.
        group: String,
    },
    /// The kernel makes no user namespace; [`obstacle`] says why.
    #[error("cannot make a user namespace")]
    Namespace {
        /// The kernel's answer.
        source: io::Error,
    },
    /// The map could not be written.
    #[error("cannot write `{path}`")]
    Map {
        /// The file.
        path: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// `newuidmap` or `newgidmap` failed.
    #[error("cannot map subordinate ids: {message}")]
    Tool {
        /// What it said.
        message: String,
    },
    /// The process that runs the tools could not be made or heard.
    #[error("cannot run `newuidmap` and `newgidmap`")]
    Fork {
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Finds the users of a group, in the order of the group's list as Nix takes them.
///
/// # Errors
///
/// As Nix: a group or user that does not exist, or a group without members.
pub fn build_users(group_file: &str, passwd: &str, group: &str) -> Result<Vec<BuildUser>, Error> {
    let found = find(group_file, group).and_then(|fields| Some((number(fields.get(2)?)?, fields)));
    let (gid, fields) = found.ok_or_else(|| Error::NoGroup {
        group: group.to_owned(),
    })?;
    let members = fields.get(3).copied().unwrap_or_default().trim();
    if members.is_empty() {
        return Err(Error::NoMembers {
            group: group.to_owned(),
        });
    }
    let member = |name: &str| {
        let uid = find(passwd, name).and_then(|fields| number(fields.get(2)?));
        let missing = || Error::NoUser {
            user: name.to_owned(),
            group: group.to_owned(),
        };
        Ok(BuildUser {
            name: name.to_owned(),
            uid: uid.ok_or_else(missing)?,
            gid,
        })
    };
    members
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(member)
        .collect()
}

/// Finds the largest range of a user in the text of `/etc/subuid` or `/etc/subgid`, where the
/// user's line may bear the name or the number. Lines that make no sense are passed over.
pub fn subordinate(text: &str, name: &str, uid: u32) -> Option<Range> {
    let range = |line: &str| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let is_his = owner == name || number(owner) == Some(uid);
        let range = Range {
            start: number(fields.next()?)?,
            count: number(fields.next()?)?,
        };
        (is_his && range.count > 0).then_some(range)
    };
    // The first of equals, which `max_by_key` would not give.
    text.lines()
        .filter_map(range)
        .reduce(|best, next| if next.count > best.count { next } else { best })
}

/// Finds the name of a user in the text of `/etc/passwd`.
pub fn user_name(passwd: &str, uid: u32) -> Option<String> {
    let mut lines = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    let line = lines.find(|fields| fields.get(2).and_then(|text| number(text)) == Some(uid))?;
    Some((*line.first()?).to_owned())
}

/// The fields of the line that begins with a name.
fn find<'a>(text: &'a str, name: &str) -> Option<Vec<&'a str>> {
    text.lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields[0] == name)
}

fn number(text: &str) -> Option<u32> {
    text.trim().parse().ok()
}

/// Makes the calling process root of a user namespace of its own, with its own mounts. It must
/// have one thread only.
///
/// # Errors
///
/// [`Error::Namespace`] where this is forbidden: [`obstacle`] says why; others if the ids cannot
/// be mapped, after which the process is of no more use.
pub fn enter_user_namespace(map: &UserMap) -> Result<(), Error> {
    let namespaces = libc::CLONE_NEWUSER | libc::CLONE_NEWNS;
    let unshare = || sys::unshare(namespaces).map_err(|source| Error::Namespace { source });
    match *map {
        UserMap::Single { uid, gid } => {
            unshare()?;
            // Without this an ordinary user may map no group.
            write("/proc/self/setgroups", "deny")?;
            write("/proc/self/uid_map", &format!("0 {uid} 1"))?;
            write("/proc/self/gid_map", &format!("0 {gid} 1"))
        }
        UserMap::Subordinate {
            uid,
            gid,
            uids,
            gids,
        } => {
            let mapper = Mapper::start((uid, uids), (gid, gids))?;
            unshare()?;
            mapper.finish()
        }
    }
}

fn write(path: &'static str, contents: &str) -> Result<(), Error> {
    fs_err::write(path, contents).map_err(|source| Error::Map { path, source })
}

/// A process that stays outside of the namespace and runs the tools, which have no power inside.
struct Mapper {
    child: Child,
    /// Gets one byte when the namespace exists.
    go: OwnedFd,
    /// What the tools complain about; nothing if all went well.
    answer: OwnedFd,
}

impl Mapper {
    fn start(users: (u32, Range), groups: (u32, Range)) -> Result<Self, Error> {
        let failed = |source: io::Error| Error::Fork { source };
        let parent = rustix::process::getpid().to_string();
        let (wait, go) = pipe().map_err(failed)?;
        let (answer, say) = pipe().map_err(failed)?;
        match sys::clone(0).map_err(failed)? {
            Cloned::Child => {
                drop((go, answer));
                sys::exit(map(wait, say, &parent, users, groups).map_or(1, |()| 0));
            }
            Cloned::Parent { pid, pidfd } => Ok(Self {
                child: Child::new(pid, pidfd),
                go,
                answer,
            }),
        }
    }

    fn finish(mut self) -> Result<(), Error> {
        let failed = |source: io::Error| Error::Fork { source };
        std::fs::File::from(self.go)
            .write_all(&[0])
            .map_err(failed)?;
        let mut message = String::new();
        std::fs::File::from(self.answer)
            .read_to_string(&mut message)
            .map_err(failed)?;
        match self.child.wait() {
            Ok(Exit::Code(0)) if message.is_empty() => Ok(()),
            Ok(Exit::Code(0)) => Err(Error::Tool { message }),
            _ => Err(failed(io::ErrorKind::BrokenPipe.into())),
        }
    }
}

/// Runs the tools when told to, and says what they complain about.
fn map(
    wait: OwnedFd,
    say: OwnedFd,
    process: &str,
    users: (u32, Range),
    groups: (u32, Range),
) -> io::Result<()> {
    // Without the byte the parent is dead.
    std::fs::File::from(wait).read_exact(&mut [0])?;
    let users = run("newuidmap", process, users);
    let complaint = users.and_then(|()| run("newgidmap", process, groups)).err();
    std::fs::File::from(say).write_all(complaint.unwrap_or_default().as_bytes())
}

fn run(tool: &str, process: &str, (own, range): (u32, Range)) -> Result<(), String> {
    let map = [0, own, 1, 1, range.start, range.count].map(|number| number.to_string());
    let output = Command::new(tool).arg(process).args(map).output();
    let output = output.map_err(|error| format!("`{tool}`: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned() + &format!(" (`{tool}`)"))
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// Says what to do where not even root may make user namespaces; nothing where he may.
pub fn forbidden() -> Option<String> {
    let limit = fs_err::read_to_string("/proc/sys/user/max_user_namespaces").ok()?;
    (number(&limit)? == 0).then(obstacle)?
}

/// Says why this machine lets an ordinary user make no user namespace, and what can be done about
/// it; nothing if no reason is found. To be asked after a failure.
pub fn obstacle() -> Option<String> {
    let setting = |path: &str| {
        fs_err::read_to_string(path)
            .ok()
            .and_then(|text| number(&text))
    };
    let reasons = [
        (
            "/proc/sys/user/max_user_namespaces",
            0,
            "user namespaces are switched off: `sysctl user.max_user_namespaces=10000` allows them",
        ),
        (
            "/proc/sys/kernel/unprivileged_userns_clone",
            0,
            "only root may make user namespaces: `sysctl kernel.unprivileged_userns_clone=1` \
             allows it to all",
        ),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            1,
            "AppArmor lets only named programs use user namespaces: give this one a profile with \
             `userns`, or `sysctl kernel.apparmor_restrict_unprivileged_userns=0`",
        ),
    ];
    let reason = reasons
        .into_iter()
        .find(|(path, value, _)| setting(path) == Some(*value));
    reason.map(|(_, _, text)| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: &str = "root:x:0:\nnixbld:x:30000:nixbld1,nixbld2\nempty:x:5:\nbad:x:6:ghost\n";
    const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nnixbld2:x:30002:30000::/:/x\n\
                          nixbld1:x:30001:30000::/:/x\n";

    #[test]
    fn build_users_are_in_the_order_of_the_group() {
        let users = build_users(GROUP, PASSWD, "nixbld").unwrap();
        let users: Vec<_> = users
            .iter()
            .map(|user| (&*user.name, user.uid, user.gid))
            .collect();
        assert_eq!(
            users,
            [("nixbld1", 30001, 30000), ("nixbld2", 30002, 30000)]
        );
    }

    #[test]
    fn groups_without_builders_are_errors() {
        let error = |group| build_users(GROUP, PASSWD, group).unwrap_err().to_string();
        assert_eq!(error("none"), "the group `none` does not exist");
        assert_eq!(error("empty"), "the group `empty` has no members");
        assert_eq!(
            error("bad"),
            "the user `ghost` in the group `bad` does not exist"
        );
    }

    #[test]
    fn subordinate_ranges_are_found_by_name_and_by_number() {
        let text = "ann:100000:65536\n1000:300000:65536\nbob:1:0\nann:400000:100000\nbad\n";
        let found =
            |name, uid| subordinate(text, name, uid).map(|range| (range.start, range.count));
        assert_eq!(found("ann", 7), Some((400_000, 100_000)));
        assert_eq!(found("someone", 1000), Some((300_000, 65_536)));
        assert_eq!(found("bob", 8), None);
        assert_eq!(user_name(PASSWD, 30001).as_deref(), Some("nixbld1"));
    }
}
