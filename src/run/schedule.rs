//! What can start next: pure state, most urgent first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::plan::{Decision, NodeIndex, Plan};

/// Where a build stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Valid, or not needed: nothing to do.
    Good,
    /// Waits for inputs.
    Waiting,
    /// Could start.
    Ready,
    /// Given to the engine.
    Running,
    /// Failed, cancelled, or behind one that did.
    Bad,
}

/// The builds of a run.
#[derive(Debug)]
pub(super) struct Schedule {
    state: Vec<State>,
    missing: Vec<usize>,
    dependents: Vec<Vec<NodeIndex>>,
    rank: Vec<usize>,
    ready: BTreeSet<(usize, NodeIndex)>,
    later: BTreeMap<NodeIndex, Instant>,
    open: usize,
}

impl Schedule {
    /// Begins with a plan that has nothing refused in it.
    pub(super) fn new(plan: &Plan) -> Self {
        let size = plan.nodes.len();
        let mut schedule = Self {
            state: vec![State::Good; size],
            missing: vec![0; size],
            dependents: vec![Vec::new(); size],
            rank: vec![usize::MAX; size],
            ready: BTreeSet::new(),
            later: BTreeMap::new(),
            open: 0,
        };
        for (rank, node) in plan.order.iter().enumerate() {
            schedule.rank[node.0] = rank;
        }
        for (index, decided) in plan.nodes.iter().enumerate() {
            if !matches!(decided.decision, Decision::Build(_)) {
                continue;
            }
            schedule.open += 1;
            schedule.missing[index] = decided.waits_for.len();
            for input in &decided.waits_for {
                schedule.dependents[input.0].push(NodeIndex(index));
            }
            schedule.state[index] = State::Waiting;
            if decided.waits_for.is_empty() {
                schedule.make_ready(NodeIndex(index));
            }
        }
        schedule
    }

    fn make_ready(&mut self, node: NodeIndex) {
        self.state[node.0] = State::Ready;
        self.ready.insert((self.rank[node.0], node));
    }

    /// Where a build stands.
    pub(super) fn state(&self, node: NodeIndex) -> State {
        self.state[node.0]
    }

    /// How many builds have no outcome.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// How many builds can start.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Takes the most urgent build that can start.
    pub(super) fn take(&mut self) -> Option<NodeIndex> {
        let (_, node) = self.ready.pop_first()?;
        self.state[node.0] = State::Running;
        Some(node)
    }

    /// Takes this build, if it can start.
    pub(super) fn take_this(&mut self, node: NodeIndex) -> bool {
        let ready = self.ready.remove(&(self.rank[node.0], node));
        if ready {
            self.state[node.0] = State::Running;
        }
        ready
    }

    /// The build to go on with after one that runs: it waits for nothing else, and nothing that can
    /// start already is more urgent.
    pub(super) fn successor(&self, node: NodeIndex) -> Option<NodeIndex> {
        let waits = |dependent: &&NodeIndex| {
            self.state[dependent.0] == State::Waiting && self.missing[dependent.0] == 1
        };
        let dependents = self.dependents[node.0].iter().filter(waits);
        let next = *dependents.min_by_key(|dependent| self.rank[dependent.0])?;
        let is_first = |(rank, _): &(usize, NodeIndex)| *rank > self.rank[next.0];
        self.ready.first().is_none_or(is_first).then_some(next)
    }

    /// Puts a build back because another program holds its lock; it is ready again at `when`, and
    /// everything else that is ready goes first until then.
    pub(super) fn put_back(&mut self, node: NodeIndex, when: Instant) {
        self.later.insert(node, when);
    }

    /// Makes builds ready whose time has come; returns when the next one's comes.
    pub(super) fn wake(&mut self, now: Instant) -> Option<Instant> {
        let due: Vec<NodeIndex> = self
            .later
            .iter()
            .filter(|(_, when)| **when <= now)
            .map(|(node, _)| *node)
            .collect();
        for node in due {
            self.later.remove(&node);
            self.make_ready(node);
        }
        self.later.values().min().copied()
    }

    /// Notes that a build's outputs are valid.
    pub(super) fn good(&mut self, node: NodeIndex) {
        self.state[node.0] = State::Good;
        self.open -= 1;
        for dependent in self.dependents[node.0].clone() {
            self.missing[dependent.0] -= 1;
            if self.missing[dependent.0] == 0 && self.state[dependent.0] == State::Waiting {
                self.make_ready(dependent);
            }
        }
    }

    /// Notes that a build failed; returns those that can never start for it, each with the input
    /// nearest to it that is to blame.
    pub(super) fn bad(&mut self, node: NodeIndex) -> Vec<(NodeIndex, NodeIndex)> {
        self.close(node);
        let mut behind = Vec::new();
        let mut front = vec![node];
        while let Some(cause) = front.pop() {
            for dependent in self.dependents[cause.0].clone() {
                if self.state[dependent.0] == State::Waiting {
                    self.close(dependent);
                    behind.push((dependent, cause));
                    front.push(dependent);
                }
            }
        }
        behind
    }

    /// Ends everything that has not started; returns it.
    pub(super) fn cancel(&mut self) -> Vec<NodeIndex> {
        let waiting = |state: &State| matches!(state, State::Waiting | State::Ready);
        let mut nodes: Vec<NodeIndex> = (0..self.state.len())
            .filter(|index| waiting(&self.state[*index]))
            .map(NodeIndex)
            .collect();
        nodes.extend(std::mem::take(&mut self.later).into_keys());
        self.ready.clear();
        for node in &nodes {
            self.close(*node);
        }
        nodes
    }

    /// Whether a build has not been taken yet, and has no outcome.
    pub(super) fn is_to_start(&self, node: NodeIndex) -> bool {
        matches!(self.state[node.0], State::Waiting | State::Ready)
    }

    /// Returns the builds that were taken and have no outcome.
    pub(super) fn running(&self) -> Vec<NodeIndex> {
        let nodes = (0..self.state.len()).map(NodeIndex);
        nodes
            .filter(|node| self.state[node.0] == State::Running)
            .collect()
    }

    fn close(&mut self, node: NodeIndex) {
        self.ready.remove(&(self.rank[node.0], node));
        self.state[node.0] = State::Bad;
        self.open -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::plan::{Caches, Decided, Missing};

    /// A plan in which each node waits for these others; the first is the most urgent.
    fn plan(waits_for: &[&[usize]]) -> Plan {
        let decided = |inputs: &&[usize]| Decided {
            wanted: Arc::default(),
            wanted_by: Vec::new(),
            decision: Decision::Build(Missing(Arc::default())),
            waits_for: inputs.iter().map(|input| NodeIndex(*input)).collect(),
            height: 0,
        };
        Plan {
            nodes: waits_for.iter().map(decided).collect(),
            order: (0..waits_for.len()).map(NodeIndex).collect(),
            imports: BTreeSet::new(),
            caches: Caches {
                missing: 0,
                allowed: 0,
            },
        }
    }

    const A: NodeIndex = NodeIndex(0);
    const B: NodeIndex = NodeIndex(1);
    const C: NodeIndex = NodeIndex(2);
    const D: NodeIndex = NodeIndex(3);

    #[test]
    fn what_waits_for_a_build_alone_follows_it_and_is_taken_once() {
        let mut schedule = Schedule::new(&plan(&[&[], &[0], &[0], &[1, 2]]));
        assert_eq!(schedule.take(), Some(A));
        assert_eq!(schedule.successor(A), Some(B));
        // It has not been taken, and cannot be yet.
        assert!(!schedule.take_this(B));
        schedule.good(A);
        assert!(schedule.take_this(B) && !schedule.take_this(B));
        assert_eq!((schedule.take(), schedule.take()), (Some(C), None));
        // It waits for another one too.
        assert_eq!((schedule.successor(B), schedule.successor(C)), (None, None));
        schedule.good(C);
        assert_eq!(schedule.successor(B), Some(D));
    }

    #[test]
    fn nothing_follows_where_something_more_urgent_can_start() {
        let mut schedule = Schedule::new(&plan(&[&[3], &[], &[1], &[]]));
        assert_eq!((schedule.take(), schedule.ready()), (Some(B), 1));
        assert_eq!(schedule.successor(B), Some(C));
        assert_eq!(schedule.take(), Some(D));
        schedule.good(D);
        assert_eq!(schedule.successor(B), None);
        assert_eq!(schedule.take(), Some(A));
        assert_eq!(schedule.successor(B), Some(C));
    }

    #[test]
    fn what_followed_a_build_that_failed_or_was_stopped_cannot_be_taken() {
        let chain = plan(&[&[], &[0], &[1]]);
        let mut failed = Schedule::new(&chain);
        failed.take();
        assert_eq!(failed.successor(A), Some(B));
        assert_eq!(failed.bad(A), [(B, A), (C, B)]);
        let mut stopped = Schedule::new(&chain);
        stopped.take();
        assert_eq!(stopped.cancel(), [B, C]);
        // What ran may end well all the same.
        stopped.good(A);
        for mut schedule in [failed, stopped] {
            assert!(!schedule.take_this(B));
            assert_eq!((schedule.open(), schedule.take()), (0, None));
        }
    }
}
