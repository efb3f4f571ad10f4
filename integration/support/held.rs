//! A derivation whose builder runs until the test lets it go.

use std::io::Write as _;
use std::path::PathBuf;

use fs_err as fs;

use super::{Place, run, until};

/// A pair of pipes that a builder opens: one to say that it runs, one to be let go.
///
/// The builder sees their directory as a sandbox path (see [`Held::sandbox_path`]), and its
/// script holds [`Held::SCRIPT`].
pub(crate) struct Held {
    dir: PathBuf,
}

impl Held {
    /// What a builder's shell runs to be held.
    pub(crate) const SCRIPT: &'static str = "echo runs > /held/runs; read word < /held/go";

    /// Makes the pipes, open to every user.
    pub(crate) fn new(place: &Place) -> Self {
        let dir = place.at("held");
        fs::create_dir(&dir).unwrap();
        for name in ["runs", "go"] {
            run(place
                .command("mkfifo")
                .args(["-m", "666"])
                .arg(dir.join(name)))
            .ok();
        }
        Self { dir }
    }

    /// The sandbox path, as `sandbox-paths` has it.
    pub(crate) fn sandbox_path(&self) -> String {
        format!("/held={}", self.dir.display())
    }

    /// Waits until a builder is held.
    pub(crate) fn wait(&self) {
        let pipe = self.dir.join("runs");
        // Opening blocks until the builder opens its end: not for ever, so in a thread.
        let reader = std::thread::spawn(move || fs::read_to_string(pipe));
        until("the held builder runs", || reader.is_finished());
        assert_eq!(reader.join().expect("it does not panic").unwrap(), "runs\n");
    }

    /// Lets the builder go.
    pub(crate) fn release(&self) {
        // Open for reading too, it does not block where the builder is gone.
        let mut pipe = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.dir.join("go"))
            .unwrap();
        pipe.write_all(b"go\n").unwrap();
        // Closing our end before the builder read would lose the word.
        until("the builder has read", || {
            rustix::io::ioctl_fionread(&pipe).is_ok_and(|waiting| waiting == 0)
        });
    }
}
