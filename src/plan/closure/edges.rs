//! How what was found hangs together, and in which order.

use std::collections::{HashMap, VecDeque};

use super::read::File;
use super::{Chain, Error, Need};
use crate::nix::{Ranked, StorePath};
use crate::plan::lists::Lists;

/// Everything that was named, in the order of paths.
pub(super) struct Edges<'a> {
    paths: Vec<&'a StorePath>,
    /// By position, the greater part of the path's digest.
    pub ranks: Vec<u128>,
    /// By position, the number that reading gave it.
    pub numbers: Vec<usize>,
    /// By position, its inputs. What could not be read has none.
    pub inputs: Lists<Need>,
    /// By position, who needs it.
    pub dependents: Lists<u32>,
}

impl<'a> Edges<'a> {
    /// Files are in the order of their numbers.
    pub fn of(files: &'a [File]) -> Self {
        let ranked = files.iter().map(|file| Ranked::from(&file.path));
        let mut named: Vec<(Ranked<'_>, usize)> = ranked.zip(0..).collect();
        named.sort_unstable();
        let ranks = named.iter().map(|(one, _)| one.rank).collect();
        let named = named.into_iter().map(|(one, number)| (one.path, number));
        let (paths, numbers): (Vec<_>, Vec<_>) = named.unzip();
        let mut positions = vec![0; numbers.len()];
        for (position, &number) in (0..).zip(&numbers) {
            positions[number] = position;
        }
        let positioned = |need: &Need| Need {
            position: positions[need.position as usize],
            outputs: need.outputs,
        };
        let needs = numbers.iter().map(|&number| &files[number].needs);
        let count = needs.clone().map(Vec::len).sum();
        let inputs = Lists::of(needs.map(|needs| needs.iter().map(positioned)), count);
        Self {
            paths,
            ranks,
            dependents: inputs.turned(|need| need.position),
            inputs,
            numbers,
        }
    }

    /// The shortest chain of dependents from `drv` up to a root.
    pub fn chain(&self, roots: &[&StorePath], drv: &StorePath) -> Chain {
        let mut parents: HashMap<usize, usize> = HashMap::new();
        let is_root = |position: usize| roots.binary_search(&self.paths[position]).is_ok();
        let mut queue: VecDeque<usize> = (0..self.paths.len())
            .filter(|&position| is_root(position))
            .collect();
        while let Some(dependent) = queue.pop_front() {
            for input in self.inputs(dependent) {
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

    fn inputs(&self, position: usize) -> impl Iterator<Item = usize> {
        let needs = self.inputs.of_one(position).iter();
        needs.map(|need| need.position as usize)
    }

    /// All positions, inputs before dependents.
    pub fn topological(&self) -> Result<Vec<u32>, Error> {
        let mut waiting: Vec<usize> = self.inputs.iter().map(<[_]>::len).collect();
        let free = (0_u32..).zip(&waiting).filter(|(_, inputs)| **inputs == 0);
        let mut order: Vec<u32> = free.map(|(position, _)| position).collect();
        let mut done = 0;
        while let Some(&position) = order.get(done) {
            done += 1;
            for &dependent in self.dependents.of_one(position as usize) {
                let waiting = &mut waiting[dependent as usize];
                *waiting -= 1;
                if *waiting == 0 {
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
            position = self
                .inputs(position)
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
