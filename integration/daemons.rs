//! The daemons of the tests themselves: each kind starts, runs an op of a foreign build from an
//! image of a registry beside it, says what it ran and keeps, and leaves nothing behind.

use std::time::Duration;

use super::support::{Daemon, Image, Kind, Place, Ran, Registry, USER, run};

/// Builds what is nobody's in particular: a file made from an image, with a cache mount in use.
fn foreign_build(place: &Place, daemon: &Daemon<'_>, image: &str, more: &[&str]) -> Ran {
    let context = place.at("foreign");
    place.write(
        "foreign/Dockerfile",
        format!(
            "FROM {image}\nRUN --mount=type=cache,target=/c,id=foreign \
             [\"/bin/sh\", \"-c\", \"cat /etc/image >> /c/marks; echo found $(cat /c/marks)\"]\n"
        ),
    );
    let mut command = if daemon.kind().is_docker() {
        daemon.docker(&["build", "--progress", "plain"])
    } else {
        let mut command = daemon.buildctl(&[
            "build",
            "--progress",
            "plain",
            "--frontend",
            "dockerfile.v0",
        ]);
        for name in ["context", "dockerfile"] {
            command.arg("--local");
            command.arg(format!("{name}={}", context.display()));
        }
        command
    };
    command.args(more);
    if daemon.kind().is_docker() {
        command.arg(&context);
    }
    run(&mut command)
}

fn starts_builds_and_ends(kind: Kind) {
    let place = Place::new();
    {
        let mut daemon = Daemon::of(kind, &place);
        let registry = Registry::start(&place, &daemon);
        let image = registry.add(
            &Image::busybox(&place, "marked", &[]),
            "test/busybox",
            "one",
        );
        let built = foreign_build(&place, &daemon, &image, &[]).ok();
        assert!(built.stderr.contains("found marked"), "{}", built.report());
        assert_eq!(daemon.ops().len(), 1, "{:?}", daemon.ops());
        let mounts = |daemon: &Daemon<'_>| {
            let records = daemon.records();
            let is_mount = |what: &&String| what.starts_with("exec.cachemount: ");
            records.values().filter(is_mount).count()
        };
        assert_eq!(mounts(&daemon), 1, "{:?}", daemon.records());
        daemon.kill();
        daemon.restart();
        assert_eq!(mounts(&daemon), 1, "{:?}", daemon.records());
        let again = foreign_build(&place, &daemon, &image, &["--no-cache"]).ok();
        assert!(again.stderr.contains("found marked"), "{}", again.report());
        daemon.stop();
    }
    place.assert_no_process_left(Duration::from_secs(5));
}

#[test]
fn buildkitd_starts_builds_and_ends() {
    starts_builds_and_ends(Kind::BuildKit);
}

#[test]
fn dockerd_20_starts_builds_and_ends() {
    starts_builds_and_ends(Kind::Docker20);
}

#[test]
fn dockerd_29_starts_builds_and_ends() {
    starts_builds_and_ends(Kind::Docker29);
}

#[test]
fn a_registry_asks_for_a_password() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let registry = Registry::with_password(&place, &daemon);
    let made = Image::busybox(&place, "kept", &[]);
    registry.add(&made, "test/kept", "one");
    let image = format!("{}/test/kept@{}", registry.address(), made.digest());
    let refused = foreign_build(&place, &daemon, &image, &[]).code(1);
    assert!(refused.stderr.contains("401"), "{}", refused.report());
    // Who logs in is in the configuration of Docker's client, and in `buildctl`'s.
    let (user, password) = USER;
    let mut encode = place.command("base64");
    let encoded = run(encode.arg(place.write("login", format!("{user}:{password}")))).ok();
    let logins =
        serde_json::json!({ "auths": { registry.address(): { "auth": encoded.stdout.trim() } } });
    place.write("home/.docker/config.json", logins.to_string());
    let built = foreign_build(&place, &daemon, &image, &[]).ok();
    assert!(built.stderr.contains("found kept"), "{}", built.report());
}

#[test]
fn a_layout_is_an_image_without_a_registry() {
    let place = Place::new();
    let daemon = Daemon::start(&place);
    let image = Image::busybox(&place, "laid", &["NAME=value"]);
    let layout = image.layout(&place, "layout");
    let from = format!("laid@{}", image.digest());
    let source = format!("oci-layout://{from}");
    let option = format!("context:laid={source}");
    let layout = format!("laid={}", layout.display());
    let named = ["--opt", &option, "--oci-layout", &layout];
    let built = foreign_build(&place, &daemon, "laid", &named).ok();
    assert!(built.stderr.contains("found laid"), "{}", built.report());
}

#[test]
fn a_dockerd_without_a_bridge_has_no_default_network() {
    let place = Place::new();
    let daemon = Daemon::of(Kind::Docker20Bare, &place);
    let registry = Registry::start(&place, &daemon);
    let image = Image::busybox(&place, "bare", &[]);
    let image = registry.add(&image, "test/bare", "one");
    let refused = foreign_build(&place, &daemon, &image, &[]).code(1);
    let said = "network bridge not found";
    assert!(refused.stderr.contains(said), "{}", refused.report());
    let built = foreign_build(&place, &daemon, &image, &["--network", "none"]).ok();
    assert!(built.stderr.contains("found bare"), "{}", built.report());
}
