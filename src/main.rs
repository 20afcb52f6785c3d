//! The `shakedown` binary: mimalloc as the global allocator, and the command line.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    shakedown::cli::main(std::env::args_os().collect())
}
