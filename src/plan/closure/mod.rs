//! The `.drv` closure of what is wanted: read in parallel, every file checked.
//!
//! Files come from a [`Source`]. A closure that was loaded is whole, free of cycles, and every
//! output path in it follows from content; nothing later has to doubt it. It holds an [`Outline`]
//! of each derivation: what only a builder is given is read again where it is built.

mod arena;
mod drain;
mod names;
mod read;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::{fmt, thread};

use self::read::{Found, read};
use crate::nix::derivation::{self, Outline};
use crate::nix::{Ranked, StorePath};

/// Where `.drv` files are read from.
pub trait Source: Sync {
    /// Reads a file; several threads ask at once.
    fn read(&self, drv: &StorePath) -> Result<Vec<u8>, SourceError>;
}

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is no such file.
    #[error("no such file")]
    Missing,
    /// It is there and cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Why a closure is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is not there.
    #[error("`{drv}` is missing{needed}")]
    Missing {
        /// The file.
        drv: StorePath,
        /// Who needs it.
        needed: Chain,
    },
    /// A file cannot be read.
    #[error("cannot read `{drv}`{needed}")]
    Unreadable {
        /// The file.
        drv: StorePath,
        /// Who needs it.
        needed: Chain,
        /// What went wrong.
        #[source]
        source: std::io::Error,
    },
    /// A file was read and something is wrong with it.
    #[error("cannot use `{drv}`{needed}")]
    Invalid {
        /// The file.
        drv: StorePath,
        /// Who needs it.
        needed: Chain,
        /// What is wrong with it.
        #[source]
        source: Box<derivation::Error>,
    },
    /// Derivations that need each other.
    #[error("derivations depend on each other in a cycle: {}", arrows(members))]
    Cycle {
        /// Each needs the next, the last needs the first.
        members: Vec<StorePath>,
    },
}

/// Who needs a derivation, from the nearest dependent to what was asked for; empty for a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain(pub Vec<StorePath>);

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|dependent| write!(f, ", needed by `{dependent}`"))
    }
}

fn arrows(members: &[StorePath]) -> String {
    let quoted = members
        .iter()
        .chain(members.first())
        .map(|member| format!("`{member}`"));
    quoted.collect::<Vec<_>>().join(" -> ")
}

/// Derivations with all they need, each checked. Sorted by path.
#[derive(Debug, Clone, Default)]
pub struct Closure {
    pub(super) nodes: Vec<Arc<Outline>>,
    /// Each node's inputs, in the order of their paths.
    pub(super) inputs: Vec<Vec<Input>>,
    /// Positions in `nodes`, inputs before dependents.
    pub(super) topological: Vec<usize>,
}

/// What a derivation needs of another.
#[derive(Debug, Clone)]
pub struct Input {
    /// The other's position in [`Closure::derivations`].
    pub position: usize,
    /// The outputs it needs.
    pub outputs: Arc<BTreeSet<String>>,
}

impl Closure {
    /// Every derivation, sorted by path.
    pub fn derivations(&self) -> &[Arc<Outline>] {
        &self.nodes
    }

    /// A derivation's inputs, in the order of their paths.
    pub fn inputs(&self, position: usize) -> &[Input] {
        &self.inputs[position]
    }

    /// Positions in [`Closure::derivations`], inputs before dependents.
    pub fn topological(&self) -> &[usize] {
        &self.topological
    }

    /// The position of a derivation in [`Closure::derivations`].
    pub fn position(&self, drv: &StorePath) -> Option<usize> {
        self.nodes.binary_search_by(|node| node.path.cmp(drv)).ok()
    }

    /// A derivation by its path.
    pub fn get(&self, drv: &StorePath) -> Option<&Arc<Outline>> {
        self.position(drv).map(|position| &self.nodes[position])
    }
}

/// Reads and checks `roots` and all they need.
///
/// # Errors
/// One problem, the same one each time: a cycle if there is one, else that of the first bad file
/// by path.
pub fn load<'a>(
    roots: impl IntoIterator<Item = &'a StorePath>,
    source: &impl Source,
    threads: NonZeroUsize,
) -> Result<Closure, Error> {
    let roots: BTreeSet<StorePath> = roots.into_iter().cloned().collect();
    let mut found = read(&roots, source, threads);
    let refused = |(drv, error)| (drv, Problem::Invalid(Box::new(error)));
    let problem = found
        .unread
        .pop_first()
        .or_else(|| found.refused.pop_first().map(refused));
    let needs = found
        .files
        .iter_mut()
        .map(|file| std::mem::take(&mut file.needs));
    let needs = needs.collect();
    let edges = Edges::of(&found, needs);
    let topological = edges.topological()?;
    if let Some((drv, problem)) = problem {
        let needed = edges.chain(&roots, &drv);
        return Err(problem.into_error(drv, needed));
    }
    let outlines = edges.numbers.iter().map(|&number| {
        let outline = found.files[number].outline.clone();
        outline.expect("without a problem or a cycle all are checked")
    });
    let closure = Closure {
        nodes: outlines.collect(),
        topological,
        inputs: edges.inputs,
    };
    // A hundred thousand small pieces are given back while the caller goes on; without a thread,
    // at once.
    let _ = thread::Builder::new().spawn(move || drop(found));
    Ok(closure)
}

enum Problem {
    Source(SourceError),
    Invalid(Box<derivation::Error>),
}

impl Problem {
    fn into_error(self, drv: StorePath, needed: Chain) -> Error {
        match self {
            Self::Source(SourceError::Missing) => Error::Missing { drv, needed },
            Self::Source(SourceError::Io(source)) => Error::Unreadable {
                drv,
                needed,
                source,
            },
            Self::Invalid(source) => Error::Invalid {
                drv,
                needed,
                source,
            },
        }
    }
}

/// How what was found hangs together: everything that was named, in the order of paths.
struct Edges<'a> {
    paths: Vec<&'a StorePath>,
    /// By position, the number that reading gave it.
    numbers: Vec<usize>,
    /// By position, its inputs. What could not be read has none.
    inputs: Vec<Vec<Input>>,
}

impl<'a> Edges<'a> {
    /// `needs` are those of the files, by number.
    fn of(found: &'a Found, mut needs: Vec<Vec<Input>>) -> Self {
        let files = found.files.iter().enumerate();
        let mut named: Vec<(Ranked<'_>, usize)> = files
            .map(|(number, file)| (Ranked::from(&file.path), number))
            .collect();
        named.sort_unstable();
        let named = named
            .into_iter()
            .map(|(ranked, number)| (ranked.path, number));
        let (paths, numbers): (Vec<_>, Vec<_>) = named.unzip();
        let mut positions = vec![0; numbers.len()];
        for (position, &number) in numbers.iter().enumerate() {
            positions[number] = position;
        }
        for need in needs.iter_mut().flatten() {
            need.position = positions[need.position];
        }
        let inputs = numbers
            .iter()
            .map(|&number| std::mem::take(&mut needs[number]));
        Self {
            paths,
            inputs: inputs.collect(),
            numbers,
        }
    }

    /// The shortest chain of dependents from `drv` up to a root.
    fn chain(&self, roots: &BTreeSet<StorePath>, drv: &StorePath) -> Chain {
        let mut parents: HashMap<usize, usize> = HashMap::new();
        let is_root = |position: usize| roots.contains(self.paths[position]);
        let mut queue: VecDeque<usize> = (0..self.paths.len())
            .filter(|&position| is_root(position))
            .collect();
        while let Some(dependent) = queue.pop_front() {
            for input in self.inputs[dependent].iter().map(|input| input.position) {
                if !is_root(input) && !parents.contains_key(&input) {
                    parents.insert(input, dependent);
                    queue.push_back(input);
                }
            }
        }
        let below = self.paths.binary_search(&drv).ok();
        let first = below.and_then(|position| parents.get(&position));
        let above = std::iter::successors(first, |dependent| parents.get(dependent));
        Chain(
            above
                .map(|&position| self.paths[position].clone())
                .collect(),
        )
    }

    fn topological(&self) -> Result<Vec<usize>, Error> {
        let mut dependents = vec![Vec::new(); self.paths.len()];
        for (dependent, inputs) in self.inputs.iter().enumerate() {
            for input in inputs {
                dependents[input.position].push(dependent);
            }
        }
        let mut waiting: Vec<usize> = self.inputs.iter().map(Vec::len).collect();
        let mut order: Vec<usize> = (0..waiting.len())
            .filter(|&position| waiting[position] == 0)
            .collect();
        let mut done = 0;
        while let Some(&position) = order.get(done) {
            done += 1;
            for &dependent in &dependents[position] {
                waiting[dependent] -= 1;
                if waiting[dependent] == 0 {
                    order.push(dependent);
                }
            }
        }
        match waiting.iter().position(|&inputs| inputs > 0) {
            None => Ok(order),
            Some(start) => Err(self.cycle(&waiting, start)),
        }
    }

    /// Walks from input to input among those that never became ready, until one comes again.
    fn cycle(&self, waiting: &[usize], start: usize) -> Error {
        let mut walk: Vec<usize> = Vec::new();
        let mut position = start;
        let first = loop {
            if let Some(first) = walk.iter().position(|&earlier| earlier == position) {
                break first;
            }
            walk.push(position);
            position = self.inputs[position]
                .iter()
                .map(|input| input.position)
                .find(|&input| waiting[input] > 0)
                .expect("what never became ready has an input that never did");
        };
        let mut cycle = walk.split_off(first);
        let smallest = cycle.iter().enumerate().min_by_key(|(_, node)| **node);
        let smallest = smallest.map_or(0, |(at, _)| at);
        cycle.rotate_left(smallest);
        let path = |position: usize| self.paths[position].clone();
        Error::Cycle {
            members: cycle.into_iter().map(path).collect(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
