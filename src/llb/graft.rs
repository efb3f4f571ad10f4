//! Another root for an op: a definition is cut at its result's `/`, and joined to another there.
//!
//! What is joined may be foreign, as a frontend of the daemon writes it: its ops are kept byte for
//! byte, because their digests are what a daemon knows them by.

use std::collections::BTreeMap;

use prost::Message;

use super::definition::Encoded;
use super::{DecodeError, Definition, Digest, Error, Exec, Input, Metadata, Op, decode, pb};

/// A definition, cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The op that was its result.
    pub exec: Exec,
    /// What is said of it.
    pub metadata: Metadata,
    /// What is at its `/`, as a definition; none where that is empty.
    pub root: Option<Vec<u8>>,
}

/// Says why a definition cannot be cut or joined.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraftError {
    /// It cannot be read.
    #[error("the definition cannot be decoded")]
    Decode(#[from] DecodeError),
    /// It cannot be written.
    #[error("the definition cannot be written")]
    Write(#[from] Error),
    /// Its result is no process.
    #[error("the result of the definition is no exec op")]
    NoExec,
    /// The foreign one is no definition.
    #[error("the other definition is malformed")]
    Foreign(#[source] prost::DecodeError),
    /// The foreign one has no result, or ops without their inputs.
    #[error("the other definition is not complete")]
    Incomplete,
}

/// Cuts a definition of ours.
///
/// # Errors
/// It is none, or its result is no process.
pub fn cut(bytes: &[u8]) -> Result<Cut, GraftError> {
    let mut decoded = decode(bytes)?;
    let Some((Op::Exec(exec), metadata)) = decoded.ops.pop().map(|node| (node.op, node.metadata))
    else {
        return Err(GraftError::NoExec);
    };
    let at_root = exec.mounts.iter().find(|mount| mount.dest == "/");
    let input = at_root.and_then(|mount| exec.inputs.get(mount.input?));
    let root = input.map(|input| {
        let mut definition = Definition::new();
        for node in decoded.ops {
            definition.add(&node.op, node.metadata)?;
        }
        definition.marshal(input)
    });
    Ok(Cut {
        root: root.transpose()?,
        exec,
        metadata,
    })
}

/// Joins an op to what is to be at its `/`, which becomes its only input.
///
/// # Errors
/// The root is no complete definition.
pub fn join(cut: Cut, root: &[u8]) -> Result<Vec<u8>, GraftError> {
    let mut definition = Definition::new();
    let input = definition.graft(root)?;
    let exec = Exec {
        inputs: vec![input],
        ..cut.exec
    };
    let op = definition.exec(exec, cut.metadata)?;
    Ok(definition.marshal(&op.output(0))?)
}

impl Definition {
    /// Adds all of another definition and returns its result.
    fn graft(&mut self, bytes: &[u8]) -> Result<Input, GraftError> {
        let foreign = pb::Definition::decode(bytes).map_err(GraftError::Foreign)?;
        let mut ops = BTreeMap::new();
        for bytes in &foreign.def {
            let op = pb::Op::decode(bytes.as_slice()).map_err(GraftError::Foreign)?;
            ops.insert(Digest::of(bytes), (bytes, inputs(&op)?));
        }
        let last = foreign.def.last().ok_or(GraftError::Incomplete)?;
        let (_, result) = ops
            .remove(&Digest::of(last))
            .ok_or(GraftError::Incomplete)?;
        let result = result.into_iter().next().ok_or(GraftError::Incomplete)?;
        // Inputs before those that use them.
        while !ops.is_empty() {
            let ready = ops.iter().find(|(_, (_, inputs))| {
                let known = |input: &Input| self.has(&input.digest);
                inputs.iter().all(known)
            });
            let digest = ready.map(|(digest, _)| digest.clone());
            let digest = digest.ok_or(GraftError::Incomplete)?;
            let Some((bytes, inputs)) = ops.remove(&digest) else {
                continue;
            };
            let mut metadata = foreign.metadata.get(digest.as_str()).cloned();
            if let Some(metadata) = &mut metadata {
                // With it a daemon would empty every cache mount, ours too.
                metadata.ignore_cache = false;
            }
            self.insert(Encoded {
                digest,
                bytes: bytes.clone(),
                inputs: inputs.into_iter().map(|input| input.digest).collect(),
                // Only the daemon knows what an op of another kind gives.
                output_count: usize::MAX,
                metadata: metadata.unwrap_or_default(),
            });
        }
        if self.has(&result.digest) {
            Ok(result)
        } else {
            Err(GraftError::Incomplete)
        }
    }
}

fn inputs(op: &pb::Op) -> Result<Vec<Input>, GraftError> {
    let input = |input: &pb::Input| {
        Ok(Input {
            digest: Digest::parse(&input.digest).map_err(|_| GraftError::Incomplete)?,
            index: usize::try_from(input.index).map_err(|_| GraftError::Incomplete)?,
        })
    };
    op.inputs.iter().map(input).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden(name: &str) -> Vec<u8> {
        fs_err::read(format!(
            "{}/tests/golden/{name}.pb",
            env!("CARGO_MANIFEST_DIR")
        ))
        .unwrap()
    }

    #[test]
    fn what_is_cut_and_joined_again_is_the_same() {
        for name in ["lowered-image", "lowered-dockerfile"] {
            let whole = golden(name);
            let cut = cut(&whole).unwrap();
            let root = cut.root.clone().unwrap();
            assert_eq!(join(cut, &root).unwrap(), whole, "{name}");
        }
    }

    #[test]
    fn an_op_is_put_on_a_root_of_another() {
        let cut = cut(&golden("lowered-image")).unwrap();
        // Its result is the third op, a chain of ops of other kinds and platforms does as well.
        let root = golden("ordering");
        let joined = decode(&join(cut.clone(), &root).unwrap()).unwrap();
        let Op::Exec(exec) = &joined.ops.last().unwrap().op else {
            panic!("the last op is no exec")
        };
        assert_eq!(exec.args, cut.exec.args);
        assert_eq!(exec.inputs, [decode(&root).unwrap().result]);
        assert_eq!(joined.ops.len(), 5);
        let cached = joined.ops.iter().map(|node| node.metadata.cache);
        assert!(
            cached
                .into_iter()
                .all(|it| it == crate::llb::CachePolicy::Use)
        );
    }

    #[test]
    fn refuses_what_is_not_whole() {
        assert_eq!(cut(&golden("lowered-strong")).unwrap().root, None);
        let source = cut(&golden("lowered-image")).unwrap();
        for bad in [&b""[..], b"\xff", b"\n\x01x"] {
            assert!(join(source.clone(), bad).is_err());
        }
        let mut half = pb::Definition::decode(golden("ordering").as_slice()).unwrap();
        half.def.remove(0);
        let joined = join(source, &half.encode_to_vec());
        assert_eq!(joined, Err(GraftError::Incomplete));
    }
}
