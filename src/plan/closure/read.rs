//! Reads files and checks them, depth first and in parallel.
//!
//! A derivation can be checked once all it needs has been, and then only its [`Outline`] is kept.
//! Going down before going on, few files wait for their inputs at any time: as many as the closure
//! is deep, not as many as it has. So a closure takes little memory, whatever is in the files.
//!
//! ```text
//! named -> taken -> waits (for inputs) -> checked
//!             \-------- failed <--------/
//! ```
//!
//! No lock is common to all files: each has its own, and what is known of one that was checked is
//! read without any.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::arena::Arena;
use super::drain::drain;
use super::names::{Met, Numbers, Sets};
use super::{Names, Need, Problem, Source};
use crate::nix::derivation::{self, Draft, Input, Modulo, Outline};
use crate::nix::{StorePath, full_text};
use crate::plan::lists::number;

/// What was found. Files are numbered as they are first named.
pub(super) struct Found {
    /// By number.
    pub files: Vec<File>,
    /// By number, what is kept of a file if nothing was wrong.
    pub outlines: Vec<Option<Arc<Outline>>>,
    /// The sets of outputs that are needed.
    pub sets: Vec<Names>,
    /// Files that could not be read, or are not what their names say.
    pub unread: BTreeMap<StorePath, Problem>,
    /// Files whose outputs do not follow from their content.
    pub refused: BTreeMap<StorePath, derivation::Error>,
}

/// One file.
pub(super) struct File {
    /// Where it lies.
    pub path: StorePath,
    /// What it needs, in the order of paths, if it was read. Positions are numbers here.
    pub needs: Vec<Need>,
}

impl Found {
    /// Reads and checks `roots` and all they need, as far as it can be done.
    pub fn read(roots: &[&StorePath], source: &impl Source, threads: NonZeroUsize) -> Self {
        let reading = Reading {
            source,
            numbers: Numbers::default(),
            sets: Sets::default(),
            places: Arena::default(),
            unread: Mutex::default(),
            refused: Mutex::default(),
        };
        let steps = roots
            .iter()
            .map(|&root| Step::Read(reading.number(&full_text(root), || root.clone())))
            .collect();
        let met = || Met::new(&reading.sets);
        drain(threads, steps, met, |met, step, next| {
            let mut turn = Turn { met, next };
            match step {
                Step::Read(number) => reading.read(number, &mut turn),
                Step::Check(number) => reading.check(number, &mut turn),
            }
        });
        reading.found()
    }
}

enum Step {
    Read(usize),
    Check(usize),
}

/// What a thread has at hand in one step.
struct Turn<'a, 'r> {
    met: &'a mut Met<'r>,
    next: &'a mut Vec<Step>,
}

/// A file on its way.
#[derive(Default)]
struct Place {
    path: OnceLock<StorePath>,
    /// Somebody reads it, or has.
    taken: AtomicBool,
    needs: OnceLock<Vec<Need>>,
    /// What was read, until it is checked.
    draft: Mutex<Option<Draft>>,
    /// How many of its inputs are not checked; one more while these are being counted.
    waiting: AtomicUsize,
    /// Those that wait for it.
    dependents: Mutex<Vec<usize>>,
    checked: OnceLock<Checked>,
}

/// What is kept of a file in which nothing is wrong.
struct Checked {
    outline: Arc<Outline>,
    /// The names of its outputs, and its identity: what its dependents have to know.
    outputs: Names,
    modulo: Modulo,
}

struct Reading<'a, S> {
    source: &'a S,
    numbers: Numbers,
    sets: Sets,
    /// By number.
    places: Arena<Place>,
    unread: Mutex<BTreeMap<StorePath, Problem>>,
    refused: Mutex<BTreeMap<StorePath, derivation::Error>>,
}

impl<S: Source> Reading<'_, S> {
    /// The number of a path, whose full text is `text`.
    fn number(&self, text: &str, path: impl FnOnce() -> StorePath) -> usize {
        self.numbers.of(text, |number| {
            self.places.get(number).path.get_or_init(path);
        })
    }

    fn input(&self, need: Need) -> &Place {
        self.places.get(need.position as usize)
    }

    fn read(&self, number: usize, turn: &mut Turn<'_, '_>) {
        let place = self.places.get(number);
        // Several may have named it.
        if place.taken.swap(true, Ordering::Relaxed) {
            return;
        }
        let drv = place.path();
        match read_one(drv, self.source) {
            Ok(draft) => {
                self.follow(place, &draft, turn);
                self.wait(number, draft, turn);
            }
            Err((draft, problem)) => {
                if let Some(draft) = draft {
                    self.follow(place, &draft, turn);
                }
                lock(&self.unread).insert(drv.clone(), problem);
            }
        }
    }

    /// Notes what a file needs, and has it read.
    fn follow(&self, place: &Place, draft: &Draft, turn: &mut Turn<'_, '_>) {
        let inputs = draft.inputs();
        let mut needs = Vec::with_capacity(inputs.len());
        for (path, wanted) in inputs {
            let parse = || path.parse().expect("a draft has been looked through");
            let input = self.number(&path, parse);
            needs.push(Need {
                position: number(input),
                outputs: turn.met.wanted(wanted),
            });
            if !self.places.get(input).taken.load(Ordering::Relaxed) {
                turn.next.push(Step::Read(input));
            }
        }
        place.needs.get_or_init(|| needs);
    }

    /// Lets a file be checked once all it needs is.
    fn wait(&self, number: usize, draft: Draft, turn: &mut Turn<'_, '_>) {
        let place = self.places.get(number);
        *lock(&place.draft) = Some(draft);
        place.waiting.store(1, Ordering::Relaxed);
        for need in place.needs() {
            self.input(*need).tell(number, &place.waiting);
        }
        place.arrived(number, turn);
    }

    fn check(&self, number: usize, turn: &mut Turn<'_, '_>) {
        let place = self.places.get(number);
        let Some(draft) = lock(&place.draft).take() else {
            return;
        };
        let needs = place.needs().iter();
        let inputs = needs.filter_map(|need| self.input(*need).checked.get());
        let inputs: Vec<Input<'_>> = inputs.map(Checked::as_input).collect();
        match draft.finish(&inputs) {
            Ok((outline, modulo)) => {
                let outputs = turn.met.names(&outline.outputs);
                let outline = Arc::new(outline);
                place.checked.get_or_init(|| Checked {
                    outline,
                    outputs,
                    modulo,
                });
                for dependent in std::mem::take(&mut *lock(&place.dependents)) {
                    self.places.get(dependent).arrived(dependent, turn);
                }
            }
            // Its dependents are left waiting: they would only repeat it.
            Err(error) => {
                lock(&self.refused).insert(place.path().clone(), error);
            }
        }
    }

    fn found(self) -> Found {
        let count = self.numbers.count();
        let places = self.places.into_places().take(count);
        let (files, outlines) = places.map(Place::into_parts).unzip();
        Found {
            files,
            outlines,
            sets: self.sets.into_sets(),
            unread: into_inner(self.unread),
            refused: into_inner(self.refused),
        }
    }
}

impl Place {
    fn path(&self) -> &StorePath {
        self.path.get().expect("set with its number")
    }

    fn needs(&self) -> &[Need] {
        self.needs.get().map_or(&[], Vec::as_slice)
    }

    fn into_parts(self) -> (File, Option<Arc<Outline>>) {
        let file = File {
            path: self.path.into_inner().expect("set with its number"),
            needs: self.needs.into_inner().unwrap_or_default(),
        };
        (
            file,
            self.checked.into_inner().map(|checked| checked.outline),
        )
    }

    /// Notes who is to be told when it is checked, and that it waits, unless it is checked already.
    fn tell(&self, dependent: usize, waiting: &AtomicUsize) {
        if self.checked.get().is_some() {
            return;
        }
        let mut dependents = lock(&self.dependents);
        // Those that were noted before are told after this is set.
        if self.checked.get().is_none() {
            waiting.fetch_add(1, Ordering::Relaxed);
            dependents.push(dependent);
        }
    }

    /// Something that it waited for is there; the last one makes it ready.
    fn arrived(&self, number: usize, turn: &mut Turn<'_, '_>) {
        if self.waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
            turn.next.push(Step::Check(number));
        }
    }
}

impl Checked {
    fn as_input(&self) -> Input<'_> {
        Input {
            outputs: &self.outputs,
            modulo: self.modulo,
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}
