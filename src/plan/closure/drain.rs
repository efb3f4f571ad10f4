//! Work that finds more work, shared between threads.

use std::num::NonZeroUsize;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

struct Queue<T> {
    items: Vec<T>,
    /// Threads that are at work and may find more.
    busy: usize,
    /// Threads that wait; to wake nobody costs a system call, too.
    idle: usize,
}

/// Runs `work` on `items` and on whatever it pushes, until nothing is left.
///
/// The order is not defined; every item is worked on once. `work` must not panic.
pub fn drain<T: Send>(threads: NonZeroUsize, items: Vec<T>, work: impl Fn(T, &mut Vec<T>) + Sync) {
    let queue = Mutex::new(Queue {
        items,
        busy: 0,
        idle: 0,
    });
    let changed = Condvar::new();
    thread::scope(|scope| {
        for _ in 1..threads.get() {
            scope.spawn(|| worker(&queue, &changed, &work));
        }
        worker(&queue, &changed, &work);
    });
}

fn worker<T>(queue: &Mutex<Queue<T>>, changed: &Condvar, work: impl Fn(T, &mut Vec<T>)) {
    let mut found = Vec::new();
    let mut locked = queue.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(item) = locked.items.pop() {
            locked.busy += 1;
            drop(locked);
            work(item, &mut found);
            locked = queue.lock().unwrap_or_else(PoisonError::into_inner);
            locked.busy -= 1;
            locked.items.append(&mut found);
            if locked.idle > 0 && (locked.busy == 0 || !locked.items.is_empty()) {
                changed.notify_all();
            }
        } else if locked.busy == 0 {
            return;
        } else {
            locked.idle += 1;
            locked = changed.wait(locked).unwrap_or_else(PoisonError::into_inner);
            locked.idle -= 1;
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
                |depth, next| {
                    count.fetch_add(1, Ordering::Relaxed);
                    if depth > 0 {
                        next.extend([depth - 1, depth - 1]);
                    }
                },
            );
            assert_eq!(count.into_inner(), (1 << 13) - 1);
        }
    }
}
