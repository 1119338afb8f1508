//! `memcheck`: runs a program and reports the memory errors it makes.

fn main() -> std::process::ExitCode {
    memcheck_cli::run()
}
