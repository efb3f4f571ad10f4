//! Trees against Nix's archives, and trees that mean harm.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/nar")
}

#[test]
fn every_archive_is_restored_and_dumped_again() {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs_err::read_dir(vectors()).unwrap() {
        let source = entry.unwrap().path();
        let bytes = fs_err::read(&source).unwrap();
        let place = folder.path().join(source.file_name().unwrap());
        let restored = restore(bytes.as_slice(), &place).unwrap();
        assert_eq!(restored.nar_size, bytes.len() as u64);
        let mut again = Vec::new();
        dump(&place, &mut again).unwrap();
        assert!(again == bytes, "{}", source.display());
        assert_eq!(
            hash(&place).unwrap(),
            (restored.nar_hash, restored.nar_size)
        );
        assert_canonical(&place);
        sync(&place).unwrap();
        remove(&place).unwrap();
        assert!(place.symlink_metadata().is_err());
    }
}

fn assert_canonical(path: &Path) {
    let metadata = path.symlink_metadata().unwrap();
    assert_eq!(
        (metadata.mtime(), metadata.mtime_nsec()),
        (1, 0),
        "{}",
        path.display()
    );
    if !metadata.is_symlink() {
        assert!(
            matches!(metadata.mode() & 0o7777, 0o444 | 0o555),
            "{}",
            path.display()
        );
    }
    if metadata.is_dir() {
        for entry in fs_err::read_dir(path).unwrap() {
            assert_canonical(&entry.unwrap().path());
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_a_builder_made_becomes_canonical() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    fs_err::create_dir_all(out.join("closed/inner")).unwrap();
    fs_err::write(out.join("plain"), "x").unwrap();
    set_mode(&out.join("plain"), 0o2666);
    fs_err::write(out.join("tool"), "x").unwrap();
    set_mode(&out.join("tool"), 0o4711);
    fs_err::write(out.join("secret"), "x").unwrap();
    set_mode(&out.join("secret"), 0);
    fs_err::hard_link(out.join("tool"), out.join("tool2")).unwrap();
    symlink("/etc/passwd", out.join("link")).unwrap();
    set_mode(&out.join("closed"), 0);
    let before = fs_err::metadata("/etc/passwd").unwrap().mtime();
    canonicalise(&out, None, &mut InodesSeen::default()).unwrap();
    assert_canonical(&out);
    assert_eq!(
        out.join("tool").symlink_metadata().unwrap().mode() & 0o7777,
        0o555
    );
    assert_eq!(fs_err::metadata("/etc/passwd").unwrap().mtime(), before);
    remove(&out).unwrap();
}

#[test]
fn unsupported_types_and_foreign_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    fs_err::create_dir(&out).unwrap();
    rustix::fs::mkfifoat(CWD, out.join("pipe"), Mode::from_raw_mode(0o600)).unwrap();
    let error = canonicalise(&out, None, &mut InodesSeen::default()).unwrap_err();
    assert!(matches!(error, Error::Type { .. }), "{error}");
    assert!(matches!(hash(&out).unwrap_err(), Error::Type { .. }));

    let stranger = rustix::process::geteuid().as_raw() + 4711;
    let error = canonicalise(&out, Some(stranger), &mut InodesSeen::default()).unwrap_err();
    assert!(matches!(error, Error::Ownership { .. }), "{error}");
}

#[test]
fn attributes_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs_err::write(&file, "x").unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    if rustix::fs::setxattr(&file, "user.note", b"1", flags).is_err() {
        return;
    }
    canonicalise(&file, None, &mut InodesSeen::default()).unwrap();
    assert_eq!(rustix::fs::listxattr(&file, &mut [0_u8; 0]).unwrap(), 0);
}

#[test]
fn removal_copes_with_depth_and_closed_directories() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().join("top");
    fs_err::create_dir(&top).unwrap();
    let mut handle = rustix::fs::open(&top, DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..1500 {
        rustix::fs::mkdirat(&handle, "d", Mode::from_raw_mode(0o755)).unwrap();
        let inner = rustix::fs::openat(&handle, "d", DIRECTORY, Mode::empty()).unwrap();
        rustix::fs::fchmod(&handle, Mode::empty()).unwrap();
        handle = inner;
    }
    let kept = folder.path().join("kept");
    fs_err::write(&kept, "x").unwrap();
    rustix::fs::symlinkat(&kept, &handle, "link").unwrap();
    remove(&top).unwrap();
    assert!(!top.exists());
    assert!(kept.exists());
    remove(&top).unwrap();
}

#[test]
fn a_tree_too_deep_for_an_archive_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut path = folder.path().join("top");
    for _ in 0..70 {
        path.push("d");
    }
    fs_err::create_dir_all(&path).unwrap();
    let top = folder.path().join("top");
    let error = canonicalise(&top, None, &mut InodesSeen::default()).unwrap_err();
    assert!(matches!(error, Error::Depth { .. }), "{error}");
    assert!(hash(&top).is_err());
}
