//! What is larger than usual, up to what the kernel and Nix allow and a little beyond.

use super::Case;
use super::scene::Scene;
use crate::support::{Ran, run};

pub(super) const CASES: &[(&str, Case)] = &[
    ("a name of 207 bytes", |scene| {
        build(scene, &named(207), &[])
    }),
    ("a name of 208 bytes", |scene| {
        build(scene, &named(208), &[])
    }),
    ("a source's name of 211 bytes", |scene| {
        build(scene, &sourced(211), &[])
    }),
    ("a source's name of 212 bytes", |scene| {
        build(scene, &sourced(212), &[])
    }),
    ("arguments of 2 MB", |scene| {
        let args = "[ \"-c\" \"echo > $out\" ] ++ builtins.genList (n: text 100000) 21";
        build(scene, &derivation("arguments", args), &[])
    }),
    ("an argument of 200 kB", |scene| {
        let args = "[ \"-c\" \"echo > $out\" (text 200000) ]";
        build(scene, &derivation("argument", args), &[])
    }),
    ("65 536 files in one output", |scene| {
        let script =
            "mkdir $out; cd $out; i=0; while [ $i -lt 65536 ]; do : > $i; i=$((i + 1)); done";
        build(
            scene,
            &derivation("files", &format!("[ \"-ec\" \"{script}\" ]")),
            &[],
        )
    }),
    ("a log line of 100 MB", |scene| {
        let script = "dd if=/dev/zero bs=1048576 count=100 | tr '\\\\0' x; echo > $out";
        build(
            scene,
            &derivation("line", &format!("[ \"-ec\" \"{script}\" ]")),
            &[],
        )
    }),
    ("a log of bytes that are no text", |scene| {
        let script = "head -c 100000 /dev/urandom; echo > $out";
        build(
            scene,
            &derivation("bytes", &format!("[ \"-ec\" \"{script}\" ]")),
            &["-L"],
        )
    }),
    ("0 jobs", |scene| {
        run(scene.build("hello").args(["-j", "0"]))
    }),
    ("more jobs than anybody has", |scene| {
        run(scene.build("hello").args(["-j", "100000"]))
    }),
];

fn derivation(name: &str, args: &str) -> String {
    format!(
        "let text = n: builtins.concatStringsSep \"\" (builtins.genList (_: \"x\") n); in derivation {{ \
         name = \"{name}\"; system = \"x86_64-linux\"; builder = \"/bin/sh\"; PATH = \"/bin\"; args = {args}; }}"
    )
}

fn named(length: usize) -> String {
    derivation(&"n".repeat(length), "[ \"-c\" \"echo > $out\" ]")
}

fn sourced(length: usize) -> String {
    let source = format!("builtins.toFile \"{}\" \"\"", "n".repeat(length));
    derivation(
        "sourced",
        &format!("[ \"-c\" \"cat ${{{source}}} > $out\" ]"),
    )
}

fn build(scene: &Scene<'_>, expression: &str, more: &[&str]) -> Ran {
    let arguments = [&["build", "--no-link", "--expr", expression], more].concat();
    run(&mut scene.nix.pontoon(&arguments))
}
