//! Compiles the BuildKit messages in `proto/` without `protoc`.

fn main() {}
