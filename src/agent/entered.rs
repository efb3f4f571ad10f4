//! A program in a container that is no op: `agent enter PATH`.
//!
//! Daemons of 2020 leave it running when its client ends, and every daemon does when it dies. So the
//! agent is the container's first process and has a connection to whoever wanted the program, which
//! nothing is said on: when it ends, the agent does, and with it everything in the container.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::tunnel;

/// Runs a program to its end, and returns its exit code; none if the lifeline ended before.
pub fn run<A: AsRef<OsStr>>(program: &Path, arguments: &[A]) -> io::Result<Option<u8>> {
    let lifeline = UnixStream::connect(tunnel::SOCKET)?;
    let child = Command::new(program).args(arguments).spawn()?;
    Ok(outlast(lifeline, child)?.map(code))
}

fn outlast(mut lifeline: UnixStream, mut child: Child) -> io::Result<Option<ExitStatus>> {
    let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    loop {
        let mut both = [
            PollFd::new(&process, PollFlags::IN),
            PollFd::new(&lifeline, PollFlags::IN),
        ];
        match poll(&mut both, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [ended, heard] = both.map(|one| !one.revents().is_empty());
        if ended {
            return child.wait().map(Some);
        }
        if heard && matches!(lifeline.read(&mut [0; 64]), Ok(0) | Err(_)) {
            return Ok(None);
        }
    }
}

/// As a shell says it.
fn code(status: ExitStatus) -> u8 {
    let signal = || 128 + status.signal().unwrap_or_default();
    u8::try_from(status.code().unwrap_or_else(signal)).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleep(seconds: &str) -> Child {
        Command::new("sleep").arg(seconds).spawn().unwrap()
    }

    #[test]
    fn a_program_ends_by_itself_or_with_its_lifeline() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let status = outlast(theirs, sleep("0")).unwrap();
        assert_eq!(status.map(code), Some(0));
        drop(ours);

        let (ours, theirs) = UnixStream::pair().unwrap();
        let child = sleep("600");
        let pid = Pid::from_child(&child);
        drop(ours);
        assert!(outlast(theirs, child).unwrap().is_none());
        // In a container it would go with us.
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    #[test]
    fn a_code_is_that_of_a_shell() {
        assert_eq!(code(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(code(ExitStatus::from_raw(9)), 137);
    }
}
