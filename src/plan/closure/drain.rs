//! Work that finds more work, shared between threads.
//!
//! Each thread goes on with what it found itself, the last first, and asks nobody. Only who has
//! nothing left looks for something in common hands, and who sees that gives half of what it has.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

struct Common<T> {
    queue: Mutex<Queue<T>>,
    changed: Condvar,
    /// Threads that have nothing. It is only a hint, and looked at without the lock.
    idle: AtomicUsize,
}

struct Queue<T> {
    items: Vec<T>,
    /// Threads that are at work and may find more.
    busy: usize,
}

/// Runs `work` on `items` and on whatever it pushes, until nothing is left. Each thread has a state
/// of its own, made by `begin`.
///
/// The order is not defined; every item is worked on once. `work` must not panic.
pub fn drain<T: Send, S>(
    threads: NonZeroUsize,
    items: Vec<T>,
    begin: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, T, &mut Vec<T>) + Sync,
) {
    let common = Common {
        queue: Mutex::new(Queue {
            items,
            busy: threads.get(),
        }),
        changed: Condvar::new(),
        idle: AtomicUsize::new(0),
    };
    let worker = || {
        let (mut state, mut own) = (begin(), Vec::new());
        while let Some(item) = common.take() {
            own.push(item);
            while let Some(item) = own.pop() {
                work(&mut state, item, &mut own);
                if common.idle.load(Ordering::Relaxed) > 0 {
                    common.give(&mut own);
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.get() {
            scope.spawn(worker);
        }
        worker();
    });
}

impl<T> Common<T> {
    /// Takes an item; `None` once nobody is at work any more. Whoever calls was at work.
    fn take(&self) -> Option<T> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.busy -= 1;
        loop {
            if let Some(item) = queue.items.pop() {
                queue.busy += 1;
                return Some(item);
            }
            if queue.busy == 0 {
                self.changed.notify_all();
                return None;
            }
            self.idle.fetch_add(1, Ordering::Relaxed);
            let woken = self.changed.wait(queue);
            queue = woken.unwrap_or_else(PoisonError::into_inner);
            self.idle.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Gives away the older half, unless somebody has given something already.
    fn give(&self, own: &mut Vec<T>) {
        let half = own.len() / 2;
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if half > 0 && queue.items.is_empty() {
            queue.items.extend(own.drain(..half));
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn every_item_is_worked_on_once() {
        for threads in 1..5 {
            let count = AtomicUsize::new(0);
            drain(
                NonZeroUsize::new(threads).unwrap(),
                vec![12_u32],
                || (),
                |(), depth, next| {
                    count.fetch_add(1, Ordering::Relaxed);
                    if depth > 0 {
                        next.extend([depth - 1, depth - 1]);
                    }
                },
            );
            assert_eq!(count.into_inner(), (1 << 13) - 1);
        }
    }

    #[test]
    fn who_has_nothing_is_given_something() {
        let seen = Mutex::new(std::collections::HashSet::new());
        drain(
            NonZeroUsize::new(2).unwrap(),
            vec![true],
            || (),
            |(), is_first, next| {
                if is_first {
                    return next.extend([false; 4]);
                }
                let mut seen = seen.lock().unwrap();
                seen.insert(thread::current().id());
                // All are worked on over and over until both threads have had one.
                if seen.len() < 2 {
                    next.push(false);
                }
            },
        );
    }
}
