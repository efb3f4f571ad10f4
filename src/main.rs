//! Starts Pontoon: everything is in the library.

fn main() -> std::process::ExitCode {
    pontoon::cli::main()
}
