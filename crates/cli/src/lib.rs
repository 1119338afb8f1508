//! The launcher: see docs/ARCHITECTURE.md.

/// Runs the launcher and returns its exit status.
pub fn run() -> std::process::ExitCode {
    std::process::ExitCode::from(125)
}
