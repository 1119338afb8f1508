//! The launcher: understands the command line, looks at the program, starts it with the shim, watches its tree
//! of processes over the channel, and reports.
//!
//! In: the process' arguments and environment, and the shim's bytes. Out: an exit status, the reports.
//!
//! Invariant: only `os` holds unsafe code.
#![deny(unsafe_code)]

mod collect;
mod destination;
mod elf;
mod flags;
mod os;
mod program;
mod shim;
mod tree;
mod watch;

use std::{
    ffi::{CString, OsStr, OsString},
    fmt,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::Path,
    process::ExitCode,
};

use clap::Parser;
use memcheck_wire::CHANNEL_VARIABLE;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};

use crate::{
    flags::Flags,
    os::{Beginning, Channel, SpawnError},
    program::Program,
    tree::End,
    watch::Watch,
};

/// The launcher's own failure, as `env`, `nohup` and `timeout` have it.
const FAILED: u8 = 125;
const CANNOT_EXECUTE: u8 = 126;

/// Runs the launcher with the shim's bytes and returns its exit status.
#[must_use]
pub fn run(shim: &[u8]) -> ExitCode {
    let (mut options, command) = flags::split(std::env::args_os().skip(1).collect());
    options.insert(0, OsString::from("memcheck"));
    let flags = match Flags::try_parse_from(options) {
        Ok(flags) => flags,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { FAILED } else { 0 });
        }
    };
    if let Some(option) = flags.planned.find() {
        return fail(FAILED, &format_args!("{option} is not supported yet"));
    }
    if command.is_empty() {
        return fail(FAILED, &"no program to run: memcheck [OPTIONS] [--] PROGRAM [ARGS]...");
    }
    let program = match program::find(&command, std::env::var_os("PATH").as_deref()) {
        Ok(program) => program,
        Err(refusal) => return fail(refusal.status(), &refusal),
    };
    match watch_program(&flags, &program, shim) {
        Ok(status) => status,
        Err(failure) => failure,
    }
}

/// Says why nothing happens.
fn fail(status: u8, reason: &dyn fmt::Display) -> ExitCode {
    eprintln!("memcheck: {reason}");
    ExitCode::from(status)
}

fn watch_program(flags: &Flags, program: &Program, shim: &[u8]) -> Result<ExitCode, ExitCode> {
    let failed = |reason: &dyn fmt::Display| fail(FAILED, reason);
    let shim = shim::unpack(shim).map_err(|error| failed(&error))?;
    let channel = Channel::create(&flags.wire_options()).map_err(|error| failed(&error))?;
    os::hold_lifeline(&channel.header().launcher);
    let environment = environment(&shim, &channel.path());
    let arguments = program.arguments.iter().map(|word| c_string(word)).collect::<Vec<_>>();
    let signals = watch::watched_signals();
    let mut mask = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), Some(&mut mask)).map_err(|errno| failed(&errno))?;
    let child =
        os::spawn(&c_string(program.path.as_os_str()), &arguments, &environment, &mask).map_err(|error| {
            let status = if matches!(error, SpawnError::Exec(_)) { CANNOT_EXECUTE } else { FAILED };
            fail(status, &format_args!("{}: {error}", program.path.display()))
        })?;
    let watch = Watch::new(channel, child, &signals).map_err(|errno| failed(&errno))?;
    let mut printer = collect::Printer::default();
    let outcome = watch.run(&mut printer);
    for remark in &outcome.remarks {
        eprintln!("memcheck: {remark}");
    }
    Ok(match outcome.end {
        End::Signal(signal) => {
            os::die_by(signal);
            ExitCode::from(FAILED)
        }
        _ if printer.errors > 0 && flags.error_exitcode != 0 => ExitCode::from(flags.error_exitcode),
        End::Code(status) => ExitCode::from(status as u8),
        End::Exec | End::Unknown => ExitCode::from(FAILED),
    })
}

/// A word of the command line, which cannot hold a zero byte because the kernel passed it as a C string.
fn c_string(word: &OsStr) -> CString {
    CString::new(word.as_bytes().split(|&byte| byte == 0).next().unwrap_or_default()).unwrap_or_default()
}

/// The program's environment: ours, entry by entry, and what the shim needs.
fn environment(shim: &Path, channel: &str) -> Vec<CString> {
    const PRELOAD: &[u8] = b"LD_PRELOAD=";
    let channel_prefix = format!("{CHANNEL_VARIABLE}=");
    let mut entries = Beginning::environment();
    entries.retain(|entry| !entry.as_bytes().starts_with(channel_prefix.as_bytes()));
    let existing = entries.iter().position(|entry| entry.as_bytes().starts_with(PRELOAD));
    let value = existing.map(|index| OsString::from_vec(entries[index].as_bytes()[PRELOAD.len()..].to_vec()));
    let preload = [PRELOAD, &shim::preload_value(shim, value.as_deref())].concat();
    let preload = c_string(OsStr::from_bytes(&preload));
    match existing {
        Some(index) => entries[index] = preload,
        None => entries.push(preload),
    }
    entries.push(c_string(OsStr::new(&(channel_prefix + channel))));
    entries
}
