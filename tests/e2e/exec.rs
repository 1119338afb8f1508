//! Runs programs, natively and under memcheck, with a limit on their time.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::formats;
use crate::report::Report;

/// No program of the tests runs so long unless it hangs, even where it gets a small part of one processor.
pub const TIME_LIMIT: Duration = Duration::from_secs(1200);

/// What a finished program left.
#[derive(PartialEq, Eq)]
pub struct Outcome {
    /// `exit 0`, `signal SIGSEGV`.
    pub status: String,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(600)]).into_owned();
        let (out, err) = (start(&self.stdout), start(&self.stderr));
        write!(f, "{}, {} bytes of output {out:?}, of errors {err:?}", self.status, self.stdout.len())
    }
}

/// What a run under memcheck left.
#[derive(Debug)]
pub struct Checked {
    /// What the program itself left, and memcheck's exit status.
    pub outcome: Outcome,
    /// The text report.
    pub text: String,
    /// The JSON report as it was written.
    pub json: String,
    /// The JSON report.
    pub report: Report,
}

/// The `memcheck` that was built with the tests.
pub fn memcheck() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_memcheck"));
    command.env_remove("MEMCHECK_OPTS").env("NO_COLOR", "1");
    command
}

/// `exit 0`, `signal SIGSEGV`.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal().map(Signal::try_from)) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(Ok(signal))) => format!("signal {signal}"),
        _ => format!("{status:?}"),
    }
}

/// Runs `command` in `folder` with its outputs kept in files there, so that no pipe blocks it.
pub fn run(command: &mut Command, scratch: &Path) -> Result<Outcome, String> {
    let out_path = scratch.join("stdout");
    let err_path = scratch.join("stderr");
    let create =
        |path: &Path| File::create(path).map_err(|e| format!("failed to create {}: {e}", path.display()));
    command.stdout(create(&out_path)?).stderr(create(&err_path)?);
    let mut child = command.spawn().map_err(|e| format!("failed to start {command:?}: {e}"))?;
    let status = wait(&mut child, TIME_LIMIT).map_err(|e| format!("{command:?}: {e}"))?;
    let read = |path: &Path| fs::read(path).map_err(|e| format!("failed to read {}: {e}", path.display()));
    Ok(Outcome { status: describe(status), stdout: read(&out_path)?, stderr: read(&err_path)? })
}

/// Waits for a child that must end within `limit`; kills it when it does not.
pub fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus, String> {
    let start = Instant::now();
    let mut pause = Duration::from_micros(500);
    loop {
        if let Some(status) = child.try_wait().map_err(|e| format!("failed to wait: {e}"))? {
            return Ok(status);
        }
        if start.elapsed() > limit {
            drop(child.kill());
            drop(child.wait());
            return Err(format!("did not end within {} s", limit.as_secs()));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Runs a program natively in an empty folder.
pub fn native(program: &Path, arguments: &[&str]) -> Result<Outcome, String> {
    let scratch = scratch()?;
    run(Command::new(program).args(arguments).current_dir(&scratch).stdin(Stdio::null()), scratch.path())
}

/// Runs a program under memcheck in an empty folder, with both reports in files.
pub fn checked(options: &[&str], program: &Path, arguments: &[&str]) -> Result<Checked, String> {
    let scratch = scratch()?;
    let mut command = memcheck();
    command.current_dir(&scratch).stdin(Stdio::null());
    checked_in(command, options, program, arguments, scratch.path())
}

/// Runs a program under memcheck as `command` is prepared, with its files in `scratch`.
pub fn checked_in(
    mut command: Command,
    options: &[&str],
    program: &Path,
    arguments: &[&str],
    scratch: &Path,
) -> Result<Checked, String> {
    let log = scratch.join("memcheck.log");
    let json = scratch.join("memcheck.json");
    command.arg(format!("--log-file={}", log.display())).arg(format!("--json={}", json.display()));
    command.args(options).arg("--").arg(program).args(arguments);
    let outcome = run(&mut command, scratch)?;
    let text = fs::read_to_string(&log).unwrap_or_default();
    let said = || format!("{command:?}: {}: {}", outcome.status, String::from_utf8_lossy(&outcome.stderr));
    let json = fs::read_to_string(&json).map_err(|e| format!("no JSON report: {e}; {}", said()))?;
    let report = Report::parse(&json).map_err(|e| format!("{e}; {}", said()))?;
    formats::check_json(&json)?;
    Ok(Checked { outcome, text, json, report })
}

/// Copies a program that will be run. This process must not have it open for writing meanwhile: a child that another
/// thread starts just then would hold it open, and the kernel would not execute it (ETXTBSY).
pub fn copy_program(from: &Path, to: &Path) -> Result<(), String> {
    match Command::new("cp").args([from, to]).status() {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("failed to copy {}: {other:?}", from.display())),
    }
}

/// An empty folder that goes away.
pub fn scratch() -> Result<TempDir, String> {
    TempDir::new().map_err(|e| format!("failed to create a folder: {e}"))
}
