//! `memcheck ctl PID leaks [--new|--all]`: asks the launcher that watches a running process.

use std::{
    ffi::OsString,
    fs,
    io::{self, ErrorKind, IsTerminal as _, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, Subcommand};
use memcheck_report::Color;
use memcheck_wire::CHANNEL_VARIABLE;
use nix::unistd::geteuid;

use crate::{
    FAILED, fail,
    questions::{Wanted, address, peer, request},
};

/// Longer than a launcher lets a process take.
const PATIENCE: Duration = Duration::from_secs(40);

#[derive(Debug, Parser)]
#[command(
    name = "memcheck ctl",
    about = "Asks about a process that runs under memcheck",
    after_help = "Exit status: 0 when the process answered, 125 when not."
)]
struct Ctl {
    /// The process, or the memcheck that watches it
    pid: u32,

    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Shows the blocks that are lost now; the program stands still while they are searched for
    Leaks {
        /// Show only what is new or has grown since the last call (the default)
        #[arg(long, conflicts_with = "all")]
        new: bool,

        /// Show everything
        #[arg(long)]
        all: bool,
    },
}

/// Asks and prints the answer.
pub fn run(command: &[OsString]) -> ExitCode {
    let ctl = match Ctl::try_parse_from(command) {
        Ok(ctl) => ctl,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { FAILED } else { 0 });
        }
    };
    let What::Leaks { all, .. } = ctl.what;
    let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let color = if io::stdout().is_terminal() && !is_unwanted { Color::Ansi } else { Color::Plain };
    match ask(ctl.pid, &request(ctl.pid, if all { Wanted::All } else { Wanted::New }, color)) {
        Ok(text) => match io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(FAILED, &format_args!("cannot write to standard output: {error}")),
        },
        Err(reason) => fail(FAILED, &reason),
    }
}

fn ask(pid: u32, request: &str) -> Result<String, String> {
    let mut stream = connect(pid)?;
    let broken = |error: io::Error| match error.kind() {
        ErrorKind::WouldBlock => format!("the memcheck of process {pid} does not answer: it may be stopped"),
        _ => format!("the memcheck of process {pid} does not answer: {error}"),
    };
    stream.set_read_timeout(Some(PATIENCE)).map_err(broken)?;
    stream.write_all(request.as_bytes()).map_err(broken)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(broken)?;
    match answer.split_once('\n') {
        Some(("ok", text)) => Ok(text.to_owned()),
        Some(("failed", reason)) => Err(reason.to_owned()),
        _ => Err(format!("process {pid} is watched no longer: its memcheck has ended")),
    }
}

/// The socket of the launcher that `pid` is, or that watches it.
fn connect(pid: u32) -> Result<UnixStream, String> {
    if !Path::new(&format!("/proc/{pid}")).exists() {
        return Err(format!("there is no process {pid}"));
    }
    let reach = |launcher| address(launcher).and_then(|address| UnixStream::connect_addr(&address));
    let stream = match reach(pid) {
        Ok(stream) => stream,
        Err(_) => {
            let launcher = find_launcher(pid)?;
            reach(launcher)
                .map_err(|_| format!("process {pid} is watched no longer: its memcheck has ended"))?
        }
    };
    let own = geteuid().as_raw();
    if own == 0 || peer(&stream) == Some(own) { Ok(stream) } else { Err(not_ours(pid)) }
}

fn not_ours(pid: u32) -> String {
    format!("process {pid} belongs to another user")
}

/// The launcher that the process was started with, by the path of its channel (`/proc/LAUNCHER/fd/N`).
fn find_launcher(pid: u32) -> Result<u32, String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => not_ours(pid),
        ErrorKind::NotFound => format!("there is no process {pid}"),
        _ => format!("cannot look at process {pid}: {error}"),
    })?;
    let prefix = format!("{CHANNEL_VARIABLE}=/proc/");
    let launcher = environment.split(|&byte| byte == 0).find_map(|entry| {
        std::str::from_utf8(entry).ok()?.strip_prefix(&prefix)?.split('/').next()?.parse().ok()
    });
    launcher.ok_or_else(|| format!("process {pid} does not run under memcheck"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_memcheck_is_told_from_one_that_is_not_there() {
        let own = std::process::id();
        assert_eq!(connect(own).unwrap_err(), format!("process {own} does not run under memcheck"));
        // Ids end at 2^22 (proc(5)).
        assert_eq!(connect(1 << 23).unwrap_err(), "there is no process 8388608");
    }
}
