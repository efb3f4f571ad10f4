//! Starts Pontoon: everything is in the library.

/// A plan is millions of small pieces, made by several threads; with the system's allocator a third
/// of its time was spent there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    pontoon::cli::main()
}
