//! A proxy in the tunnel: it delays, splits and joins bytes, and never half-closes, as a daemon
//! between agents and conductor does. It can also stop in the middle, for something to happen then.

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
    traffic: Arc<Traffic>,
}

/// What went through, and how much may.
struct Traffic {
    carried: AtomicUsize,
    limit: AtomicUsize,
}

impl Proxy {
    /// Listens in a directory; each proxy has sockets of its own there.
    pub(crate) fn start(directory: &Path) -> Self {
        Self::holding(directory, usize::MAX)
    }

    /// The same, but after so many bytes it holds everything until it is let go.
    pub(crate) fn holding(directory: &Path, limit: usize) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let front = directory.join(format!("front-{number}"));
        let back = directory.join(format!("back-{number}"));
        let traffic = Arc::new(Traffic {
            carried: AtomicUsize::new(0),
            limit: AtomicUsize::new(limit),
        });
        let listener = UnixListener::bind(&front).unwrap();
        // Agents are other users.
        fs_err::set_permissions(&front, std::fs::Permissions::from_mode(0o777)).unwrap();
        let (target, shared) = (back.clone(), traffic.clone());
        std::thread::spawn(move || {
            for agent in listener.incoming() {
                carry(&agent.unwrap(), &target, &shared);
            }
        });
        Self {
            front,
            back,
            traffic,
        }
    }

    /// What `PONTOON_TUNNEL_PROXY` is to be.
    pub(crate) fn variable(&self) -> String {
        format!("{}:{}", self.front.display(), self.back.display())
    }

    /// How many bytes went through.
    pub(crate) fn carried(&self) -> usize {
        self.traffic.carried.load(Ordering::Relaxed)
    }

    /// Lets go of what it holds, for good.
    pub(crate) fn let_go(&self) {
        self.traffic.limit.store(usize::MAX, Ordering::Relaxed);
    }
}

impl Traffic {
    /// Counts bytes that have come, and waits until they may go on.
    fn pass(&self, bytes: usize) {
        self.carried.fetch_add(bytes, Ordering::Relaxed);
        while self.carried.load(Ordering::Relaxed) >= self.limit.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn carry(agent: &UnixStream, target: &Path, traffic: &Arc<Traffic>) {
    let Ok(conductor) = UnixStream::connect(target) else {
        return;
    };
    let streams = [(agent, &conductor, "up"), (&conductor, agent, "down")];
    for (from, to, name) in streams {
        let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        let (seed, traffic) = (Seed::new(name), traffic.clone());
        std::thread::spawn(move || copy(from, to, seed, &traffic));
    }
}

/// Copies until either end is gone; then both connections end as a whole.
fn copy(mut from: UnixStream, mut to: UnixStream, mut seed: Seed, traffic: &Traffic) {
    let mut buffer = vec![0; 64 << 10];
    'open: loop {
        // A wait lets the sender's next bytes join these.
        if seed.chance(10) {
            std::thread::sleep(Duration::from_micros(seed.next() % 3000));
        }
        let Ok(read @ 1..) = from.read(&mut buffer) else {
            break;
        };
        traffic.pass(read);
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
