//! Who holds a lock: what to tell somebody who waits.
//!
//! The kernel lists every lock in `/proc/locks` (proc(5)), by device and inode, with the process
//! that took it; whoever inherited it since has the same line in `/proc/PID/fdinfo/N`. A process
//! that this one cannot see (in a container, on another machine) is in neither, or has no number
//! there: then nobody is named.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A process that holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its id.
    pub pid: u32,
    /// Its name, as `ps` shows it.
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} (`{}`)", self.pid, self.name)
    }
}

/// Finds another process that holds a file locked; none if none can be seen. Who locks it for
/// writing is to blame before those who only read.
pub fn holder(file: &Path) -> Option<Holder> {
    let metadata = file.metadata().ok()?;
    let device = metadata.dev();
    let device = (rustix::fs::major(device), rustix::fs::minor(device));
    let holds = |line: &str| holds(line, device, metadata.ino());
    let locks = fs_err::read_to_string("/proc/locks").ok()?;
    let (writing, reading): (Vec<&str>, Vec<&str>) =
        locks.lines().partition(|line| line.contains(" WRITE "));
    let all = writing.into_iter().chain(reading);
    let taker = all.filter_map(holds).find_map(stranger);
    taker.or_else(|| heir(|line| holds(line).is_some()))
}

/// A process by its number, if it lives and is neither this one nor a child of it.
fn stranger(pid: u32) -> Option<Holder> {
    let own = std::process::id();
    if pid == own || descends(pid, own) {
        return None;
    }
    let name = fs_err::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    let name = name.trim_end().to_owned();
    Some(Holder { pid, name })
}

/// Finds a stranger with the lock among its open files: the process that took it may be gone.
fn heir(is_lock: impl Fn(&str) -> bool) -> Option<Holder> {
    let processes = fs_err::read_dir("/proc").ok()?;
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| has_lock(*pid, &is_lock))
        .find_map(stranger)
}

fn has_lock(pid: u32, is_lock: impl Fn(&str) -> bool) -> bool {
    let Ok(files) = fs_err::read_dir(format!("/proc/{pid}/fdinfo")) else {
        return false;
    };
    let texts = files.filter_map(|file| fs_err::read_to_string(file.ok()?.path()).ok());
    texts.into_iter().any(|text| {
        text.lines()
            .filter_map(|line| line.strip_prefix("lock:"))
            .any(&is_lock)
    })
}

/// Reads `7: FLOCK ADVISORY WRITE 812 fe:00:3145 0 EOF`; a line with `->` waits and holds nothing.
fn holds(line: &str, device: (u32, u32), inode: u64) -> Option<u32> {
    let mut words = line.split_whitespace().skip(1);
    if !matches!(words.next()?, "FLOCK" | "POSIX" | "OFDLCK") {
        return None;
    }
    let pid = words.nth(2)?.parse().ok().filter(|pid| *pid > 0)?;
    let mut place = words.next()?.split(':');
    let mut hexadecimal = || u32::from_str_radix(place.next()?, 16).ok();
    let found = (hexadecimal()?, hexadecimal()?);
    let same = found == device && place.next()?.parse() == Ok(inode);
    same.then_some(pid)
}

/// Whether a process is a child of another, or a child's child.
fn descends(pid: u32, from: u32) -> bool {
    let mut pid = pid;
    while pid > 1 {
        let Some(parent) = parent(pid) else {
            return false;
        };
        if parent == from {
            return true;
        }
        pid = parent;
    }
    false
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn reads_the_lines_of_the_kernel() {
        let at = |line| holds(line, (0xfe, 0), 3145);
        assert_eq!(
            at("7: FLOCK  ADVISORY  WRITE 812 fe:00:3145 0 EOF"),
            Some(812)
        );
        assert_eq!(at("8: POSIX  ADVISORY  READ 9 fe:00:3145 128 128"), Some(9));
        for other in [
            "7: -> FLOCK  ADVISORY  WRITE 812 fe:00:3145 0 EOF",
            "7: FLOCK  ADVISORY  WRITE 812 fe:01:3145 0 EOF",
            "7: FLOCK  ADVISORY  WRITE 812 fe:00:3146 0 EOF",
            "7: FLOCK  ADVISORY  WRITE -1 fe:00:3145 0 EOF",
            "7: LEASE  ACTIVE    READ 812 fe:00:3145 0 EOF",
            "",
        ] {
            assert_eq!(at(other), None, "{other}");
        }
    }

    #[test]
    fn nobody_holds_what_is_free_or_held_by_a_child() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(holder(file.path()), None);
        let script = "flock 9; echo locked; read -r _";
        let mut child = Command::new("sh")
            .args(["-c", &format!("exec 9<\"$0\"; {script}")])
            .arg(file.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut said).unwrap();
        assert_eq!(said, "locked\n");
        assert_eq!(holder(file.path()), None);
        assert!(descends(child.id(), std::process::id()));
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
