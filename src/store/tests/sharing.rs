//! Locks and temp roots: how processes keep apart.

use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::os::unix::net::UnixListener;

use rustix::fs::FlockOperation;

use super::*;

#[test]
fn output_locks_are_all_or_none_and_leave_nothing_when_released() {
    let scene = Scene::new();
    let (ours, theirs) = (scene.open(), scene.open());
    let (a, b) = (path('a', "a"), path('b', "b"));
    let held = ours.lock([&b], &mut |_| ControlFlow::Break(())).unwrap();
    let lock = scene.dir.store().join(format!("{}.lock", b.to_basename()));
    assert_eq!(theirs.try_lock([&a, &b]).unwrap().unwrap_err(), lock);
    let mut waits = 0;
    let error = theirs
        .lock([&b, &a], &mut |path| {
            waits += 1;
            assert_eq!(path, lock);
            ControlFlow::Break(())
        })
        .unwrap_err();
    assert!(matches!(error, Error::Cancelled { .. }));
    assert_eq!(waits, 1);
    // The attempt has given back what it had.
    drop(ours.try_lock([&a]).unwrap().unwrap());
    assert!(lock.exists());
    held.release().unwrap();
    assert!(!lock.exists());
    theirs
        .try_lock([&a, &b])
        .unwrap()
        .unwrap()
        .release()
        .unwrap();
}

#[test]
fn a_wait_for_a_lock_ends_when_it_is_released() {
    let scene = Scene::new();
    let store = scene.open();
    let a = path('a', "a");
    let held = store.lock([&a], &mut |_| ControlFlow::Break(())).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let store = scene.open();
            store
                .lock([&a], &mut |_| ControlFlow::Continue(()))
                .unwrap()
                .release()
                .unwrap();
        });
        std::thread::sleep(Duration::from_millis(20));
        held.release().unwrap();
        waiting.join().unwrap();
    });
}

#[test]
fn a_valid_path_is_not_deleted_and_rubbish_is() {
    let scene = Scene::new();
    let store = scene.open();
    let (a, b) = (path('a', "a"), path('b', "b"));
    store.register([&registration(&a, &[])]).unwrap();
    for path in [&a, &b] {
        fs_err::create_dir_all(scene.dir.real(path).join("x/y")).unwrap();
    }
    assert!(matches!(store.delete_invalid(&a), Err(Error::Valid { .. })));
    store.delete_invalid(&b).unwrap();
    store.delete_invalid(&b).unwrap();
    assert!(scene.dir.real(&a).exists() && !scene.dir.real(&b).exists());
    let made = scene.dir.store().join("made");
    fs_err::create_dir(&made).unwrap();
    store.place(&made, &b).unwrap();
    store.sync_directory().unwrap();
    assert!(scene.dir.real(&b).is_dir());
}

fn temp_roots(scene: &Scene) -> Vec<(u32, Vec<u8>)> {
    fs_err::read_dir(scene.dir.temproots())
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let number = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
            (number, fs_err::read(path).unwrap())
        })
        .collect()
}

#[test]
fn temp_roots_are_listed_under_a_number_that_no_process_has() {
    let scene = Scene::new();
    let store = scene.open();
    let (a, b) = (path('a', "a"), path('b', "b"));
    store.add_temp_roots([&b, &a, &b]).unwrap();
    store.add_temp_roots([&a]).unwrap();
    let [(number, text)] = &temp_roots(&scene)[..] else {
        panic!("one file is expected")
    };
    assert!((1 << 22..1 << 31).contains(number));
    assert_eq!(*text, format!("{a}\0{b}\0").into_bytes());
    let file = fs_err::File::open(scene.dir.temproots().join(number.to_string())).unwrap();
    assert!(rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err());
    drop(store);
    assert!(temp_roots(&scene).is_empty());
}

#[test]
fn a_collector_at_work_is_told_before_a_root_counts() {
    let scene = Scene::new();
    let store = scene.open();
    let a = path('a', "a");
    let folder = scene.dir.state().join("gc-socket");
    fs_err::create_dir_all(&folder).unwrap();
    let lock = fs_err::File::create(scene.dir.state().join("gc.lock")).unwrap();
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();
    let listener = UnixListener::bind(folder.join("socket")).unwrap();
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let (mut first, _) = listener.accept().unwrap();
            // It ends before it answers: all is tried again.
            first.read_exact(&mut [0; 10]).unwrap();
            drop(first);
            let (mut second, _) = listener.accept().unwrap();
            let mut line = vec![0; a.to_absolute_path().len() + 1];
            second.read_exact(&mut line).unwrap();
            assert_eq!(line, format!("{a}\n").into_bytes());
            assert!(temp_roots(&scene).iter().all(|(_, text)| text.is_empty()));
            second.write_all(b"1").unwrap();
        });
        store.add_temp_roots([&a]).unwrap();
        collector.join().unwrap();
    });
    assert_eq!(temp_roots(&scene)[0].1, format!("{a}\0").into_bytes());
    drop(lock);
    let guard = store.gc_lock_shared().unwrap();
    let lock = fs_err::File::open(scene.dir.state().join("gc.lock")).unwrap();
    assert!(rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err());
    drop(guard);
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
}

#[test]
fn what_others_write_is_not_answered_from_memory() {
    let scene = Scene::new();
    let (ours, theirs) = (scene.open(), scene.open());
    let [a, b, c] = ['a', 'b', 'c'].map(|digit| path(digit, "x"));
    let base = [registration(&a, &[]), registration(&b, &[&a])];
    ours.register(&base).unwrap();
    let closure = |root: &StorePath| {
        let closure = ours.closure([root])?;
        Ok::<_, Error>(closure.into_keys().collect::<Vec<_>>())
    };
    assert_eq!(closure(&b).unwrap(), [a.clone(), b.clone()]);
    // What this store itself adds or changes.
    ours.register([&registration(&c, &[&b])]).unwrap();
    assert_eq!(closure(&c).unwrap(), [a.clone(), b.clone(), c.clone()]);
    let again = Registration {
        nar_size: 121,
        ..registration(&b, &[&a])
    };
    ours.register([&again]).unwrap();
    assert_eq!(ours.closure([&b]).unwrap()[&b].nar_size, Some(121));
    // What another adds, and what a collector takes.
    theirs.register([&registration(&b, &[&a, &b])]).unwrap();
    assert!(ours.closure([&b]).unwrap()[&b].references.contains(&b));
    let sql = scene.sql();
    sql.pragma_update(None, "foreign_keys", 1).unwrap();
    let delete = |path: &StorePath| {
        let sql = sql.execute("delete from ValidPaths where path = ?", [path.to_string()]);
        assert_eq!(sql.unwrap(), 1);
    };
    delete(&c);
    assert!(matches!(closure(&c), Err(Error::Invalid { path }) if path == c));
    assert_eq!(closure(&b).unwrap(), [a, b]);
}
