//! The demo's receiver where the effects of a daemon reach it.
//!
//! An op has the daemon's default network: that of the machine for a buildkitd, which has no other
//! here; the bridge for a dockerd, on which the daemon's side has the first address.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use fs_err as fs;

use super::Daemon;
use crate::support::{Place, run, until};

/// The secret that it asks for.
const TOKEN: &str = "token-of-the-demo-4f1c";

/// A running receiver.
pub(crate) struct Receiver {
    directory: PathBuf,
    host: String,
    port: u16,
    child: Child,
}

impl Receiver {
    /// The variable that the demo's effect has its token from, and its value.
    pub(crate) const TOKEN: (&'static str, &'static str) = ("DEMO_TOKEN", TOKEN);

    /// Starts one in the network of a daemon.
    pub(crate) fn start(place: &Place, daemon: &Daemon<'_>) -> Self {
        let directory = place.at("receiver");
        let host = host(daemon);
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/receiver.sh");
        let child = daemon
            .command(script)
            .arg(&directory)
            .args([&port.to_string(), TOKEN, &host])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let receiver = Self {
            directory,
            host,
            port,
            child,
        };
        let connect = ["-c", "exec 3<> /dev/tcp/$0/$1", &receiver.host];
        until("the receiver listens", || {
            let mut command = daemon.command("bash");
            let ran = run(command.args(connect).arg(receiver.port.to_string()));
            ran.status.success()
        });
        receiver
    }

    /// Where to publish, as an op names it.
    pub(crate) fn address(&self) -> String {
        format!("http://{}:{}/cgi-bin/publish", self.host, self.port)
    }

    /// What was published, in order: each with its revision.
    pub(crate) fn received(&self) -> Vec<(String, String)> {
        let taken = |number: u32| {
            let place = self.directory.join("received").join(number.to_string());
            let revision = fs::read_to_string(place.join("revision")).ok()?;
            let page = fs::read_to_string(place.join("index.html")).ok()?;
            Some((revision.trim().to_owned(), page))
        };
        (1..).map_while(taken).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn host(daemon: &Daemon<'_>) -> String {
    if !daemon.kind().is_docker() {
        return "127.0.0.1".to_owned();
    }
    let mut command = daemon.command("ip");
    let ran = run(command.args(["-4", "-o", "address", "show", "docker0"])).ok();
    let mut words = ran
        .stdout
        .split([' ', '/'])
        .skip_while(|word| *word != "inet");
    let address = words.nth(1);
    address
        .unwrap_or_else(|| panic!("the bridge has no address\n{}", ran.report()))
        .to_owned()
}
