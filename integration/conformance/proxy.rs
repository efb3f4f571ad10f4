//! A proxy in the tunnel: it delays, splits and joins bytes, and never half-closes, as a daemon
//! between agents and conductor does.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::super::support::{Place, Seed, run};

/// A proxy that runs until the test ends.
pub(crate) struct Proxy {
    front: PathBuf,
    back: PathBuf,
    carried: Arc<AtomicUsize>,
}

impl Proxy {
    /// Listens in a directory; each proxy has sockets of its own there.
    pub(crate) fn start(directory: &Path) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let front = directory.join(format!("front-{number}"));
        let back = directory.join(format!("back-{number}"));
        let carried = Arc::new(AtomicUsize::new(0));
        let listener = UnixListener::bind(&front).unwrap();
        // Agents are other users.
        fs_err::set_permissions(&front, std::fs::Permissions::from_mode(0o777)).unwrap();
        let (target, count) = (back.clone(), carried.clone());
        std::thread::spawn(move || {
            for agent in listener.incoming() {
                carry(&agent.unwrap(), &target, &count);
            }
        });
        Self {
            front,
            back,
            carried,
        }
    }

    /// What `PONTOON_TUNNEL_PROXY` is to be.
    pub(crate) fn variable(&self) -> String {
        format!("{}:{}", self.front.display(), self.back.display())
    }

    /// How many bytes went through.
    pub(crate) fn carried(&self) -> usize {
        self.carried.load(Ordering::Relaxed)
    }
}

fn carry(agent: &UnixStream, target: &Path, count: &Arc<AtomicUsize>) {
    let Ok(conductor) = UnixStream::connect(target) else {
        return;
    };
    let streams = [(agent, &conductor, "up"), (&conductor, agent, "down")];
    for (from, to, name) in streams {
        let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        let (seed, count) = (Seed::new(name), count.clone());
        std::thread::spawn(move || copy(from, to, seed, &count));
    }
}

/// Copies until either end is gone; then both connections end as a whole.
fn copy(mut from: UnixStream, mut to: UnixStream, mut seed: Seed, count: &AtomicUsize) {
    let mut buffer = vec![0; 64 << 10];
    'open: loop {
        // A wait lets the sender's next bytes join these.
        if seed.chance(10) {
            std::thread::sleep(Duration::from_micros(seed.next() % 3000));
        }
        let Ok(read @ 1..) = from.read(&mut buffer) else {
            break;
        };
        count.fetch_add(read, Ordering::Relaxed);
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            let largest = *seed.one_of(&[1, 7, 4096, 64 << 10]);
            let (piece, later) = rest.split_at(rest.len().min(1 + seed.below(largest)));
            if to.write_all(piece).is_err() {
                break 'open;
            }
            rest = later;
        }
    }
    for stream in [from, to] {
        // It may be closed already.
        stream.shutdown(std::net::Shutdown::Both).ok();
    }
}

#[test]
fn a_proxy_that_makes_no_sense_is_refused() {
    let place = Place::new();
    let drv = "/nix/store/00000000000000000000000000000000-x.drv";
    for value in ["/front", "/front:back", ":", "front:/back"] {
        let mut command = place.pontoon(&["build", drv, "--no-link", "--store"]);
        command.arg(place.at("store"));
        run(command.env("PONTOON_TUNNEL_PROXY", value))
            .code(2)
            .says("FRONT:BACK");
    }
}
