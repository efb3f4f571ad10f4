//! What makes an op one that an engine can run: `BuildKit`'s own checks, done before it sees one,
//! and ours (spec §1.4, §1.5, §2.1).
//!
//! Both directions use them: nothing is written that would be refused, and nothing is handed to
//! the embedded engine that it would have to refuse in the middle.

use super::encode::CUSTOM_NAME;
use super::{Access, CachePolicy, Exec, Metadata, Mount, MountKind, Op, Source};

/// Says what is wrong with one op.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// There is no program.
    #[error("exec has no arguments")]
    NoArguments,
    /// No mount, or none that can be a root, is at `/`.
    #[error("exec has no scratch or bind mount at `/`")]
    NoRoot,
    /// A path is not absolute, or has `.`, `..` or empty components.
    #[error("{field} `{path}` is not a plain absolute path")]
    BadPath {
        /// Which field.
        field: &'static str,
        /// What it holds.
        path: String,
    },
    /// A selector has `.`, `..` or empty components.
    #[error("selector `{selector}` of the mount at `{dest}` is not a plain path")]
    BadSelector {
        /// Where the mount is.
        dest: String,
        /// What its selector is.
        selector: String,
    },
    /// A string that the kernel ends at a NUL byte has one.
    #[error("{field} holds a NUL byte")]
    Nul {
        /// Which field.
        field: &'static str,
    },
    /// A string that means "none" when empty is given and empty, or must not be empty.
    #[error("{field} is empty")]
    Empty {
        /// Which field.
        field: &'static str,
    },
    /// A variable's name holds `=`, so it would come back as another.
    #[error("variable name `{name}` holds `=`")]
    BadVariable {
        /// The name.
        name: String,
    },
    /// A mount has an input and may not, or the reverse.
    #[error("mount at `{dest}` {}", if *.needs { "has no input" } else { "takes no input" })]
    MountInput {
        /// Where the mount is.
        dest: String,
        /// Whether it needs one.
        needs: bool,
    },
    /// A mount's input is not among the op's.
    #[error("mount at `{dest}` has input {input} of {count}")]
    NoSuchInput {
        /// Where the mount is.
        dest: String,
        /// The input it names.
        input: usize,
        /// How many there are.
        count: usize,
    },
    /// A scratch mount is kept by nobody: `BuildKit` then has nothing to mount.
    #[error("scratch mount at `{dest}` needs an output and write access")]
    ScratchWithoutOutput {
        /// Where the mount is.
        dest: String,
    },
    /// The root is writable and thrown away, which `BuildKit` does not support.
    #[error("a writable root needs an output")]
    WritableRootWithoutOutput,
    /// A mount of a kind that cannot be kept has an output.
    #[error("mount at `{dest}` cannot be an output")]
    OutputOfTransient {
        /// Where the mount is.
        dest: String,
    },
    /// Outputs are not numbered from 0 in the order of the mounts.
    #[error("mount at `{dest}` is output {found}, not {expected}")]
    OutputOrder {
        /// Where the mount is.
        dest: String,
        /// Its number.
        found: usize,
        /// What its place among the outputs is.
        expected: usize,
    },
    /// A size in memory is not above 0.
    #[error("mount at `{dest}` has size {size}")]
    BadSize {
        /// Where the mount is.
        dest: String,
        /// Its size.
        size: i64,
    },
    /// The op would empty every cache mount of the daemon, of all clients (spec §3.4).
    #[error("an op with a cache mount at `{dest}` cannot ignore the cache: use a nonce")]
    IgnoreCacheWithCacheMount {
        /// Where the first cache mount is.
        dest: String,
    },
    /// A source is of a kind that is not known here.
    #[error("source `{identifier}` is no docker-image, oci-layout or local")]
    BadSource {
        /// What it is called.
        identifier: String,
    },
}

/// Checks all but the numbers of outputs, which foreign definitions may write as they like.
pub(super) fn op(op: &Op, metadata: &Metadata) -> Result<(), Fault> {
    if metadata.custom_name.as_deref() == Some("") {
        return Err(Fault::Empty { field: CUSTOM_NAME });
    }
    match op {
        Op::Exec(exec) => self::exec(exec, metadata.cache),
        Op::Source(source) => self::source(source),
    }
}

/// Checks the numbers of outputs: what we write is in order.
pub(super) fn outputs(exec: &Exec) -> Result<(), Fault> {
    let with_output = exec
        .mounts
        .iter()
        .filter_map(|mount| Some((mount, mount.output?)));
    for (expected, (mount, found)) in with_output.enumerate() {
        let dest = mount.dest.clone();
        if !mount.makes_output() {
            return Err(Fault::OutputOfTransient { dest });
        }
        if found != expected {
            return Err(Fault::OutputOrder {
                dest,
                found,
                expected,
            });
        }
    }
    Ok(())
}

fn exec(exec: &Exec, cache: CachePolicy) -> Result<(), Fault> {
    if exec.args.is_empty() {
        return Err(Fault::NoArguments);
    }
    let is_root = |mount: &Mount| {
        mount.dest == "/" && matches!(mount.kind, MountKind::Scratch | MountKind::Bind)
    };
    // A later mount at the same place replaces an earlier one, so every one at `/` must do.
    let mut roots = exec
        .mounts
        .iter()
        .filter(|mount| mount.dest == "/")
        .peekable();
    if roots.peek().is_none() || !roots.all(is_root) {
        return Err(Fault::NoRoot);
    }
    strings(exec)?;
    for mount in &exec.mounts {
        self::mount(mount, exec.inputs.len())?;
    }
    let cache_mount = exec
        .mounts
        .iter()
        .find(|mount| matches!(mount.kind, MountKind::Cache { .. }));
    match (cache, cache_mount) {
        (CachePolicy::Ignore, Some(mount)) => Err(Fault::IgnoreCacheWithCacheMount {
            dest: mount.dest.clone(),
        }),
        _ => Ok(()),
    }
}

fn strings(exec: &Exec) -> Result<(), Fault> {
    absolute("cwd", &exec.cwd)?;
    no_nul("user", &exec.user)?;
    for arg in &exec.args {
        no_nul("argument", arg)?;
    }
    for (name, value) in &exec.env {
        present("variable name", name)?;
        no_nul("variable value", value)?;
        if name.contains('=') {
            return Err(Fault::BadVariable { name: name.clone() });
        }
    }
    if let Some(hostname) = &exec.hostname {
        present("hostname", hostname)?;
    }
    exec.devices
        .iter()
        .try_for_each(|device| present("device", device))
}

fn mount(mount: &Mount, inputs: usize) -> Result<(), Fault> {
    let dest = || mount.dest.clone();
    absolute("mount", &mount.dest)?;
    if let Some(selector) = &mount.selector {
        present("selector", selector)?;
        if !plain(selector.strip_prefix('/').unwrap_or(selector)) {
            return Err(Fault::BadSelector {
                dest: dest(),
                selector: selector.clone(),
            });
        }
    }
    let needs = mount.kind == MountKind::Bind;
    match mount.input {
        Some(input) if needs && input >= inputs => {
            return Err(Fault::NoSuchInput {
                dest: dest(),
                input,
                count: inputs,
            });
        }
        input if input.is_some() != needs => {
            return Err(Fault::MountInput {
                dest: dest(),
                needs,
            });
        }
        _ => {}
    }
    kind(mount)
}

fn kind(mount: &Mount) -> Result<(), Fault> {
    let dest = || mount.dest.clone();
    let writable = mount.access == Access::ReadWrite;
    match &mount.kind {
        MountKind::Scratch if mount.output.is_none() || !writable => {
            Err(Fault::ScratchWithoutOutput { dest: dest() })
        }
        MountKind::Bind if mount.dest == "/" && writable && mount.output.is_none() => {
            Err(Fault::WritableRootWithoutOutput)
        }
        MountKind::Tmpfs { size: Some(size) } if *size <= 0 => Err(Fault::BadSize {
            dest: dest(),
            size: *size,
        }),
        MountKind::Cache { id, .. } => present("cache id", id),
        MountKind::Secret { id, .. } => present("secret id", id),
        MountKind::Ssh { id, .. } => present("ssh id", id),
        _ => Ok(()),
    }
}

fn source(source: &Source) -> Result<(), Fault> {
    let known = ["docker-image://", "oci-layout://", "local://"];
    let name = known
        .iter()
        .find_map(|scheme| source.identifier.strip_prefix(scheme));
    if name.is_none_or(str::is_empty) {
        return Err(Fault::BadSource {
            identifier: source.identifier.clone(),
        });
    }
    for (key, value) in &source.attributes {
        present("attribute name", key)?;
        present("attribute value", value)?;
    }
    Ok(())
}

fn present(field: &'static str, text: &str) -> Result<(), Fault> {
    if text.is_empty() {
        Err(Fault::Empty { field })
    } else {
        no_nul(field, text)
    }
}

fn no_nul(field: &'static str, text: &str) -> Result<(), Fault> {
    if text.contains('\0') {
        Err(Fault::Nul { field })
    } else {
        Ok(())
    }
}

fn absolute(field: &'static str, path: &str) -> Result<(), Fault> {
    match path.strip_prefix('/') {
        Some(rest) if rest.is_empty() || plain(rest) => Ok(()),
        _ => Err(Fault::BadPath {
            field,
            path: path.to_owned(),
        }),
    }
}

/// Says whether a path goes down only. An engine joins it to directories of its own.
fn plain(path: &str) -> bool {
    !path.contains('\0') && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}
