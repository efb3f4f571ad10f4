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
use crate::nix::derivation::{self, Draft, Input, Modulo, Outline, Wanted};
use crate::plan::closure;

/// What was found. Files are numbered as they are first named.
#[derive(Default)]
pub(super) struct Found {
    /// The number of each path, by its full text.
    numbers: HashMap<Box<str>, usize>,
    /// By number.
    pub files: Vec<File>,
    /// Files that could not be read, or are not what their names say.
    pub unread: BTreeMap<StorePath, Problem>,
    /// Files whose outputs do not follow from their content.
    pub refused: BTreeMap<StorePath, derivation::Error>,
    /// Sets of outputs, each kept once: nearly all derivations are wanted for `out`.
    outputs: HashMap<Box<str>, Arc<BTreeSet<String>>>,
}

/// One file.
pub(super) struct File {
    /// Where it lies.
    pub path: StorePath,
    stage: Stage,
    /// What it needs, in the order of paths, once it was read. Positions are numbers here.
    pub needs: Vec<closure::Input>,
    /// How many of these are not checked.
    waiting: usize,
    /// Those that wait for it.
    dependents: Vec<usize>,
}

#[derive(Default)]
enum Stage {
    #[default]
    Named,
    /// Somebody reads or checks it.
    Busy,
    Waiting(Draft),
    Checked(Checked),
    Failed,
}

/// What is kept of a file in which nothing is wrong.
struct Checked {
    outline: Arc<Outline>,
    /// The names of its outputs, and its identity: what its dependents have to know.
    facts: Facts,
}

type Facts = (Arc<BTreeSet<String>>, Modulo);

enum Step {
    Read(usize),
    Check(usize),
}

impl File {
    /// What is kept of it, if nothing was wrong.
    pub fn outline(&self) -> Option<&Arc<Outline>> {
        match &self.stage {
            Stage::Checked(checked) => Some(&checked.outline),
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
        .map(|root| Step::Read(found.number(&root.to_string(), || root.clone())))
        .collect();
    let found = Mutex::new(found);
    drain(threads, steps, |step, next| match step {
        Step::Read(number) => read_file(number, source, &found, next),
        Step::Check(number) => check(number, &found, next),
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn read_file(number: usize, source: &impl Source, found: &Mutex<Found>, next: &mut Vec<Step>) {
    let drv = {
        let file = &mut lock(found).files[number];
        match &mut file.stage {
            named @ Stage::Named => *named = Stage::Busy,
            // Several may have named it.
            _ => return,
        }
        file.path.clone()
    };
    let read = read_one(&drv, source);
    let mut found = lock(found);
    match read {
        Ok(draft) => found.follow(number, draft, next),
        Err((draft, problem)) => {
            found.unread.insert(drv, problem);
            if let Some(draft) = draft {
                found.follow(number, draft, next);
            }
            found.files[number].stage = Stage::Failed;
        }
    }
}

/// A file under a wrong name is followed all the same: only so can a cycle be seen as one.
fn read_one(drv: &StorePath, source: &impl Source) -> Result<Draft, (Option<Draft>, Problem)> {
    let bytes = source
        .read(drv)
        .map_err(|error| (None, Problem::Source(error)))?;
    let invalid = |error| Problem::Invalid(Box::new(error));
    let draft = Draft::decode(drv, &bytes).map_err(|error| (None, invalid(error)))?;
    match draft.check_path(&bytes) {
        Ok(()) => Ok(draft),
        Err(error) => Err((Some(draft), invalid(error))),
    }
}

fn check(number: usize, found: &Mutex<Found>, next: &mut Vec<Step>) {
    let (drv, draft, inputs) = {
        let mut found = lock(found);
        let file = &mut found.files[number];
        // What was followed under a wrong name has failed already.
        let Stage::Waiting(_) = file.stage else {
            return;
        };
        let Stage::Waiting(draft) = std::mem::replace(&mut file.stage, Stage::Busy) else {
            return;
        };
        (file.path.clone(), draft, found.inputs(number))
    };
    let inputs: Vec<Input<'_>> = inputs
        .iter()
        .map(|(outputs, modulo)| Input {
            outputs,
            modulo: *modulo,
        })
        .collect();
    let checked = match draft.finish(&inputs) {
        Ok((outline, modulo)) => Ok((Arc::new(outline), modulo)),
        Err(error) => Err((drv, error)),
    };
    lock(found).conclude(number, checked, next);
}

fn lock(found: &Mutex<Found>) -> MutexGuard<'_, Found> {
    found.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Found {
    /// The number of a path, whose full text is `text`.
    fn number(&mut self, text: &str, path: impl FnOnce() -> StorePath) -> usize {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        let number = self.files.len();
        self.numbers.insert(text.into(), number);
        self.files.push(File {
            path: path(),
            stage: Stage::Named,
            needs: Vec::new(),
            waiting: 0,
            dependents: Vec::new(),
        });
        number
    }

    fn shared(&mut self, wanted: Wanted<'_>) -> Arc<BTreeSet<String>> {
        let key = wanted.key();
        if let Some(shared) = self.outputs.get(&*key) {
            return shared.clone();
        }
        let shared = Arc::new(wanted.names());
        self.outputs.insert(key.into(), shared.clone());
        shared
    }

    /// Notes what a file needs, and has it read.
    fn follow(&mut self, number: usize, draft: Draft, next: &mut Vec<Step>) {
        let inputs = draft.inputs();
        let mut needs = Vec::with_capacity(inputs.len());
        let mut waiting = 0;
        for (path, wanted) in inputs {
            let parse = || path.parse().expect("a draft has been looked through");
            let input = self.number(&path, parse);
            let outputs = self.shared(wanted);
            needs.push(closure::Input {
                position: input,
                outputs,
            });
            let file = &mut self.files[input];
            if !file.is_checked() {
                waiting += 1;
                file.dependents.push(number);
            }
            if matches!(file.stage, Stage::Named) {
                next.push(Step::Read(input));
            }
        }
        let file = &mut self.files[number];
        file.needs = needs;
        file.waiting = waiting;
        file.stage = Stage::Waiting(draft);
        if waiting == 0 {
            next.push(Step::Check(number));
        }
    }

    /// What a file needs; all of it was checked.
    fn inputs(&self, number: usize) -> Vec<Facts> {
        let needs = self.files[number].needs.iter();
        let checked = needs.filter_map(|need| match &self.files[need.position].stage {
            Stage::Checked(checked) => Some(checked.facts.clone()),
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
                let outputs: BTreeSet<String> =
                    outline.outputs.keys().map(ToOwned::to_owned).collect();
                let facts = (self.shared(Wanted::Named(&outputs)), modulo);
                self.files[number].stage = Stage::Checked(Checked { outline, facts });
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
