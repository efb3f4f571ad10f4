//! What an op can say: plain data, filled in by whoever lowers a plan.
//!
//! Left out, because nothing here needs it: proxy variables, extra hosts, ulimits, cgroup parents,
//! exit codes that count as success, secrets in variables, file, merge, diff and build ops.

use std::collections::{BTreeMap, BTreeSet};

use super::Digest;

/// Is what an op does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Runs a process.
    Exec(Exec),
    /// Brings in files from outside.
    Source(Source),
}

impl Op {
    /// Returns what the op is made from.
    pub fn inputs(&self) -> &[Input] {
        match self {
            Self::Exec(exec) => &exec.inputs,
            Self::Source(_) => &[],
        }
    }

    /// Counts the results others can name.
    pub fn output_count(&self) -> usize {
        match self {
            Self::Exec(exec) => exec.output_count(),
            Self::Source(_) => 1,
        }
    }
}

/// Names one output of one op.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Input {
    /// The op.
    pub digest: Digest,
    /// The place among the op's outputs, in the order of its mounts.
    pub index: usize,
}

/// Runs a process with mounts of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// The program and its arguments; no shell is involved.
    pub args: Vec<String>,
    /// Names and values, in this order.
    pub env: Vec<(String, String)>,
    /// The working directory, absolute.
    pub cwd: String,
    /// `uid:gid`, or a name of the root's `/etc/passwd`; empty means `0:0`.
    pub user: String,
    /// The host name; none means the engine's own choice.
    pub hostname: Option<String>,
    /// What is mounted where. One of them is `/`.
    pub mounts: Vec<Mount>,
    /// What the process can reach.
    pub network: Network,
    /// What the process may do to the kernel.
    pub security: Security,
    /// CDI device names, as `vendor/class=name`; each must exist.
    pub devices: Vec<String>,
    /// What has to be done before. [`Mount::input`] counts in here; an input that no mount uses
    /// orders the ops and does nothing else.
    pub inputs: Vec<Input>,
}

impl Exec {
    /// Counts the mounts whose result others can name.
    pub fn output_count(&self) -> usize {
        self.mounts
            .iter()
            .filter(|mount| mount.makes_output())
            .count()
    }
}

/// Is one mount of an [`Exec`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where: absolute, without `.`, `..` or empty components.
    pub dest: String,
    /// What.
    pub kind: MountKind,
    /// Whether the process may write.
    pub access: Access,
    /// The file or directory inside the source that is mounted in place of all of it.
    /// It must exist when the op starts.
    pub selector: Option<String>,
    /// The place in [`Exec::inputs`] of what is mounted; only of [`MountKind::Bind`].
    pub input: Option<usize>,
    /// The number of the output this mount becomes, counted from 0 in the order of the mounts.
    ///
    /// Foreign definitions have 0 here for secrets and sockets, where it means nothing:
    /// ask [`Mount::makes_output`].
    pub output: Option<usize>,
}

impl Mount {
    /// Says whether the mount's content becomes an output of the op (spec §1.5).
    pub fn makes_output(&self) -> bool {
        self.output.is_some() && matches!(self.kind, MountKind::Scratch | MountKind::Bind)
    }
}

/// Is what a [`Mount`] mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// An empty directory that becomes an output.
    Scratch,
    /// An output of another op.
    Bind,
    /// A directory that stays with the engine, by name. No input: it would change the name
    /// (spec §2.4).
    Cache {
        /// The name, over all clients of the engine.
        id: String,
        /// Who may use it at a time.
        sharing: Sharing,
    },
    /// A file system in memory.
    Tmpfs {
        /// Bytes, above 0; none means the kernel's default.
        size: Option<i64>,
    },
    /// A file that holds a secret of the client's.
    Secret {
        /// What the client calls it.
        id: String,
        /// The file's owner.
        uid: u32,
        /// The file's group.
        gid: u32,
        /// The file's permissions.
        mode: u32,
        /// Whether the op runs without it.
        optional: bool,
    },
    /// A socket whose connections the client answers.
    Ssh {
        /// What the client calls it.
        id: String,
        /// The socket's owner.
        uid: u32,
        /// The socket's group.
        gid: u32,
        /// The socket's permissions. With 0 none but root can connect.
        mode: u32,
        /// Whether the op runs without it.
        optional: bool,
    },
}

/// Says whether a mount can be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It cannot.
    ReadOnly,
    /// It can.
    ReadWrite,
}

/// Says who may use a cache mount at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// All at once.
    Shared,
    /// Each op has a directory of its own.
    Private,
    /// One after the other.
    Locked,
}

/// Says what a process can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Whatever the engine gives by default.
    Default,
    /// Nothing but itself.
    None,
    /// All that the engine's host can. An entitlement of `BuildKit`'s.
    Host,
}

/// Says what a process may do to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// What a container usually may.
    Sandbox,
    /// All that the engine may. An entitlement of `BuildKit`'s.
    Insecure,
}

/// Brings in files from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// `docker-image://`, `oci-layout://` or `local://` and a name.
    pub identifier: String,
    /// What is told about it. No value is empty: Go and `prost` disagree on how to write one.
    pub attributes: BTreeMap<String, String>,
}

impl Source {
    /// Names an image in a registry: `host/name:tag@sha256:…`.
    pub fn image(reference: &str) -> Self {
        Self::named("docker-image://", reference, [])
    }

    /// Names an image in a content store that the client serves; the reference has a digest.
    pub fn oci_layout(reference: &str, store: &str) -> Self {
        Self::named("oci-layout://", reference, [("oci.store", store)])
    }

    /// Names a directory that the client sends.
    ///
    /// The hint lets a daemon update the copy it has from earlier sends, so it names the directory
    /// across runs.
    pub fn local(name: &str, shared_key_hint: &str) -> Self {
        Self::named("local://", name, [("local.sharedkeyhint", shared_key_hint)])
    }

    fn named<const N: usize>(scheme: &str, name: &str, attributes: [(&str, &str); N]) -> Self {
        let own = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        Self {
            identifier: format!("{scheme}{name}"),
            attributes: attributes.into_iter().map(own).collect(),
        }
    }
}

/// Is what an engine is told about an op that is no part of its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// What the op is called in progress; none means its arguments, which leaks and bloats.
    pub custom_name: Option<String>,
    /// Where the op belongs in progress. Echoed on each status, so it carries our node's id.
    pub progress_group: Option<ProgressGroup>,
    /// Whether an earlier result may answer.
    pub cache: CachePolicy,
    /// Capabilities the engine must know.
    ///
    /// A [`super::Definition`] adds those the op needs (spec §1.6), so this is usually empty when
    /// given and never when decoded from our own bytes.
    pub caps: BTreeSet<String>,
}

/// Names a place in progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgressGroup {
    /// Names it for programs.
    pub id: String,
    /// Names it for people.
    pub name: String,
}

/// Says whether an earlier result may answer for an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CachePolicy {
    /// It may.
    Use,
    /// It may not. Never for an op with a cache mount: daemons then empty *all* cache mounts.
    Ignore,
}
