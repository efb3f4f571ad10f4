//! A room whose root is an image: what it has of the image, and what in its place.

use std::path::Path;

use crate::agent::etc::{GROUP, PASSWD};
use crate::agent::room::{RoomError, prepare};
use crate::agent::users::PLAIN_BASE;
use crate::sandbox::{Access, Entry, Missing};

/// What of an image a room has in its own way.
const OF_THE_ROOM: [&str; 8] = [
    "build", "dev", "nix", ".pontoon", "proc", "run", "sys", "tmp",
];

/// The users of every room whose root is an image: who builders are in a strong one, and who they
/// may be in a plain one.
pub fn passwd() -> String {
    let plain = (PLAIN_BASE..PLAIN_BASE + 64)
        .map(|uid| format!("nixbld{uid}:x:{uid}:{uid}:Nix build user:/build:/noshell\n"));
    std::iter::once(PASSWD.to_owned()).chain(plain).collect()
}

/// Their groups.
pub fn group() -> String {
    let plain = (PLAIN_BASE..PLAIN_BASE + 64).map(|gid| format!("nixbld{gid}:!:{gid}:\n"));
    std::iter::once(GROUP.to_owned()).chain(plain).collect()
}

/// What a room has of the image at a root: all of it, with what is mounted below, and read-only.
pub(super) fn entries(root: &Path) -> Result<Vec<Entry>, RoomError> {
    let entries = fs_err::read_dir(root).map_err(|error| prepare(root, error))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| prepare(root, error))?;
        let name = entry.file_name();
        if OF_THE_ROOM.iter().any(|own| name == *own) {
            continue;
        }
        let (source, path) = (entry.path(), Path::new("/").join(name));
        found.push(match source.read_link() {
            Ok(target) => Entry::Symlink { path, target },
            Err(_) => Entry::Bind {
                source,
                target: path,
                access: Access::ReadOnly,
                missing: Missing::Fails,
            },
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_has_all_of_an_image_but_what_is_its_own() {
        let place = tempfile::tempdir().unwrap();
        for name in ["etc", "usr", "tmp", "proc", ".pontoon", "nix"] {
            fs_err::create_dir(place.path().join(name)).unwrap();
        }
        fs_err::write(place.path().join("start"), "").unwrap();
        std::os::unix::fs::symlink("usr/bin", place.path().join("bin")).unwrap();
        let mut seen: Vec<String> = entries(place.path())
            .unwrap()
            .into_iter()
            .map(|entry| match entry {
                Entry::Symlink { path, target } => {
                    format!("{} -> {}", path.display(), target.display())
                }
                Entry::Bind { target, access, .. } => {
                    assert_eq!(access, Access::ReadOnly);
                    target.display().to_string()
                }
                other => panic!("{other:?}"),
            })
            .collect();
        seen.sort();
        assert_eq!(seen, ["/bin -> usr/bin", "/etc", "/start", "/usr"]);
    }

    #[test]
    fn whoever_an_effect_runs_as_has_a_name() {
        let (users, groups) = (passwd(), group());
        for id in [0, 1000, PLAIN_BASE, PLAIN_BASE + 63] {
            let line = format!(":x:{id}:");
            assert_eq!(users.matches(&line).count(), 1, "{line}");
        }
        assert!(groups.contains("\nnixbld52000:!:52000:\n"), "{groups}");
    }
}
