//! `.drv` files that are not what they should be, and outputs that others have touched.

use fs_err as fs;

use super::Case;
use super::scene::Scene;
use crate::support::{Ran, make_foreign, run};

pub(super) const CASES: &[(&str, Case)] = &[
    ("a `.drv` that is nowhere", |scene| {
        build(
            scene,
            "/nix/store/0c1f2y5xsbc1vd5xnwhi3pd3jxh1hl9f-gone.drv",
        )
    }),
    ("a `.drv` that was cut off", |scene| {
        damaged(scene, |bytes| bytes[..bytes.len() / 2].to_vec())
    }),
    ("a `.drv` with other bytes in it", |scene| {
        damaged(scene, |_| b"nonsense".to_vec())
    }),
    (
        "a `.drv` whose output path does not follow from it",
        |scene| {
            damaged(scene, |bytes| {
                String::from_utf8(bytes)
                    .unwrap()
                    .replace("echo hello", "echo HELLO")
                    .into_bytes()
            })
        },
    ),
    ("a `.drv` that needs itself", cycle),
    ("a derivation for another system", |scene| {
        run(&mut scene.build("elsewhere"))
    }),
    ("something unknown lies where an output will be", |scene| {
        let path = output(scene, "hello");
        let place = scene.nix.physical(&path);
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("left"), "over").unwrap();
        let ran = run(&mut scene.build("hello"));
        assert_eq!(fs::read_to_string(place).unwrap(), "hello\n");
        ran
    }),
    ("a file lies where an output will be", |scene| {
        let place = scene.nix.physical(&output(scene, "tree"));
        fs::write(&place, "left over").unwrap();
        let ran = run(&mut scene.build("tree"));
        assert!(place.join("bin/sh").exists(), "{}", ran.report());
        ran
    }),
    ("a valid input has lost its file", |scene| {
        lost(scene, "hello", "behind")
    }),
    ("a valid input has lost its directory", |scene| {
        lost(scene, "tree", "behind-tree")
    }),
    ("a builder is for another kind of machine", |scene| {
        let program = scene.place.at("foreign");
        fs::copy("/bin/busybox", &program).unwrap();
        make_foreign(&program);
        run(&mut scene.build("foreign"))
    }),
    ("a builder fails", |scene| run(&mut scene.build("failing"))),
];

fn build(scene: &Scene<'_>, drv: &str) -> Ran {
    run(&mut scene.nix.pontoon(&["build", "--no-link", drv]))
}

/// Builds a `.drv` after its file has changed; it is put back afterwards, for Nix would object.
fn damaged(scene: &Scene<'_>, change: fn(Vec<u8>) -> Vec<u8>) -> Ran {
    let drv = scene.drv("hello");
    let whole = fs::read(scene.nix.physical(&drv)).unwrap();
    scene.damage(&drv, change);
    let ran = build(scene, &drv);
    restore(scene, &drv, whole);
    ran
}

/// As Nix leaves a file in the store.
fn restore(scene: &Scene<'_>, path: &str, content: Vec<u8>) {
    use std::os::unix::fs::PermissionsExt;
    scene.damage(path, |_| content);
    let place = scene.nix.physical(path);
    fs::set_permissions(&place, std::fs::Permissions::from_mode(0o444)).unwrap();
    let ran = run(scene.place.command("touch").args(["-d", "@1"]).arg(&place));
    ran.ok();
}

/// Nix would not write it: its path is made from what it needs. But a file can hold anything.
fn cycle(scene: &Scene<'_>) -> Ran {
    let behind = scene.drv("behind");
    let hello = scene.drv("hello");
    let whole = fs::read(scene.nix.physical(&hello)).unwrap();
    let input = format!("[(\"{behind}\",[\"out\"])]");
    scene.damage(&hello, |bytes| {
        let text = String::from_utf8(bytes).unwrap();
        let (outputs, rest) = text.split_once("],[],").unwrap();
        format!("{outputs}],{input},{rest}").into_bytes()
    });
    let ran = build(scene, &behind);
    restore(scene, &hello, whole);
    ran
}

fn output(scene: &Scene<'_>, attribute: &str) -> String {
    let drv = scene.drv(attribute);
    let query = ["--query", "--outputs", drv.as_str()];
    let ran = run(&mut scene.nix.command("nix-store", &query)).ok();
    ran.stdout.trim().to_owned()
}

fn lost(scene: &Scene<'_>, input: &str, wanted: &str) -> Ran {
    let path = scene.built(input);
    let place = scene.nix.physical(&path);
    let kept = scene.place.at("kept");
    fs::rename(&place, &kept).unwrap();
    let ran = run(&mut scene.build(wanted));
    // Nothing of ours may have taken its place.
    assert!(!place.exists(), "{}", ran.report());
    fs::rename(&kept, &place).unwrap();
    ran
}
