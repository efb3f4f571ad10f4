//! The `.drv` closure of what is wanted: read in parallel, every file checked.
//!
//! Files come from a [`Source`]. A closure that was loaded is whole, free of cycles, and every
//! output path in it follows from content; nothing later has to doubt it.

mod drain;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use self::drain::drain;
use crate::nix::StorePath;
use crate::nix::derivation::{self, Input, Modulo, Parsed};

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
    nodes: Vec<Arc<Parsed>>,
    /// Positions in `nodes`, inputs before dependents.
    topological: Vec<usize>,
}

impl Closure {
    /// Every derivation, sorted by path.
    pub fn derivations(&self) -> &[Arc<Parsed>] {
        &self.nodes
    }

    /// Positions in [`Closure::derivations`], inputs before dependents.
    pub fn topological(&self) -> &[usize] {
        &self.topological
    }

    /// The position of a derivation in [`Closure::derivations`].
    pub fn position(&self, drv: &StorePath) -> Option<usize> {
        self.nodes
            .binary_search_by(|parsed| parsed.path.cmp(drv))
            .ok()
    }

    /// A derivation by its path.
    pub fn get(&self, drv: &StorePath) -> Option<&Arc<Parsed>> {
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
    found.nodes.sort_by(|a, b| a.path.cmp(&b.path));
    let nodes: Vec<Arc<Parsed>> = found.nodes.into_iter().map(Arc::new).collect();
    let edges = Edges::of(&nodes);
    let topological = edges.topological(&nodes)?;
    if let Some((drv, problem)) = found.problems.pop_first() {
        return Err(problem.into_error(&nodes, &roots, drv));
    }
    if let Some((position, source)) = check(&nodes, &edges, threads) {
        let drv = nodes[position].path.clone();
        return Err(Problem::Invalid(Box::new(source)).into_error(&nodes, &roots, drv));
    }
    Ok(Closure { nodes, topological })
}

enum Problem {
    Source(SourceError),
    Invalid(Box<derivation::Error>),
}

impl Problem {
    fn into_error(
        self,
        nodes: &[Arc<Parsed>],
        roots: &BTreeSet<StorePath>,
        drv: StorePath,
    ) -> Error {
        let needed = chain(nodes, roots, &drv);
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

/// The shortest chain of dependents from `drv` up to a root.
fn chain(nodes: &[Arc<Parsed>], roots: &BTreeSet<StorePath>, drv: &StorePath) -> Chain {
    let by_path: HashMap<&StorePath, &Arc<Parsed>> =
        nodes.iter().map(|parsed| (&parsed.path, parsed)).collect();
    let mut parents: HashMap<&StorePath, &StorePath> = HashMap::new();
    let mut queue: VecDeque<&StorePath> = roots.iter().collect();
    while let Some(dependent) = queue.pop_front() {
        let Some(parsed) = by_path.get(dependent) else {
            continue;
        };
        for input in parsed.derivation.input_derivations().keys() {
            if !roots.contains(input) && !parents.contains_key(input) {
                parents.insert(input, dependent);
                queue.push_back(input);
            }
        }
    }
    let above = std::iter::successors(parents.get(drv), |dependent| parents.get(**dependent));
    Chain(above.map(|dependent| (*dependent).clone()).collect())
}

#[derive(Default)]
struct Found {
    nodes: Vec<Parsed>,
    problems: BTreeMap<StorePath, Problem>,
    seen: HashSet<StorePath>,
}

fn read(roots: &BTreeSet<StorePath>, source: &impl Source, threads: NonZeroUsize) -> Found {
    let found = Found {
        seen: roots.iter().cloned().collect(),
        ..Found::default()
    };
    let found = Mutex::new(found);
    drain(threads, roots.iter().cloned().collect(), |drv, next| {
        let parsed = read_one(&drv, source);
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        let (parsed, problem) = match parsed {
            Ok((parsed, problem)) => (Some(parsed), problem),
            Err(problem) => (None, Some(problem)),
        };
        if let Some(problem) = problem {
            found.problems.insert(drv, problem);
        }
        if let Some(parsed) = parsed {
            for input in parsed.derivation.input_derivations().keys() {
                if !found.seen.contains(input) {
                    found.seen.insert(input.clone());
                    next.push(input.clone());
                }
            }
            found.nodes.push(parsed);
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// A file under a wrong name is followed all the same: only so can a cycle be seen as one.
fn read_one(drv: &StorePath, source: &impl Source) -> Result<(Parsed, Option<Problem>), Problem> {
    let bytes = source.read(drv).map_err(Problem::Source)?;
    let parsed =
        derivation::decode(drv, &bytes).map_err(|error| Problem::Invalid(Box::new(error)))?;
    let problem = parsed
        .check_path(&bytes)
        .err()
        .map(|error| Problem::Invalid(Box::new(error)));
    Ok((parsed, problem))
}

/// Positions of inputs and dependents. Inputs that could not be read are left out.
struct Edges {
    inputs: Vec<Vec<usize>>,
    dependents: Vec<Vec<usize>>,
}

impl Edges {
    fn of(nodes: &[Arc<Parsed>]) -> Self {
        let positions: HashMap<&StorePath, usize> = nodes
            .iter()
            .enumerate()
            .map(|(position, parsed)| (&parsed.path, position))
            .collect();
        let mut dependents = vec![Vec::new(); nodes.len()];
        let inputs = nodes.iter().enumerate().map(|(position, parsed)| {
            let paths = parsed.derivation.input_derivations().keys();
            let inputs: Vec<usize> = paths
                .filter_map(|path| positions.get(path).copied())
                .collect();
            for &input in &inputs {
                dependents[input].push(position);
            }
            inputs
        });
        let inputs = inputs.collect();
        Self { inputs, dependents }
    }

    fn topological(&self, nodes: &[Arc<Parsed>]) -> Result<Vec<usize>, Error> {
        let mut waiting: Vec<usize> = self.inputs.iter().map(Vec::len).collect();
        let mut order: Vec<usize> = (0..nodes.len())
            .filter(|&node| waiting[node] == 0)
            .collect();
        let mut done = 0;
        while let Some(&node) = order.get(done) {
            done += 1;
            for &dependent in &self.dependents[node] {
                waiting[dependent] -= 1;
                if waiting[dependent] == 0 {
                    order.push(dependent);
                }
            }
        }
        match waiting.iter().position(|&inputs| inputs > 0) {
            None => Ok(order),
            Some(start) => Err(self.cycle(nodes, &waiting, start)),
        }
    }

    /// Walks from input to input among those that never became ready, until one comes again.
    fn cycle(&self, nodes: &[Arc<Parsed>], waiting: &[usize], start: usize) -> Error {
        let mut walk: Vec<usize> = Vec::new();
        let mut node = start;
        let first = loop {
            if let Some(first) = walk.iter().position(|&earlier| earlier == node) {
                break first;
            }
            walk.push(node);
            node = *self.inputs[node]
                .iter()
                .find(|&&input| waiting[input] > 0)
                .expect("a node that never became ready has an input that never did");
        };
        let mut cycle = walk.split_off(first);
        let smallest = cycle.iter().enumerate().min_by_key(|(_, node)| **node);
        let smallest = smallest.map_or(0, |(at, _)| at);
        cycle.rotate_left(smallest);
        Error::Cycle {
            members: cycle
                .into_iter()
                .map(|node| nodes[node].path.clone())
                .collect(),
        }
    }
}

/// Checks all outputs, inputs first, and returns the first problem by path.
fn check(
    nodes: &[Arc<Parsed>],
    edges: &Edges,
    threads: NonZeroUsize,
) -> Option<(usize, derivation::Error)> {
    let modulos: Vec<OnceLock<Modulo>> = nodes.iter().map(|_| OnceLock::new()).collect();
    let waiting: Vec<AtomicUsize> = edges
        .inputs
        .iter()
        .map(|inputs| AtomicUsize::new(inputs.len()))
        .collect();
    let problems = Mutex::new(BTreeMap::new());
    let ready = (0..nodes.len())
        .filter(|&node| edges.inputs[node].is_empty())
        .collect();
    drain(threads, ready, |node: usize, next| {
        let inputs = &edges.inputs[node];
        let checked = derivation::check_outputs(&nodes[node], |path| {
            let position = inputs
                .binary_search_by(|&input| nodes[input].path.cmp(path))
                .ok()?;
            let input = inputs[position];
            Some(Input {
                parsed: &nodes[input],
                modulo: *modulos[input].get()?,
            })
        });
        match checked {
            // Each node is handed out once, so nothing was set before.
            Ok(modulo) => modulos[node].set(modulo).unwrap_or_default(),
            // Dependents would only repeat it: they stay waiting.
            Err(problem) => {
                problems
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(node, problem);
                return;
            }
        }
        for &dependent in &edges.dependents[node] {
            if waiting[dependent].fetch_sub(1, Ordering::AcqRel) == 1 {
                next.push(dependent);
            }
        }
    });
    problems
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .pop_first()
}

#[cfg(test)]
pub(crate) mod tests;
