//! Narrow terminals, none, and readers that go away.

use super::Case;
use super::scene::Scene;
use crate::support::{Ran, run};

pub(super) const CASES: &[(&str, Case)] = &[
    ("a terminal of 20 columns", |scene| {
        terminal(scene, "stty cols 20 rows 5")
    }),
    ("a terminal of no size", |scene| {
        terminal(scene, "stty cols 0 rows 0")
    }),
    ("a terminal that does not exist (`TERM`)", |scene| {
        terminal(scene, "export TERM=no-such")
    }),
    ("stdin, stdout and stderr are closed", |scene| {
        shell(scene, "exec \"$@\" <&- >&- 2>&-")
    }),
    ("stdout is closed", |scene| {
        shell(scene, "exec \"$@\" --print-out-paths >&-")
    }),
    ("nobody reads stdout any more", |scene| {
        shell(
            scene,
            "{ \"$@\" --json; echo $? > code; } | :; exit $(cat code)",
        )
    }),
    ("nobody reads stderr any more", |scene| {
        shell(
            scene,
            "{ \"$@\" 3>&1 2>&3 >&-; echo $? > code; } | :; exit $(cat code)",
        )
    }),
    ("stdout is a full device", |scene| {
        shell(scene, "exec \"$@\" --print-out-paths > /dev/full")
    }),
];

/// In a terminal of its own, set up by a command; what it shows goes to standard output.
fn terminal(scene: &Scene<'_>, setup: &str) -> Ran {
    let pontoon = words(scene);
    let line = format!("{setup}; exec {}", pontoon.join(" "));
    let mut command = scene.place.command("script");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    run(command
        .env("TERM", "xterm")
        .env("NIX_CONF_DIR", scene.nix.configuration()))
}

fn shell(scene: &Scene<'_>, script: &str) -> Ran {
    let mut command = scene.place.command("sh");
    command.args(["-c", script, "sh"]).args(words(scene));
    run(command.env("NIX_CONF_DIR", scene.nix.configuration()))
}

fn words(scene: &Scene<'_>) -> Vec<String> {
    let pontoon = scene.build("hello");
    std::iter::once(pontoon.get_program())
        .chain(pontoon.get_args())
        .map(|word| word.to_str().expect("test paths are UTF-8").to_owned())
        .collect()
}
