//! Reads files and checks them, depth first and in parallel.
//!
//! A derivation can be checked once all it needs has been, and then only its [`Outline`] is kept.
//! Going down before going on, few files wait for their inputs at any time: as many as the closure
//! is deep, not as many as it has. So a closure takes little memory, whatever is in the files.
//!
//! ```text
//! Named -> Reading -> Waiting (for inputs) -> Checking -> Checked
//!             \-------------- Failed <-----------/
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::drain::drain;
use super::{Problem, Source};
use crate::nix::StorePath;
use crate::nix::derivation::{self, Input, Modulo, Outline, Parsed};

/// What was found. Files are numbered as they are first named.
#[derive(Default)]
pub(super) struct Found {
    /// The number of each path.
    pub numbers: HashMap<StorePath, usize>,
    /// By number.
    pub files: Vec<File>,
    /// Files that could not be read, or are not what their names say.
    pub unread: BTreeMap<StorePath, Problem>,
    /// Files whose outputs do not follow from their content.
    pub refused: BTreeMap<StorePath, derivation::Error>,
    /// Sets of outputs, each kept once: nearly all derivations are wanted for `out`.
    outputs: BTreeSet<Arc<BTreeSet<String>>>,
}

/// One file.
#[derive(Default)]
pub(super) struct File {
    stage: Stage,
    /// What it needs, in the order of paths, once it was read.
    pub needs: Vec<Need>,
    /// How many of these are not checked.
    waiting: usize,
    /// Those that wait for it.
    dependents: Vec<usize>,
}

/// A derivation that another needs.
#[derive(Debug, Clone)]
pub struct Need {
    /// Which one.
    pub number: usize,
    /// The outputs of it.
    pub outputs: Arc<BTreeSet<String>>,
}

#[derive(Default)]
enum Stage {
    #[default]
    Named,
    /// Somebody reads or checks it.
    Busy,
    Waiting(Box<Parsed>),
    Checked(Arc<Outline>, Modulo),
    Failed,
}

enum Step {
    Read(usize, StorePath),
    Check(usize),
}

impl File {
    /// What is kept of it, if nothing was wrong.
    pub fn outline(&self) -> Option<&Arc<Outline>> {
        match &self.stage {
            Stage::Checked(outline, _) => Some(outline),
            _ => None,
        }
    }

    fn is_checked(&self) -> bool {
        matches!(self.stage, Stage::Checked(..))
    }
}

/// Reads and checks `roots` and all they need, as far as it can be done.
pub(super) fn read(
    roots: &BTreeSet<StorePath>,
    source: &impl Source,
    threads: NonZeroUsize,
) -> Found {
    let mut found = Found::default();
    let steps = roots
        .iter()
        .map(|root| Step::Read(found.number(root), root.clone()))
        .collect();
    let found = Mutex::new(found);
    drain(threads, steps, |step, next| match step {
        Step::Read(number, drv) => read_file(number, &drv, source, &found, next),
        Step::Check(number) => check(number, &found, next),
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn read_file(
    number: usize,
    drv: &StorePath,
    source: &impl Source,
    found: &Mutex<Found>,
    next: &mut Vec<Step>,
) {
    match &mut lock(found).files[number].stage {
        named @ Stage::Named => *named = Stage::Busy,
        // Several may have named it.
        _ => return,
    }
    let read = read_one(drv, source);
    let mut found = lock(found);
    match read {
        Ok(parsed) => found.follow(number, parsed, next),
        Err((parsed, problem)) => {
            found.unread.insert(drv.clone(), problem);
            if let Some(parsed) = parsed {
                found.follow(number, parsed, next);
            }
            found.files[number].stage = Stage::Failed;
        }
    }
}

/// A file under a wrong name is followed all the same: only so can a cycle be seen as one.
fn read_one(
    drv: &StorePath,
    source: &impl Source,
) -> Result<Box<Parsed>, (Option<Box<Parsed>>, Problem)> {
    let bytes = source
        .read(drv)
        .map_err(|error| (None, Problem::Source(error)))?;
    let invalid = |error| Problem::Invalid(Box::new(error));
    let parsed = derivation::decode(drv, &bytes).map_err(|error| (None, invalid(error)))?;
    let parsed = Box::new(parsed);
    match parsed.check_path(&bytes) {
        Ok(()) => Ok(parsed),
        Err(error) => Err((Some(parsed), invalid(error))),
    }
}

fn check(number: usize, found: &Mutex<Found>, next: &mut Vec<Step>) {
    let (parsed, inputs) = {
        let mut found = lock(found);
        let stage = &mut found.files[number].stage;
        // What was followed under a wrong name has failed already.
        let Stage::Waiting(_) = stage else { return };
        let Stage::Waiting(parsed) = std::mem::replace(stage, Stage::Busy) else {
            return;
        };
        (parsed, found.inputs(number))
    };
    let paths: Vec<&StorePath> = parsed.derivation.input_derivations().keys().collect();
    let checked = derivation::check_outputs(&parsed, |path| {
        // Both lists are in the order of paths.
        let (outline, modulo) = inputs.get(paths.binary_search(&path).ok()?)?;
        Some(Input {
            outputs: &outline.outputs,
            modulo: *modulo,
        })
    });
    let checked = match checked {
        Ok(modulo) => Ok((Arc::new(Outline::of(*parsed)), modulo)),
        Err(error) => Err((parsed.path.clone(), error)),
    };
    lock(found).conclude(number, checked, next);
}

fn lock(found: &Mutex<Found>) -> MutexGuard<'_, Found> {
    found.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Found {
    fn number(&mut self, drv: &StorePath) -> usize {
        if let Some(&number) = self.numbers.get(drv) {
            return number;
        }
        let number = self.files.len();
        self.numbers.insert(drv.clone(), number);
        self.files.push(File::default());
        number
    }

    fn shared(&mut self, outputs: &BTreeSet<String>) -> Arc<BTreeSet<String>> {
        if let Some(shared) = self.outputs.get(outputs) {
            return shared.clone();
        }
        let shared = Arc::new(outputs.clone());
        self.outputs.insert(shared.clone());
        shared
    }

    /// Notes what a file needs, and has it read.
    fn follow(&mut self, number: usize, parsed: Box<Parsed>, next: &mut Vec<Step>) {
        let inputs = parsed.derivation.input_derivations();
        let mut needs = Vec::with_capacity(inputs.len());
        let mut waiting = 0;
        for (path, wanted) in inputs {
            let input = self.number(path);
            let outputs = self.shared(wanted.outputs());
            needs.push(Need {
                number: input,
                outputs,
            });
            let file = &mut self.files[input];
            if !file.is_checked() {
                waiting += 1;
                file.dependents.push(number);
            }
            if matches!(file.stage, Stage::Named) {
                next.push(Step::Read(input, path.clone()));
            }
        }
        let file = &mut self.files[number];
        file.needs = needs;
        file.waiting = waiting;
        file.stage = Stage::Waiting(parsed);
        if waiting == 0 {
            next.push(Step::Check(number));
        }
    }

    /// What a file needs; all of it was checked.
    fn inputs(&self, number: usize) -> Vec<(Arc<Outline>, Modulo)> {
        let needs = self.files[number].needs.iter();
        let checked = needs.filter_map(|need| match &self.files[need.number].stage {
            Stage::Checked(outline, modulo) => Some((outline.clone(), *modulo)),
            _ => None,
        });
        checked.collect()
    }

    /// Dependents of what was refused are left waiting: they would only repeat it.
    fn conclude(
        &mut self,
        number: usize,
        checked: Result<(Arc<Outline>, Modulo), (StorePath, derivation::Error)>,
        next: &mut Vec<Step>,
    ) {
        match checked {
            Err((drv, error)) => {
                self.files[number].stage = Stage::Failed;
                self.refused.insert(drv, error);
            }
            Ok((outline, modulo)) => {
                self.files[number].stage = Stage::Checked(outline, modulo);
                for dependent in std::mem::take(&mut self.files[number].dependents) {
                    let file = &mut self.files[dependent];
                    file.waiting -= 1;
                    if file.waiting == 0 && matches!(file.stage, Stage::Waiting(_)) {
                        next.push(Step::Check(dependent));
                    }
                }
            }
        }
    }
}
