//! What can fail, and how a failure of the child travels to its parent.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::{fmt, io};

/// Why a process could not be started, ended or waited for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A step between the birth of the process and its program failed.
    #[error("cannot {step} `{}`", subject.display())]
    Step {
        /// The step.
        step: Step,
        /// The path, name or id it was about.
        subject: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// All was prepared, but the program cannot be executed. For Nix this is a failure of the
    /// builder, not of the machine (spec §4.9).
    #[error("cannot execute `{program}`")]
    Exec {
        /// The program.
        program: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel ends texts at NUL, so none may hold one.
    #[error("`{text}` holds a NUL byte")]
    Nul {
        /// The text.
        text: String,
    },
    /// No process could be made, or not with these namespaces.
    #[error("cannot make a process in new namespaces")]
    Clone {
        /// The kernel's answer.
        source: io::Error,
    },
    /// There is no line between parent and child, or it broke.
    #[error("cannot talk to the new process")]
    Line {
        /// The kernel's answer.
        source: io::Error,
    },
    /// The ids of a user namespace could not be set.
    #[error("cannot map ids in `{}`", path.display())]
    Map {
        /// The file of the map.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The process could not be waited for.
    #[error("cannot wait for process {pid}")]
    Wait {
        /// Its id.
        pid: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The process could not be killed.
    #[error("cannot kill process {pid}")]
    Kill {
        /// Its id.
        pid: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The processes of a user could not be killed.
    #[error("cannot kill the processes of user {uid}")]
    KillUser {
        /// The user.
        uid: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It was ended before it was a program, because nobody wanted it any more.
    #[error("the process is not wanted any more")]
    Unwanted,
    /// A terminal could not be made.
    #[error("cannot {call} a pseudo terminal")]
    Pty {
        /// What was tried.
        call: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Error {
    /// Makes the conversion for one step: `call().map_err(Error::at(step, subject))`.
    pub(super) fn at<S, E>(step: Step, subject: S) -> impl FnOnce(E) -> Self
    where
        S: AsRef<Path>,
        E: Into<io::Error>,
    {
        move |source| Self::Step {
            step,
            subject: subject.as_ref().to_owned(),
            source: source.into(),
        }
    }

    /// The bytes for the parent: step, error number, subject. Step 255 is the exec itself.
    pub(super) fn encode(&self) -> Vec<u8> {
        let (step, subject, source) = match self {
            Self::Step {
                step,
                subject,
                source,
            } => (*step as u8, subject.as_path(), Some(source)),
            Self::Exec { program, source } => (EXEC, Path::new(program), Some(source)),
            _ => (Step::Finish as u8, Path::new("process"), None),
        };
        let number = source.and_then(io::Error::raw_os_error).unwrap_or(0);
        let mut bytes = vec![step];
        bytes.extend(number.to_ne_bytes());
        bytes.extend(subject.as_os_str().as_bytes());
        bytes
    }

    /// The child's error, or none if the bytes are not one.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (step, rest) = bytes.split_first()?;
        let (number, subject) = rest.split_first_chunk::<4>()?;
        let source = io::Error::from_raw_os_error(i32::from_ne_bytes(*number));
        let subject = PathBuf::from(OsStr::from_bytes(subject));
        if *step == EXEC {
            let program = subject.to_string_lossy().into_owned();
            return Some(Self::Exec { program, source });
        }
        let step = *Step::ALL.get(usize::from(*step))?;
        Some(Self::Step {
            step,
            subject,
            source,
        })
    }
}

/// The place of [`Step`] that stands for the exec.
const EXEC: u8 = u8::MAX;

/// Declares the steps with what they do, in the words of an error.
macro_rules! steps {
    ($($name:ident: $text:literal,)*) => {
        /// One thing a new process does before its program.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Step {
            $(#[doc = concat!("To ", $text, ".")] $name,)*
        }

        impl Step {
            const ALL: &[Self] = &[$(Self::$name,)*];
        }

        impl fmt::Display for Step {
            fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str(match self { $(Self::$name => $text,)* })
            }
        }
    };
}

steps! {
    Bond: "die with the parent",
    Signals: "reset the signals of",
    Session: "start a new session for",
    Null: "open",
    DetachMounts: "make private the mounts below",
    HoldRoot: "hold the old root",
    MountRoot: "mount a root at",
    EnterRoot: "enter the new root",
    PivotRoot: "make the new root",
    LeaveRoot: "unmount the old root",
    Directory: "make the directory",
    Owner: "change the owner of",
    Mode: "change the mode of",
    File: "write the file",
    Symlink: "make the symbolic link",
    MountPoint: "make the mount point",
    Source: "find the source",
    CloneTree: "bind the source",
    Attributes: "restrict the mount",
    MoveTree: "attach the mount",
    Tmpfs: "mount a tmpfs at",
    Proc: "mount procfs at",
    DevPts: "mount pseudo terminals at",
    Loopback: "bring up the interface",
    Hostname: "set the host name",
    Domainname: "set the domain name",
    WorkingDirectory: "change to the directory",
    Groups: "drop the supplementary groups of",
    UserNamespace: "make a user namespace for",
    Gid: "become group",
    Uid: "become user",
    Streams: "set the standard streams to",
    Descriptors: "close the descriptors of",
    CoreLimit: "limit the core file of",
    Personality: "set the personality",
    NoNewPrivileges: "forbid new privileges to",
    Seccomp: "install the filter",
    Finish: "prepare the",
}

/// A C string for the kernel.
pub(super) fn text(bytes: &[u8]) -> Result<std::ffi::CString, Error> {
    std::ffi::CString::new(bytes).map_err(|_| Error::Nul {
        text: std::ffi::OsString::from_vec(bytes.to_vec())
            .to_string_lossy()
            .into_owned(),
    })
}
