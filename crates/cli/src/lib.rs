//! The launcher: understands the command line, looks at the program, starts it with the shim, watches its tree
//! of processes over the channel, and reports.
//!
//! In: the process' arguments and environment, and the shim's bytes. Out: an exit status, the reports.
//!
//! Invariant: only `os` holds unsafe code.
#![deny(unsafe_code)]

mod collect;
mod config;
mod convert;
mod ctl;
mod demand;
mod destination;
mod doctor;
pub mod elf;
mod findings;
mod flags;
mod names;
mod os;
mod outputs;
mod own_operators;
mod program;
mod progress;
mod questions;
mod rare_flags;
mod shim;
mod stored;
mod text_log;
mod tree;
mod valgrind;
mod verbs;
mod watch;

pub use shim::Shim;

use std::{
    ffi::{CString, OsStr, OsString},
    fmt, fs,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use clap::Parser;
use memcheck_model::{ErrorKind, LeakKind};
use memcheck_report::{Baseline, Trim, Verdict};
use memcheck_suppress::{Date, Suppressions};
use memcheck_wire::{CHANNEL_VARIABLE, LeakCheck, Subject};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};

use crate::{
    config::Config,
    destination::Destination,
    findings::{Findings, Treatment},
    flags::{Flags, GenSuppressions, LeakCheckFlag, StaleFlag, TrackFdsFlag, YesNo},
    names::{NameStyle, Names},
    os::{Beginning, Channel, SpawnError},
    program::Program,
    text_log::{Log, Manner, TextLog},
    tree::End,
    valgrind::ValgrindLog,
    watch::Watch,
};

/// The launcher's own failure, as `env`, `nohup` and `timeout` have it.
const FAILED: u8 = 125;
const CANNOT_EXECUTE: u8 = 126;

/// Asks for Valgrind's personality.
const COMPAT: &str = "--compat=valgrind";

/// Runs the launcher with this shim and returns its exit status.
#[must_use]
pub fn run(shim: Shim) -> ExitCode {
    let mut words = std::env::args_os();
    let name = words.next().unwrap_or_default();
    let flags::Split { mut options, command, is_program } = flags::split(words.collect());
    if valgrind::is_name(&name) || options.iter().any(|option| option == COMPAT) {
        options.retain(|option| option != COMPAT);
        return match valgrind::parse(valgrind::configured().into_iter().chain(options)) {
            valgrind::Parsed::Run(request) => {
                run_program(&request.flags, Some(request.manner), &command, shim)
            }
            valgrind::Parsed::Say(text) => {
                print!("{text}");
                ExitCode::SUCCESS
            }
            valgrind::Parsed::Refuse(reason) => {
                eprintln!("valgrind: {reason}");
                ExitCode::from(1)
            }
        };
    }
    if options.is_empty()
        && !is_program
        && let Some(status) = verbs::try_verb(&command, shim).or_else(|| stored::try_run(&command))
    {
        return status;
    }
    let config = match Config::find(&options, &std::env::current_dir().unwrap_or_default()) {
        Ok(config) => config,
        Err(reason) => return fail(FAILED, &reason),
    };
    let words = std::iter::once(OsString::from("memcheck")).chain(config.words()).chain(options);
    match Flags::try_parse_from(words) {
        Ok(flags) => run_program(&flags, None, &command, shim),
        Err(error) => {
            let _ = error.print();
            ExitCode::from(if error.use_stderr() { FAILED } else { 0 })
        }
    }
}

/// Runs the program under the launcher. The text is ours, or Valgrind's in this manner.
fn run_program(
    flags: &Flags,
    manner: Option<valgrind::Manner>,
    command: &[OsString],
    shim: Shim,
) -> ExitCode {
    if let Some(contradiction) = flags.reports.find_contradiction() {
        return fail(FAILED, &contradiction);
    }
    if let Some(id) = &flags.explain {
        return match memcheck_report::explain(id) {
            Some(text) => {
                print!("{text}");
                ExitCode::SUCCESS
            }
            None => fail(FAILED, &unknown_finding(id)),
        };
    }
    if command.is_empty() {
        return fail(FAILED, &"no program to run: memcheck [OPTIONS] [--] PROGRAM [ARGS]...");
    }
    let program = match program::find(command, std::env::var_os("PATH").as_deref()) {
        Ok(program) => program,
        Err(refusal) => return fail(refusal.status(), &refusal),
    };
    match watch_program(flags, manner, command, &program, shim) {
        Ok(status) => status,
        Err(failure) => failure,
    }
}

/// That there is no such finding, and which one may be meant.
fn unknown_finding(id: &str) -> String {
    let known = ErrorKind::ALL.iter().map(|kind| kind.id()).chain(LeakKind::ALL.iter().map(|kind| kind.id()));
    let nearest = known
        .map(|known| (strsim::jaro_winkler(known, id), known))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(one, _), (other, _)| one.total_cmp(other));
    match nearest {
        Some((_, known)) => format!("no finding is called {id}: did you mean {known}?"),
        None => format!("no finding is called {id}: docs/FINDINGS.md lists them"),
    }
}

/// Says why nothing happens.
fn fail(status: u8, reason: &dyn fmt::Display) -> ExitCode {
    eprintln!("memcheck: {reason}");
    ExitCode::from(status)
}

/// The rules of the user's files, then those that memcheck brings along.
fn read_suppressions(flags: &Flags) -> Result<Suppressions, String> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut rules = Suppressions::new(Date::from_unix_seconds(now.as_secs()));
    for file in &flags.suppressions {
        let text = fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        rules.read(file, &String::from_utf8_lossy(&text)).map_err(|error| error.to_string())?;
    }
    if flags.default_suppressions == YesNo::Yes {
        rules.add_defaults();
    }
    Ok(rules)
}

/// Tells the shims which programs are not watched, and whose allocators are.
fn set_patterns(flags: &Flags, channel: &Channel) -> Result<(), &'static str> {
    let rare = &flags.rare;
    let paths = rare.trace_children_skip.iter().map(|it| (Subject::SkippedPath, it.as_bytes()));
    let arguments =
        rare.trace_children_skip_by_arg.iter().map(|it| (Subject::SkippedArgument, it.as_bytes()));
    let allocators = rare.allocator_patterns().map(|it| (Subject::Allocator, it.as_bytes()));
    let fits = channel.header().set_patterns(paths.chain(arguments).chain(allocators));
    fits.then_some(()).ok_or(
        "the patterns of --trace-children-skip, --trace-children-skip-by-arg and --soname-synonyms are too long",
    )
}

/// What the earlier report holds.
fn read_baseline(flags: &Flags) -> Result<Option<Baseline>, String> {
    let read = |file: &PathBuf| stored::read(file).map(|report| report.as_baseline());
    flags.baseline.as_ref().map(read).transpose()
}

fn watch_program(
    flags: &Flags,
    manner: Option<valgrind::Manner>,
    command: &[OsString],
    program: &Program,
    shim: Shim,
) -> Result<ExitCode, ExitCode> {
    let failed = |reason: &dyn fmt::Display| fail(FAILED, reason);
    let mut outputs = flags.reports.prepare().map_err(|error| failed(&error))?;
    if let Some(manner) = &manner {
        outputs.use_manner(manner).map_err(|error| failed(&error))?;
    }
    let log =
        flags.log_file.as_deref().map(Destination::prepare).transpose().map_err(|error| failed(&error))?;
    let sink = manner.as_ref().map_or(Ok(None), |manner| valgrind::open_sink(&manner.sink));
    let sink = sink.map_err(|error| failed(&error))?;
    let root = flags.reports.source_root();
    let suppressions = read_suppressions(flags).map_err(|error| failed(&error))?;
    let baseline = read_baseline(flags).map_err(|error| failed(&error))?;
    let shim = shim.unpack().map_err(|error| failed(&error))?;
    let mut options = flags.wire_options();
    if suppressions.concern_leaks() {
        // What rules keep out counts as suppressed, whether it would be listed or not.
        options.leak_kinds = LeakKind::ALL.iter().fold(0, |set, &kind| set | 1 << kind as u8);
        if options.leak_check == LeakCheck::Summary {
            options.leak_check = LeakCheck::Full;
        }
    }
    let channel = Channel::create(&options).map_err(|error| failed(&error))?;
    set_patterns(flags, &channel).map_err(|error| failed(&error))?;
    os::hold_lifeline(&channel.header().launcher);
    let environment = environment(&shim, &channel.path());
    let arguments = program.arguments.iter().map(|word| c_string(word)).collect::<Vec<_>>();
    let signals = watch::watched_signals();
    let mut mask = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), Some(&mut mask)).map_err(|errno| failed(&errno))?;
    let path = c_string(program.path.as_os_str());
    let child = os::spawn(&path, &arguments, &environment, &mask).map_err(|error| {
        let status = if matches!(error, SpawnError::Exec(_)) { CANNOT_EXECUTE } else { FAILED };
        fail(status, &format_args!("{}: {error}", program.path.display()))
    })?;
    let pid = child.as_raw().cast_unsigned();
    let words: Vec<String> = command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let file = log.as_ref().map(|log| log.open(pid)).transpose().map_err(|error| failed(&error))?;
    let is_valgrind = manner.is_some();
    let mut text: Box<dyn Log> = match manner {
        Some(manner) => {
            // Every process has its own file when the pattern tells them apart, as Valgrind has it.
            let pattern = log.filter(Destination::is_one_for_each_process);
            let mut log = ValgrindLog::new(manner, flags, pid, sink.or(file), pattern);
            log.banner(&words);
            Box::new(log)
        }
        None => {
            let manner = Manner { color: flags.color, format: flags.format, is_quiet: flags.quiet };
            Box::new(TextLog::new(file, manner, root.clone(), pid))
        }
    };
    let treatment = Treatment {
        trim: Trim {
            show_below_main: flags.show_below_main == YesNo::Yes,
            num_callers: Some(flags.num_callers.into()),
        },
        lists_leaks: flags.leak_check == LeakCheckFlag::Full,
        shown_leaks: flags.show_leak_kinds.0.clone(),
        error_leaks: flags.errors_for_leak_kinds.0.clone(),
        suppressions,
        baseline,
        stale_is_error: flags.stale_suppressions == StaleFlag::Error,
        hidden: flags.hidden_kinds(),
        kept_stacks: flags.rare.keep_stacktraces,
        ignored: flags.rare.ignore_ranges.iter().map(|range| range.0).collect(),
        forks_are_silent: flags.rare.child_silent_after_fork == YesNo::Yes,
        open_descriptors_are_errors: !is_valgrind,
        generates_rules: flags.gen_suppressions == GenSuppressions::All,
    };
    if flags.track_fds != TrackFdsFlag::No && flags.access_checks == YesNo::No {
        text.notice(
            "--track-fds without access checks: system calls are not seen, so only what is open at exit is told, without \
             stacks",
        );
    }
    let watch = Watch::new(channel, child, &signals).map_err(|errno| failed(&errno))?;
    let names = Names::new(NameStyle {
        demangled: flags.rare.demangle == YesNo::Yes,
        inlined: flags.rare.read_inline_info == YesNo::Yes,
        path_maps: flags.reports.path_map.clone(),
    });
    let mut findings = Findings::new(words, treatment, names, &mut *text);
    let outcome = watch.run(&mut findings);
    let mut report = findings.finish(&outcome.processes);
    report.comment.clone_from(&flags.rare.xml_user_comment);
    for remark in &outcome.remarks {
        text.notice(remark);
    }
    let mut status = match outcome.end {
        End::Signal(signal) => Status::Signal(signal),
        _ if report.summary.verdict == Verdict::Findings && flags.error_exitcode != 0 => {
            Status::Code(flags.error_exitcode)
        }
        End::Code(code) => Status::Code(code as u8),
        End::Exec | End::Unknown => Status::Code(FAILED),
    };
    if outcome.processes.is_empty() {
        text.failure(&format!(
            "{}: the checker was not loaded into the program: nothing was checked",
            program.path.display()
        ));
        report.summary.verdict = Verdict::Failed;
    }
    if let (Verdict::Failed, Status::Code(code)) = (report.summary.verdict, &mut status) {
        *code = FAILED;
    }
    if flags.stats {
        text.statistics(&report);
    }
    if flags.show_suppressed || flags.verbose > 0 {
        text.suppressed(&report);
    }
    if flags.show_suppressed || flags.verbose > 0 || flags.stale_suppressions != StaleFlag::No {
        text.stale(&report);
    }
    text.summary(&report);
    if let Err(failures) = outputs.write(&report, pid, &root) {
        for failure in failures {
            text.failure(&failure);
        }
        status = Status::Code(FAILED);
    }
    if text.is_cut() {
        status = Status::Code(FAILED);
    }
    Ok(match status {
        Status::Code(code) => ExitCode::from(code),
        Status::Signal(signal) => {
            os::die_by(signal);
            ExitCode::from(FAILED)
        }
    })
}

/// How the launcher ends.
enum Status {
    Code(u8),
    Signal(i32),
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
