//! Who builders are on the machine: never user 0, and never the same user twice where there are two.

use std::collections::BTreeSet;
use std::process::Command;

use rustix::process::Signal;

use crate::support::{Place, Running, User, until};

/// Two builders that stay until they are killed; the marker tells them from others'.
fn sleepers(place: &Place, marker: &str) -> std::path::PathBuf {
    let expression = format!(
        r#"map (name: derivation {{
          inherit name; system = "x86_64-linux"; builder = "/bin/sh"; MARKER = "{marker}";
          args = [ "-c" "/bin/sleep 600" ];
        }}) [ "first" "second" ]"#
    );
    place.write("sleepers.nix", expression)
}

/// The user ids, as the machine sees them, of every process with the marker in its environment.
fn users_of(marker: &str) -> BTreeSet<u32> {
    let mut users = BTreeSet::new();
    for entry in fs_err::read_dir("/proc").unwrap().flatten() {
        let place = entry.path();
        let environment = fs_err::read(place.join("environ")).unwrap_or_default();
        if !String::from_utf8_lossy(&environment).contains(&format!("MARKER={marker}")) {
            continue;
        }
        let status = fs_err::read_to_string(place.join("status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
        // Real, effective, saved, file system: a builder is one user in all of them.
        users.extend(
            line.unwrap_or_default()
                .split_whitespace()
                .map(|id| id.parse::<u32>().unwrap()),
        );
    }
    users
}

/// Runs two builders at once and returns who they are.
fn builders(place: &Place, marker: &str, mut pontoon: Command) -> BTreeSet<u32> {
    let file = sleepers(place, marker);
    let busybox = ["/bin/sh=/bin/busybox", "/bin/sleep=/bin/busybox"].join(" ");
    pontoon.args(["-j", "2", "--no-link", "--sandbox-paths", &busybox, "-f"]);
    pontoon.arg(file);
    let running = Running::start(&mut pontoon);
    let mut most = BTreeSet::new();
    until("both builders run", || {
        let users = users_of(marker);
        if users.len() >= most.len() {
            most = users;
        }
        count_of(marker) >= 2
    });
    most.extend(users_of(marker));
    running.signal(Signal::TERM);
    running.end().code(143);
    place.assert_no_process_left(std::time::Duration::from_secs(5));
    most
}

/// How many builders with the marker run: their first process is the shell or what it became.
fn count_of(marker: &str) -> usize {
    let entries = fs_err::read_dir("/proc").unwrap().flatten();
    entries
        .filter(|entry| {
            let environment = fs_err::read(entry.path().join("environ")).unwrap_or_default();
            let arguments = fs_err::read(entry.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&environment).contains(&format!("MARKER={marker}"))
                && arguments.starts_with(b"/bin/sleep")
        })
        .count()
}

fn as_root(shape: &str) {
    let place = Place::new();
    let marker = format!("root-{shape}-{}", std::process::id());
    let store = place.at("store").display().to_string();
    let pontoon = place.pontoon(&["build", "--store", &store, "--shape", shape]);
    let users = builders(&place, &marker, pontoon);
    assert_eq!(users.len(), 2, "two builders, two users: {users:?}");
    assert!(
        !users.contains(&0),
        "a builder is the machine's root: {users:?}"
    );
}

fn as_user_with_range(shape: &str) {
    let place = Place::new();
    let user = User::with_range(&place);
    let marker = format!("range-{shape}-{}", std::process::id());
    let store = user.home().join("store").display().to_string();
    let pontoon = user.pontoon(&["build", "--store", &store, "--shape", shape]);
    let users = builders(&place, &marker, pontoon);
    assert_eq!(users.len(), 2, "two builders, two users: {users:?}");
    assert!(
        !users.contains(&0) && !users.contains(&user.uid()),
        "{users:?}"
    );
}

#[test]
fn two_builders_of_root_are_two_users_in_strong() {
    as_root("strong");
}

#[test]
fn two_builders_of_root_are_two_users_in_plain() {
    as_root("plain");
}

#[test]
fn two_builders_of_a_user_with_a_range_are_two_users_in_strong() {
    as_user_with_range("strong");
}

#[test]
fn two_builders_of_a_user_with_a_range_are_two_users_in_plain() {
    as_user_with_range("plain");
}

#[test]
fn a_user_without_a_range_builds_as_himself() {
    let place = Place::new();
    let user = User::without_range(&place);
    let marker = format!("single-{}", std::process::id());
    let store = user.home().join("store").display().to_string();
    let pontoon = user.pontoon(&["build", "--store", &store]);
    let users = builders(&place, &marker, pontoon);
    assert_eq!(users, BTreeSet::from([user.uid()]));
}

#[test]
fn a_user_without_a_range_is_told_that_plain_needs_one() {
    let place = Place::new();
    let user = User::without_range(&place);
    let file = sleepers(&place, "never");
    let store = user.home().join("store").display().to_string();
    let file = file.display().to_string();
    let mut pontoon = user.pontoon(&[
        "build",
        "--no-link",
        "--store",
        &store,
        "--shape",
        "plain",
        "-f",
        &file,
    ]);
    crate::support::run(&mut pontoon)
        .code(7)
        .says("subordinate");
}
