//! Programs for another kind of machine.

use std::path::Path;

/// Where an ELF file has its kind of machine, and that of ARM's 64 bits.
const MACHINE: (usize, [u8; 2]) = (18, [183, 0]);

/// Makes a program of this machine one that it cannot execute.
pub(crate) fn make_foreign(program: &Path) {
    let mut bytes = fs_err::read(program).unwrap();
    assert!(bytes.starts_with(b"\x7fELF"), "{}", program.display());
    let (at, machine) = MACHINE;
    bytes[at..at + 2].copy_from_slice(&machine);
    let permissions = fs_err::metadata(program).unwrap().permissions();
    // A file that is executed cannot be written.
    fs_err::remove_file(program).unwrap();
    fs_err::write(program, bytes).unwrap();
    fs_err::set_permissions(program, permissions).unwrap();
}
