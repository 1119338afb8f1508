//! `memcheck`: runs a program and reports the memory errors it makes.

fn main() -> std::process::ExitCode {
    memcheck_cli::run(include_bytes!(concat!(env!("OUT_DIR"), "/shim.so")))
}
