//! A registry where a daemon can reach it: Debian's `docker-registry`, on loopback.

use std::process::{Child, Stdio};

use fs_err as fs;

use super::{Daemon, Image, docker};
use crate::support::{Place, until};

/// A running registry.
pub(crate) struct Registry<'p> {
    place: &'p Place,
    address: String,
    child: Child,
}

/// Who may pull where a password is asked for, and the password.
pub(crate) const USER: (&str, &str) = ("somebody", "secret-word");

/// The same, as `bcrypt` has it.
const HASHED: &str = "somebody:$2b$05$abcdefghijklmnopqrstuuUOabO4v2PoT/v47Y.znQK.9MsMDnesq\n";

impl<'p> Registry<'p> {
    /// Starts one in the network of a daemon, open to all.
    pub(crate) fn start(place: &'p Place, daemon: &Daemon<'_>) -> Self {
        Self::listen(place, daemon, "")
    }

    /// Starts one that serves [`USER`] alone.
    pub(crate) fn with_password(place: &'p Place, daemon: &Daemon<'_>) -> Self {
        let file = place.write("registry/htpasswd", HASHED);
        let asked = format!(
            "auth:\n  htpasswd:\n    realm: tests\n    path: {}\n",
            file.display()
        );
        Self::listen(place, daemon, &asked)
    }

    fn listen(place: &'p Place, daemon: &Daemon<'_>, asked: &str) -> Self {
        let images = place.at("registry/images");
        fs::create_dir_all(&images).unwrap();
        let configuration = place.write(
            "registry/config.yml",
            format!(
                "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
                 http:\n  addr: 127.0.0.1:0\n{asked}",
                images.display()
            ),
        );
        let log = fs::File::create(place.at("registry/log")).unwrap();
        let child = daemon
            .command(docker::debian().join("usr/bin/docker-registry"))
            .arg("serve")
            .arg(configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.into_parts().0)
            .spawn()
            .unwrap();
        let mut registry = Self {
            place,
            address: String::new(),
            child,
        };
        until("the registry listens", || {
            registry.address = registry.listens_on().unwrap_or_default();
            !registry.address.is_empty()
        });
        registry
    }

    /// `HOST:PORT`, as the daemon names it.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Puts an image into it; returns its name with the address, and without a digest.
    pub(crate) fn add(&self, image: &Image, name: &str, tag: &str) -> String {
        image.store(&self.place.at("registry/images"), name, tag);
        format!("{}/{name}:{tag}", self.address)
    }

    fn listens_on(&self) -> Option<String> {
        let log = fs::read_to_string(self.place.at("registry/log")).ok()?;
        let after = log.split_once("listening on ")?.1;
        let address = after.split(['"', '\n', ' ']).next()?;
        Some(address.to_owned())
    }
}

impl Drop for Registry<'_> {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
