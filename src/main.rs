//! `memcheck`: runs a program and reports the memory errors it makes.

fn main() -> std::process::ExitCode {
    memcheck_cli::run(memcheck_cli::Shim {
        content: include_bytes!(concat!(env!("OUT_DIR"), "/shim.so")),
        digest: env!("SHIM_DIGEST"),
    })
}
