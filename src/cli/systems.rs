//! What this machine can build, found out as Nix does: by its processor and `/dev/kvm`.

use crate::nix::derivation::{Kvm, Level, Systems};

/// The systems and features of this machine.
pub fn here() -> Systems {
    Systems::x86_64_linux(level(), kvm())
}

fn level() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        if has!("avx2") && has!("bmi1") && has!("bmi2") && has!("fma") && has!("movbe") {
            return Level::V3;
        }
        if has!("sse4.2") && has!("ssse3") && has!("popcnt") && has!("cmpxchg16b") {
            return Level::V2;
        }
    }
    Level::V1
}

fn kvm() -> Kvm {
    use rustix::fs::{Access, access};
    match access("/dev/kvm", Access::READ_OK | Access::WRITE_OK) {
        Ok(()) => Kvm::Usable,
        Err(_) => Kvm::Absent,
    }
}
