//! From a definition's bytes to typed ops, in an order in which they can run.
//!
//! The bytes are not trusted: nothing panics, recursion is bounded by `prost`, and whatever would
//! be lost is an error.
//! An op must be in canonical form.
//! That shows fields unknown here (they do not survive decoding), and it makes the digest of its
//! bytes the one that a daemon would report, which takes it anew from bytes of its own.
//!
//! Ignored, because a run does the same without: ops that the result does not need (as `BuildKit`
//! does), source maps, `export_cache`, descriptions but the custom name.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;

use super::encode::{self, CUSTOM_NAME};
use super::{CachePolicy, Digest, Fault, Input, MESSAGE_LIMIT, Metadata, Op, ProgressGroup, pb};

mod exec;

/// Is a definition, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The ops the result needs, inputs before those that use them.
    pub ops: Vec<Node>,
    /// What the definition is for.
    pub result: Input,
    /// The digest of the terminal op, for those who count every op.
    pub terminal: Digest,
}

/// Is one op of a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The digest of its bytes.
    pub digest: Digest,
    /// What it does.
    pub op: Op,
    /// What an engine is told besides.
    pub metadata: Metadata,
    /// Where it is to run; none means wherever the engine is.
    pub platform: Option<Platform>,
}

/// Names a kind of machine, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// Such as `linux`.
    pub os: String,
    /// Such as `amd64`.
    pub architecture: String,
    /// Such as `v8`; empty where there is none.
    pub variant: String,
}

/// Reads a definition.
///
/// # Errors
/// It is over [`MESSAGE_LIMIT`], malformed, incomplete, cyclic, or says something that the types
/// here cannot.
pub fn decode(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    if bytes.len() > MESSAGE_LIMIT {
        return Err(DecodeError::TooLarge {
            size: bytes.len(),
            limit: MESSAGE_LIMIT,
        });
    }
    let definition = pb::Definition::decode(bytes).map_err(DecodeError::Definition)?;
    let Some((last, others)) = definition.def.split_last() else {
        return Err(DecodeError::NoOps);
    };
    let terminal = Digest::of(last);
    let result = result(&terminal, last)?;
    let mut graph = Graph::read(others, &definition.metadata)?;
    graph.visit(&result)?;
    Ok(Decoded {
        ops: graph.done,
        result,
        terminal,
    })
}

/// Reads the terminal. Only its first input is used (spec §1.3).
fn result(digest: &Digest, bytes: &[u8]) -> Result<Input, DecodeError> {
    let op = message(digest, bytes)?;
    if op.op.is_some() {
        return Err(DecodeError::NoTerminal {
            digest: digest.clone(),
        });
    }
    let input = op.inputs.first().ok_or(DecodeError::NoResult)?;
    self::input(digest, input)
}

fn message(digest: &Digest, bytes: &[u8]) -> Result<pb::Op, DecodeError> {
    let digest = || digest.clone();
    let op = pb::Op::decode(bytes).map_err(|source| DecodeError::Op {
        digest: digest(),
        source,
    })?;
    if encode::canonical(op.clone()) != bytes {
        return Err(DecodeError::NotCanonical { digest: digest() });
    }
    Ok(op)
}

fn input(user: &Digest, input: &pb::Input) -> Result<Input, DecodeError> {
    let bad = || DecodeError::BadInput {
        user: user.clone(),
        digest: input.digest.clone(),
        index: input.index,
    };
    let digest = Digest::parse(&input.digest).map_err(|_| bad())?;
    let index = usize::try_from(input.index).map_err(|_| bad())?;
    Ok(Input { digest, index })
}

/// Walks from the result to what it needs.
struct Graph<'a> {
    messages: BTreeMap<Digest, pb::Op>,
    metadata: &'a BTreeMap<String, pb::OpMetadata>,
    /// Number of outputs of each op that is in `done`.
    outputs: BTreeMap<Digest, usize>,
    done: Vec<Node>,
}

impl<'a> Graph<'a> {
    fn read(
        ops: &[Vec<u8>],
        metadata: &'a BTreeMap<String, pb::OpMetadata>,
    ) -> Result<Self, DecodeError> {
        let mut messages = BTreeMap::new();
        for bytes in ops {
            let digest = Digest::of(bytes);
            let message = message(&digest, bytes)?;
            messages.insert(digest, message);
        }
        Ok(Self {
            messages,
            metadata,
            outputs: BTreeMap::new(),
            done: Vec::new(),
        })
    }

    /// Adds what the result needs to `done`, depth first, without recursion: a chain of ops may be
    /// longer than the stack is deep.
    fn visit(&mut self, result: &Input) -> Result<(), DecodeError> {
        let mut open: Vec<(Node, usize)> = vec![(self.node(&result.digest)?, 0)];
        let mut opened = BTreeSet::from([result.digest.clone()]);
        while let Some((node, next)) = open.last_mut() {
            if let Some(input) = node.op.inputs().get(*next) {
                let digest = input.digest.clone();
                *next += 1;
                if self.outputs.contains_key(&digest) {
                    continue;
                }
                if !opened.insert(digest.clone()) {
                    return Err(DecodeError::Cycle { digest });
                }
                open.push((self.node(&digest)?, 0));
            } else if let Some((node, _)) = open.pop() {
                node.op
                    .inputs()
                    .iter()
                    .try_for_each(|input| self.check(input))?;
                self.outputs
                    .insert(node.digest.clone(), node.op.output_count());
                self.done.push(node);
            }
        }
        self.check(result)
    }

    fn check(&self, input: &Input) -> Result<(), DecodeError> {
        let Input { digest, index } = input.clone();
        match self.outputs.get(&digest) {
            None => Err(DecodeError::NoSuchOp { digest }),
            Some(&count) if index >= count => Err(DecodeError::NoSuchOutput {
                digest,
                index,
                count,
            }),
            Some(_) => Ok(()),
        }
    }

    fn node(&mut self, digest: &Digest) -> Result<Node, DecodeError> {
        let message = self
            .messages
            .remove(digest)
            .ok_or_else(|| DecodeError::NoSuchOp {
                digest: digest.clone(),
            })?;
        let metadata = self
            .metadata
            .get(digest.as_str())
            .cloned()
            .unwrap_or_default();
        let metadata = self::metadata(digest, metadata)?;
        let platform = platform(digest, &message)?;
        let op = exec::op(digest, message)?;
        super::validate::op(&op, &metadata).map_err(|source| DecodeError::Fault {
            digest: digest.clone(),
            source,
        })?;
        Ok(Node {
            digest: digest.clone(),
            op,
            metadata,
            platform,
        })
    }
}

fn metadata(digest: &Digest, mut message: pb::OpMetadata) -> Result<Metadata, DecodeError> {
    if message.linux_resources.is_some() {
        return Err(unsupported(digest, "linux_resources"));
    }
    let group = message.progress_group.map(|group| ProgressGroup {
        id: group.id,
        name: group.name,
    });
    Ok(Metadata {
        custom_name: message
            .description
            .remove(CUSTOM_NAME)
            .filter(|name| !name.is_empty()),
        progress_group: group,
        cache: if message.ignore_cache {
            CachePolicy::Ignore
        } else {
            CachePolicy::Use
        },
        // A daemon asks for every key, whatever its value.
        caps: message.caps.into_keys().collect(),
    })
}

fn platform(digest: &Digest, op: &pb::Op) -> Result<Option<Platform>, DecodeError> {
    if op
        .constraints
        .as_ref()
        .is_some_and(|constraints| !constraints.filter.is_empty())
    {
        return Err(unsupported(digest, "constraints"));
    }
    let Some(platform) = &op.platform else {
        return Ok(None);
    };
    if !platform.os_version.is_empty() || !platform.os_features.is_empty() {
        return Err(unsupported(digest, "platform.OSVersion"));
    }
    Ok(Some(Platform {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
    }))
}

fn unsupported(digest: &Digest, field: &'static str) -> DecodeError {
    DecodeError::UnsupportedField {
        digest: digest.clone(),
        field,
    }
}

/// Says why a definition cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// There are more bytes than any engine takes.
    #[error("the definition has {size} bytes, more than {limit}")]
    TooLarge {
        /// What it has.
        size: usize,
        /// What it may have.
        limit: usize,
    },
    /// The definition is not a protobuf message of its kind.
    #[error("the definition is malformed")]
    Definition(#[source] prost::DecodeError),
    /// An op is not a protobuf message of its kind.
    #[error("op `{digest}` is malformed")]
    Op {
        /// The op.
        digest: Digest,
        /// What is wrong.
        source: prost::DecodeError,
    },
    /// An op has fields that are not known here, or is written in another way than `BuildKit`'s.
    #[error("op `{digest}` has unknown fields or is not in canonical form")]
    NotCanonical {
        /// The op.
        digest: Digest,
    },
    /// There is not even a terminal.
    #[error("the definition has no ops")]
    NoOps,
    /// The last op does something, so it cannot name the result.
    #[error("the last op, `{digest}`, is no terminal")]
    NoTerminal {
        /// The op.
        digest: Digest,
    },
    /// The terminal names nothing.
    #[error("the terminal has no input")]
    NoResult,
    /// An input is not a digest and a number.
    #[error("op `{user}` has the input `{digest}` with index {index}")]
    BadInput {
        /// The op that has it.
        user: Digest,
        /// What should be a digest.
        digest: String,
        /// What should be a number of an output.
        index: i64,
    },
    /// An input is of an op that is not there.
    #[error("op `{digest}` is not in the definition")]
    NoSuchOp {
        /// The op that was named.
        digest: Digest,
    },
    /// An input is an output that its op does not have.
    #[error("op `{digest}` has {count} outputs, none of them number {index}")]
    NoSuchOutput {
        /// The op that was named.
        digest: Digest,
        /// The output that was named.
        index: usize,
        /// How many it has.
        count: usize,
    },
    /// An op needs itself.
    #[error("op `{digest}` is on a cycle")]
    Cycle {
        /// One of the ops on it.
        digest: Digest,
    },
    /// An op is of a kind that the types here do not have.
    #[error("op `{digest}` is of the kind `{kind}`, which is not supported")]
    UnsupportedKind {
        /// The op.
        digest: Digest,
        /// `BuildKit`'s name of its kind.
        kind: &'static str,
    },
    /// An op sets what the types here do not have.
    #[error("op `{digest}` sets `{field}`, which is not supported")]
    UnsupportedField {
        /// The op.
        digest: Digest,
        /// `BuildKit`'s name of the field.
        field: &'static str,
    },
    /// An op has a value that `BuildKit` does not define, or a field without what it needs.
    #[error("op `{digest}` has no valid `{field}`")]
    BadField {
        /// The op.
        digest: Digest,
        /// `BuildKit`'s name of the field.
        field: &'static str,
    },
    /// An op is not one that an engine runs.
    #[error("op `{digest}` cannot run")]
    Fault {
        /// The op.
        digest: Digest,
        /// Why.
        source: Fault,
    },
}
