//! The calls for which there is no safe binding; the only unsafe code of the package.
//!
//! Each function is one call with its types made right. What the call means, and when to use it,
//! stands at its callers.
#![expect(
    unsafe_code,
    reason = "raw system calls; nothing outside this file is unsafe"
)]

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::{io, mem, ptr};

/// The two sides of a clone.
pub(super) enum Cloned {
    /// The new process.
    Child,
    /// The caller, with the child's id and a descriptor of it.
    Parent { pid: u32, pidfd: OwnedFd },
}

/// Makes a process like `fork`, in new namespaces (`CLONE_NEW…`).
///
/// The caller must be single-threaded, else the child may wait for ever for a lock of a thread
/// that it has not got. The child must end in [`exit`] or [`execve`].
pub(super) fn clone(namespaces: c_int) -> io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    let flags = namespaces | libc::CLONE_PIDFD | libc::SIGCHLD;
    let none = ptr::null_mut::<c_void>();
    // The older call, for containers often refuse clone3, whose flags no filter can see.
    // SAFETY: without CLONE_VM and a stack this is fork: the child has a copy of all memory. The
    // pointer is valid for the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, none, &raw mut pidfd, none, none) };
    match pid {
        0 => Ok(Cloned::Child),
        pid if pid > 0 => Ok(Cloned::Parent {
            pid: u32::try_from(pid).expect("a process id is a positive int"),
            // SAFETY: CLONE_PIDFD stored a new descriptor that nobody else owns.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes a process as [`clone`] does, from a test, where other threads wait.
#[cfg(test)]
pub(super) fn fork() -> io::Result<Cloned> {
    // SAFETY: glibc's own fork leaves its allocator usable in the child.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    let Some(child) = rustix::process::Pid::from_raw(pid) else {
        return Ok(Cloned::Child);
    };
    let pidfd = rustix::process::pidfd_open(child, rustix::process::PidfdFlags::empty())?;
    Ok(Cloned::Parent {
        pid: pid.cast_unsigned(),
        pidfd,
    })
}

/// Ends the process without running what the parent has registered for its own end.
pub(super) fn exit(code: i32) -> ! {
    // SAFETY: always allowed.
    unsafe { libc::_exit(code) }
}

/// Executes a program; returns only with an error.
pub(super) fn execve(program: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let pointers = |texts: &[CString]| -> Vec<*const c_char> {
        texts
            .iter()
            .map(|text| text.as_ptr())
            .chain([ptr::null()])
            .collect()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: both arrays end in null and point to C strings that live until the call is over.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// Gives every signal its default action and unblocks all.
pub(super) fn reset_signals() -> io::Result<()> {
    // The kernel's own struct, 32 bytes with a set of 8: the default action, no flags, empty. Its
    // call is made directly, for glibc hides two signals that a caller may well have ignored.
    let default = [0_u64; 4];
    for signal in 1..=64 {
        // SAFETY: the pointers are valid. It fails only for KILL and STOP, which nobody changes.
        unsafe {
            let none = ptr::null_mut::<c_void>();
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, 8);
        }
    }
    // SAFETY: all-zero bytes are an empty set.
    let none: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: the pointers are valid.
    check(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()) })
}

/// Ignores SIGPIPE, as Rust's runtime does at the start of a program.
pub(super) fn ignore_broken_pipes() {
    // SAFETY: ignoring runs no code; it cannot fail for this signal.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// What [`close_range`] does.
#[derive(Clone, Copy)]
pub(super) enum Close {
    /// Closes now.
    Now,
    /// Closes at the exec.
    AtExec,
}

/// Closes the descriptors `first..=last`, those of other owners in this process too: only for a
/// child that will use none of them.
pub(super) fn close_range(first: RawFd, last: RawFd, close: Close) -> io::Result<()> {
    let flags = match close {
        Close::Now => 0,
        Close::AtExec => libc::CLOSE_RANGE_CLOEXEC,
    };
    // SAFETY: no memory is passed.
    check_long(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) })
}

/// Makes a new user namespace, also one of mounts if `CLONE_NEWNS` is among the flags.
pub(super) fn unshare(namespaces: c_int) -> io::Result<()> {
    // SAFETY: without CLONE_FILES no descriptor changes its owner.
    check(unsafe { libc::unshare(namespaces) })
}

/// Adds attributes (`MOUNT_ATTR_…`) to a mount and all below it. None is ever taken away, so those
/// that an outer user namespace has locked stay.
pub(super) fn add_mount_attributes(mount: BorrowedFd<'_>, attributes: u64) -> io::Result<()> {
    let change = libc::mount_attr {
        attr_set: attributes,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: path and struct are valid for the call.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const change,
            size_of_val(&change),
        )
    })
}

/// Brings up the loopback interface; the kernel gives it its addresses then.
pub(super) fn raise_loopback(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    request.ifr_name[0] = c_char::try_from(b'l').expect("ASCII");
    request.ifr_name[1] = c_char::try_from(b'o').expect("ASCII");
    let flags = libc::IFF_UP | libc::IFF_LOOPBACK | libc::IFF_RUNNING;
    request.ifr_ifru.ifru_flags = i16::try_from(flags).expect("three low bits");
    // SAFETY: SIOCSIFFLAGS reads an ifreq.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })
}

/// Sets the personality (`PER_…` and flags).
pub(super) fn personality(persona: c_int) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::personality(persona.cast_unsigned().into()) })
}

/// Installs a filter for the calls of this process and all it will make; `no_new_privs` is set.
pub(super) fn install_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies the program and writes nothing.
    check_long(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            (&raw const program).cast::<c_void>(),
        )
    })
}

/// Kills every process that the caller may signal, but itself.
pub(super) fn kill_all() -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::kill(-1, libc::SIGKILL) })
}

/// Calls the kernel as a 32-bit program does.
#[cfg(test)]
pub(super) fn call32(number: i32, first: i32, second: i32) -> i32 {
    let result: i32;
    // SAFETY: the calls under test take no pointer; rbx is restored.
    unsafe {
        std::arch::asm!(
            "push rbx", "mov ebx, {first:e}", "int 0x80", "pop rbx",
            first = in(reg) first, inlateout("eax") number => result, in("ecx") second,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    result
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn check_long(result: c_long) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
