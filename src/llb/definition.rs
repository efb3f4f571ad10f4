//! Collects ops, inputs before those that use them, and writes the definition.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;

use super::{
    Digest, Exec, Fault, Input, MESSAGE_LIMIT, Metadata, Op, Source, caps, encode, pb, validate,
};

/// Collects the ops of a definition.
///
/// Ops with the same bytes are one op, as they are to a daemon; the first one's metadata stays.
#[derive(Clone, Debug, Default)]
pub struct Definition {
    ops: Vec<Encoded>,
    places: BTreeMap<Digest, usize>,
}

/// An op as it is written.
#[derive(Clone, Debug)]
pub(super) struct Encoded {
    pub(super) digest: Digest,
    pub(super) bytes: Vec<u8>,
    pub(super) inputs: Vec<Digest>,
    pub(super) output_count: usize,
    pub(super) metadata: pb::OpMetadata,
}

impl Definition {
    /// Starts without any op.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a process to run; see [`Self::add`].
    pub fn exec(&mut self, exec: Exec, metadata: Metadata) -> Result<Digest, Error> {
        self.add(&Op::Exec(exec), metadata)
    }

    /// Adds a source of files; see [`Self::add`].
    pub fn source(&mut self, source: Source, metadata: Metadata) -> Result<Digest, Error> {
        self.add(&Op::Source(source), metadata)
    }

    /// Adds an op and returns its digest, of which [`Digest::output`] makes another's input.
    ///
    /// The capabilities it needs are added to its metadata.
    ///
    /// # Errors
    /// The op is one that an engine would refuse, or that names an input not added before.
    pub fn add(&mut self, op: &Op, mut metadata: Metadata) -> Result<Digest, Error> {
        validate::op(op, &metadata)?;
        if let Op::Exec(exec) = op {
            validate::outputs(exec)?;
        }
        for input in op.inputs() {
            self.check(input)?;
        }
        metadata.caps.append(&mut caps::of(op, metadata.cache));
        let bytes = encode::canonical(encode::op(op));
        let digest = Digest::of(&bytes);
        let inputs = op.inputs().iter().map(|input| input.digest.clone());
        self.insert(Encoded {
            digest: digest.clone(),
            bytes,
            inputs: inputs.collect(),
            output_count: op.output_count(),
            metadata: encode::metadata(&metadata),
        });
        Ok(digest)
    }

    /// Says whether there is such an op.
    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.places.contains_key(digest)
    }

    /// Adds an op whose inputs are there, unless it is there itself.
    pub(super) fn insert(&mut self, op: Encoded) {
        if !self.has(&op.digest) {
            self.places.insert(op.digest.clone(), self.ops.len());
            self.ops.push(op);
        }
    }

    /// Writes the definition whose result is the given output: what it needs, in the order added.
    ///
    /// # Errors
    /// The result is not among the ops, or the whole is over [`MESSAGE_LIMIT`].
    pub fn marshal(&self, result: &Input) -> Result<Vec<u8>, Error> {
        self.marshal_within(result, MESSAGE_LIMIT)
    }

    /// Does the same for an engine with another limit, such as [`super::OLD_MESSAGE_LIMIT`].
    pub fn marshal_within(&self, result: &Input, limit: usize) -> Result<Vec<u8>, Error> {
        self.check(result)?;
        let mut definition = pb::Definition::default();
        let needed = self.needed(&result.digest);
        for op in self.ops.iter().filter(|op| needed.contains(&op.digest)) {
            definition.def.push(op.bytes.clone());
            definition
                .metadata
                .insert(op.digest.to_string(), op.metadata.clone());
        }
        definition.def.push(encode::terminal(result));
        let size = definition.encoded_len();
        if size > limit {
            return Err(Error::TooLarge { size, limit });
        }
        Ok(definition.encode_to_vec())
    }

    fn check(&self, input: &Input) -> Result<(), Error> {
        let Input { digest, index } = input.clone();
        let Some(place) = self.places.get(&digest) else {
            return Err(Error::NoSuchOp { digest });
        };
        let count = self.ops[*place].output_count;
        if index >= count {
            return Err(Error::NoSuchOutput {
                digest,
                index,
                count,
            });
        }
        Ok(())
    }

    fn needed(&self, result: &Digest) -> BTreeSet<&Digest> {
        let mut needed = BTreeSet::new();
        // Inputs are added first, so one walk from the end meets every user before what it uses.
        for op in self.ops.iter().rev() {
            if op.digest == *result || needed.contains(&op.digest) {
                needed.insert(&op.digest);
                needed.extend(&op.inputs);
            }
        }
        needed
    }
}

/// Says why an op cannot be added or a definition not be written.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The op is not one that an engine runs.
    #[error(transparent)]
    Op(#[from] Fault),
    /// An input or the result is of an op that was not added.
    #[error("op `{digest}` is not in the definition")]
    NoSuchOp {
        /// The op that was named.
        digest: Digest,
    },
    /// An input or the result is an output that its op does not have.
    #[error("op `{digest}` has {count} outputs, none of them number {index}")]
    NoSuchOutput {
        /// The op that was named.
        digest: Digest,
        /// The output that was named.
        index: usize,
        /// How many it has.
        count: usize,
    },
    /// The engine would not take the message.
    #[error("the definition has {size} bytes, more than {limit}")]
    TooLarge {
        /// What it has.
        size: usize,
        /// What it may have.
        limit: usize,
    },
}
