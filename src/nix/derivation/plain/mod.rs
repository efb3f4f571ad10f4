//! The short way for plain `.drv` files: checked and hashed where their bytes lie.
//!
//! Checking a file takes three hashes, and two of them are of its text with something replaced
//! (Nix spec §2.5, §2.6). A file as Nix writes it is that text already, but for these parts:
//!
//! ```text
//! Derive([outputs],[inputs],[sources],system,builder,[arguments],[variables])
//!          |        |                                             `- of outputs: empty if masked
//!          |        `- their hashes in place of their paths
//!          `- their paths empty if masked
//! ```
//!
//! So nothing is written anew, and nothing is kept but what stays in the [`Outline`] and what is
//! still to be hashed. *Plain* is what is sorted, in UTF-8, without structured attributes, with
//! either one fixed output or outputs whose paths follow from its inputs: nearly all there is.
//!
//! Nothing is refused here. What is not plain, or not right, is `None`, and is looked at in the
//! long way ([`super::decode`], [`super::check_outputs`]), which says what is wrong with it. Tests
//! compare the two. One thing is known here alone: of inputs with the same hash, the outputs that
//! are wanted come together (§2.5).

mod aterm;
mod outputs;
mod parts;

use std::collections::BTreeSet;
use std::ops::Range;

use outputs::outputs;
pub(super) use parts::words;
use parts::{Need, Parts};
use sha2::{Digest as _, Sha256};

use super::unsupported::{Attributes, Demands};
use super::{Input, Modulo, Outline, digest_of, hex};
use crate::nix::{STORE_DIR, StorePath};

/// A plain file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plain {
    text: Box<str>,
    /// What will stay of it.
    outline: Outline,
    /// Where the inputs are.
    inputs: Vec<Need>,
    sources: Vec<Range<usize>>,
    /// From the list of inputs to its end.
    replaced: Range<usize>,
    /// The values of the variables that are named after outputs.
    blanks: Vec<Range<usize>>,
    /// Its identity, if its output is fixed.
    fixed: Option<Modulo>,
}

impl Plain {
    /// Reads a file, if it is plain.
    pub(super) fn read(path: &StorePath, bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let parts = Parts::read(text)?;
        let name = path.name().strip_suffix(".drv")?;
        let (outputs, fixed) = outputs(name, &parts.outputs)?;
        let attributes = Attributes::Variables(&parts.asked);
        let source = |place: &Range<usize>| text[place.clone()].parse().ok();
        let outline = Outline {
            path: path.clone(),
            system: parts.system.into(),
            outputs,
            sources: parts.sources.iter().map(source).collect::<Option<_>>()?,
            fixed: fixed.is_some(),
            allows_substitutes: attributes.bool("allowSubstitutes").unwrap_or(true),
            demands: Demands::of_plain(parts.builder, fixed.is_some(), attributes),
        };
        Some(Self {
            text: text.into(),
            outline,
            inputs: parts.inputs,
            sources: parts.sources,
            replaced: parts.replaced,
            blanks: parts.blanks,
            fixed,
        })
    }

    /// Its inputs, in the order of their paths: the path, and the list of outputs as it is written.
    pub(super) fn inputs(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        let text = |range: &Range<usize>| &self.text[range.clone()];
        let inputs = self.inputs.iter();
        inputs.map(move |input| (text(&input.path), text(&input.outputs)))
    }

    /// Whether the file belongs to its name (Nix spec §2.3).
    pub(super) fn is_named_right(&self) -> bool {
        let mut hash = Sha256::new();
        hash.update("text");
        let mut sources = self.sources.iter().map(|source| &self.text[source.clone()]);
        let mut source = sources.next();
        let mut refer = |reference: &str| {
            hash.update(":");
            hash.update(reference);
        };
        for (input, _) in self.inputs() {
            while let Some(earlier) = source.filter(|source| *source <= input) {
                if earlier < input {
                    refer(earlier);
                }
                source = sources.next();
            }
            refer(input);
        }
        source.into_iter().chain(sources).for_each(refer);
        let path = &self.outline.path;
        named(hash, &Sha256::digest(&*self.text).into(), path.name()) == *path.digest()
    }

    /// Checks that the output paths follow from the content, and returns the identity for those
    /// that have it as an input. `inputs` are in the order of [`Plain::inputs`].
    pub(super) fn check(&self, inputs: &[Input<'_>]) -> Option<Modulo> {
        let wanted = self.inputs().zip(inputs);
        let mut wanted = wanted.flat_map(|((_, list), input)| words(list).map(move |w| (w, input)));
        let is_whole = self.inputs.len() == inputs.len()
            && wanted.all(|(output, input)| input.outputs.contains(output));
        if !is_whole {
            return None;
        }
        if self.fixed.is_some() {
            return self.fixed;
        }
        let replaced = self.replaced(inputs)?;
        let masked = self.masked(&replaced);
        let follow = self.outline.outputs.iter().all(|(output, path)| {
            let mut hash = Sha256::new();
            hash.update("output:");
            hash.update(output);
            let path = path.as_ref().expect("a plain derivation knows its outputs");
            named(hash, &masked, path.name()) == *path.digest()
        });
        follow.then(|| Modulo::regular(self.unmasked(&replaced)))
    }

    /// What will be kept.
    #[cfg(test)]
    pub(super) fn outline(&self) -> &Outline {
        &self.outline
    }

    /// What is kept once all is checked.
    pub(super) fn into_outline(self) -> Outline {
        self.outline
    }

    /// The whole file, and the path it should have.
    pub(super) fn file(&self) -> (&StorePath, &[u8]) {
        (&self.outline.path, self.text.as_bytes())
    }

    /// The list of inputs with hashes in place of paths. Two that differ only in how something
    /// fixed is fetched have the same hash, and become one.
    fn replaced(&self, inputs: &[Input<'_>]) -> Option<String> {
        let mut all = Vec::with_capacity(inputs.len());
        for ((_, outputs), input) in self.inputs().zip(inputs) {
            let hash = match input.modulo {
                Modulo::Regular(hash) => hash.into_bytes(),
                Modulo::FixedOutput(hash) if outputs == "[\"out\"]" => hash.into_bytes(),
                Modulo::FixedOutput(_) | Modulo::Deferred => return None,
            };
            let first = hash.first_chunk().expect("a hash has 32 bytes");
            // The order is that of the hashes; numbers are sooner compared.
            all.push((u128::from_be_bytes(*first), hash, outputs));
        }
        all.sort_unstable();
        let mut list = String::with_capacity(all.len() * 80 + 2);
        for same in all.chunk_by(|one, other| one.1 == other.1) {
            list.push_str(if list.is_empty() { "[(\"" } else { ",(\"" });
            list.push_str(hex(&same[0].1).text());
            list.push_str("\",");
            match same {
                [(.., outputs)] => list.push_str(outputs),
                several => list.push_str(&union(several.iter().map(|(.., outputs)| *outputs))),
            }
            list.push(')');
        }
        list.push_str(if list.is_empty() { "[]" } else { "]" });
        Some(list)
    }

    fn unmasked(&self, replaced: &str) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(&self.text[..self.replaced.start]);
        hash.update(replaced);
        hash.update(&self.text[self.replaced.end..]);
        hash.finalize().into()
    }

    fn masked(&self, replaced: &str) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut before = "Derive([(\"";
        for output in self.outline.outputs.keys() {
            for part in [before, output, "\",\"\",\"\",\"\")"] {
                hash.update(part);
            }
            before = ",(\"";
        }
        hash.update("],");
        hash.update(replaced);
        let mut at = self.replaced.end;
        for blank in &self.blanks {
            hash.update(&self.text[at..blank.start]);
            at = blank.end;
        }
        hash.update(&self.text[at..]);
        hash.finalize().into()
    }
}

/// One list of all names in lists.
fn union<'a>(lists: impl Iterator<Item = &'a str>) -> String {
    let names: BTreeSet<&str> = lists.flat_map(words).collect();
    let names: Vec<&str> = names.into_iter().collect();
    format!("[\"{}\"]", names.join("\",\""))
}

/// The digest of a path whose type was begun (Nix spec §1.3).
fn named(mut hash: Sha256, content: &[u8; 32], name: &str) -> [u8; 20] {
    for part in [":sha256:", hex(content).text(), ":", STORE_DIR, ":", name] {
        hash.update(part);
    }
    digest_of(hash)
}
