//! The report is complete and valid whatever becomes of the target, the target never waits for a launcher that is
//! gone, and between the two the user's program is as it would be alone.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{compile, exec, fixture, trial};

/// How the target ends: its arguments, how memcheck must end, how many errors and processes it must have seen.
type Ending = (&'static str, &'static [&'static str], &'static str, u64, usize);

/// A test of its own.
type Check = fn() -> Result<(), String>;

const ENDINGS: &[Ending] = &[
    ("returns", &["plain"], "exit 99", 1000, 1),
    ("calls__exit", &["_exit"], "exit 99", 1000, 1),
    ("calls_quick_exit", &["quick_exit"], "exit 99", 1000, 1),
    ("closes_every_descriptor", &["close-all"], "exit 99", 1000, 1),
    ("may_open_no_descriptor", &["close-all-and-reopen"], "exit 99", 1000, 1),
    ("is_killed", &["kill"], "signal SIGKILL", 1000, 1),
    ("is_killed_after_threads_erred", &["threads"], "signal SIGKILL", 800, 1),
    ("becomes_a_daemon", &["daemon"], "exit 99", 1, 2),
    ("forks_100_children", &["fork-100"], "exit 99", 100, 101),
    ("executes_itself", &["exec"], "exit 99", 1001, 2),
    ("leaves_a_child_behind", &["outlive"], "exit 99", 1, 2),
    ("uses_vfork", &["vfork"], "exit 99", 1, 1),
    ("changes_its_root", &["chroot", "/proc"], "exit 99", 1000, 1),
];

/// All of them.
pub fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = ENDINGS
        .iter()
        .map(|ending| {
            trial(format!("robustness::report_is_complete_when_target_{}", ending.0), || check_ending(ending))
        })
        .collect();
    let checks: [(&str, Check); 14] = [
        ("report_is_complete_when_target_aborts", aborts),
        ("target_ends_when_launcher_is_killed", || launcher_killed("loop-until-told")),
        ("children_end_when_launcher_is_killed", || launcher_killed("children-until-told")),
        ("signal_to_launcher_reaches_target", signal_passed_on),
        ("stopped_target_goes_on_when_it_is_continued", stopped),
        ("exit_status_of_clean_program_is_its_own", exit_status),
        ("signal_of_clean_program_is_raised_again", signal_status),
        ("error_exitcode_is_the_users_choice", error_exitcode),
        ("arguments_after_the_program_are_its_own", arguments),
        ("environment_and_folder_are_the_users", environment),
        ("program_below_another_root_is_told_of", other_root),
        ("unwritable_report_is_an_error", unwritable_report),
        ("unknown_option_is_an_error", unknown_option),
        ("threads_allocate_in_parallel", threads),
    ];
    trials.extend(checks.map(|(name, check)| trial(format!("robustness::{name}"), check)));
    trials
}

/// The program that errs and then ends as it is told.
fn stubborn() -> Result<PathBuf, String> {
    program("stubborn.c")
}

fn program(name: &str) -> Result<PathBuf, String> {
    let source = fixture::folder().join("programs").join(name);
    compile::program(&source, "robustness", &["-g", "-O1", "-w", "-fno-builtin"].map(str::to_owned))
}

fn check_ending((_, arguments, status, errors, processes): &Ending) -> Result<(), String> {
    let run = exec::checked(&[], &stubborn()?, arguments)?;
    let seen: u64 = run.report.errors.iter().map(|error| error.count).sum();
    // A machine may be too busy for a process that stays behind; then that is said.
    if run.text.contains("watched no longer") && arguments[0] == "outlive" {
        return Ok(());
    }
    must_be("status", status, &run.outcome.status)?;
    must_be("errors", &errors.to_string(), &seen.to_string())?;
    if let Some(other) = run.report.errors.iter().find(|error| error.id != "double-free") {
        return Err(format!("not expected: {}", other.describe()));
    }
    let ended = run.report.processes.iter().filter(|process| process.exit.is_some()).count();
    must_be("processes", &processes.to_string(), &run.report.processes.len().to_string())?;
    if ended == *processes || arguments[0] == "exec" {
        Ok(())
    } else {
        Err(format!("{ended} processes have an end"))
    }
}

fn aborts() -> Result<(), String> {
    let run = exec::checked(&[], &stubborn()?, &["abort"])?;
    must_be("status", "signal SIGABRT", &run.outcome.status)?;
    let ids: Vec<_> = run.report.errors.iter().map(|error| error.id.as_str()).collect();
    must_be("errors", "double-free fatal-signal", &ids.join(" "))
}

fn launcher_killed(how: &str) -> Result<(), String> {
    let scratch = exec::scratch()?;
    let mut command = exec::memcheck();
    command.arg(format!("--log-file={}", scratch.path().join("log").display()));
    command.arg(stubborn()?).arg(how).current_dir(&scratch);
    let mut launcher = command.stdout(Stdio::piped()).spawn().map_err(|e| format!("failed to start: {e}"))?;
    let mut lines = BufReader::new(launcher.stdout.take().ok_or("no standard output")?);
    let mut line = String::new();
    lines.read_line(&mut line).map_err(|e| format!("failed to read: {e}"))?;
    must_be("first line", "ready\n", &line)?;
    launcher.kill().map_err(|e| format!("failed to kill the launcher: {e}"))?;
    exec::wait(&mut launcher, exec::TIME_LIMIT)?;
    // The pipe ends when the target has ended, whether it was taken along or finished alone.
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut rest = String::new();
        drop(sender.send(lines.read_to_string(&mut rest).map(|_| rest)));
    });
    match receiver.recv_timeout(exec::TIME_LIMIT) {
        Ok(Ok(rest)) if rest.is_empty() || rest == "done\n" => Ok(()),
        Ok(other) => Err(format!("the target wrote {other:?}")),
        Err(_) => Err("the target hangs".to_owned()),
    }
}

fn signal_passed_on() -> Result<(), String> {
    let scratch = exec::scratch()?;
    let mut command = exec::memcheck();
    command.arg(format!("--log-file={}", scratch.path().join("log").display()));
    command.arg(stubborn()?).arg("wait-for-signal").current_dir(&scratch);
    let mut launcher = command.stdout(Stdio::piped()).spawn().map_err(|e| format!("failed to start: {e}"))?;
    let mut lines = BufReader::new(launcher.stdout.take().ok_or("no standard output")?);
    let mut line = String::new();
    lines.read_line(&mut line).map_err(|e| format!("failed to read: {e}"))?;
    let pid = Pid::from_raw(launcher.id().cast_signed());
    kill(pid, Signal::SIGTERM).map_err(|e| format!("failed to signal the launcher: {e}"))?;
    let status = exec::wait(&mut launcher, exec::TIME_LIMIT)?;
    let mut rest = String::new();
    lines.read_to_string(&mut rest).map_err(|e| format!("failed to read: {e}"))?;
    must_be("output", "handled\n", &rest)?;
    must_be("status", "exit 5", &exec::describe(status))
}

/// A child continues its parent when that has stopped itself. There is no terminal, so no shell to see it.
fn stopped() -> Result<(), String> {
    let source = compile::source("robustness/source", "stops.c", STOPS)?;
    let program = compile::program(&source, "robustness", &["-g", "-w"].map(str::to_owned))?;
    let scratch = exec::scratch()?;
    let mut command = Command::new("setsid");
    command.arg("--wait").arg(exec::memcheck().get_program()).current_dir(&scratch).stdin(Stdio::null());
    let run = exec::checked_in(command, &[], &program, &[], scratch.path())?;
    must_be("output", "goes on\n", &String::from_utf8_lossy(&run.outcome.stdout))?;
    must_be("status", "exit 0", &run.outcome.status)
}

const STOPS: &str = r#"
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
static char state_of(int pid)
{
    char path[32], state = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *stat = fopen(path, "r");
    fscanf(stat, "%*d %*s %c", &state);
    fclose(stat);
    return state;
}
int main(void)
{
    pid_t parent = getpid();
    if (fork() == 0) {
        while (state_of(parent) != 'T')
            usleep(1000);
        kill(parent, SIGCONT);
        _exit(0);
    }
    raise(SIGSTOP);
    wait(NULL);
    puts("goes on");
    return 0;
}
"#;

fn exit_status() -> Result<(), String> {
    for status in ["0", "1", "42", "99", "125", "255"] {
        let run = exec::checked(&[], &stubborn()?, &["clean", status])?;
        must_be("status", &format!("exit {status}"), &run.outcome.status)?;
        run.report.must_be_clean()?;
    }
    Ok(())
}

/// What runs there has no `/proc`, so it does not find the channel.
fn other_root() -> Result<(), String> {
    let (program, arguments) = (Path::new("/usr/sbin/chroot"), ["/usr", "/bin/true"]);
    if exec::native(program, &arguments)?.status != "exit 0" {
        // Not root, or /usr is no root that programs run in.
        return Ok(());
    }
    let run = exec::checked(&[], program, &arguments)?;
    must_be("status", "exit 0", &run.outcome.status)?;
    if run.text.contains("out of reach") { Ok(()) } else { Err(format!("not told: {}", run.text)) }
}

fn signal_status() -> Result<(), String> {
    for signal in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGINT, Signal::SIGUSR1] {
        let run = exec::checked(&[], &stubborn()?, &["raise", &(signal as i32).to_string()])?;
        must_be("status", &format!("signal {signal}"), &run.outcome.status)?;
    }
    Ok(())
}

fn error_exitcode() -> Result<(), String> {
    for (option, status) in [("--error-exitcode=7", "exit 7"), ("--error-exitcode=0", "exit 3")] {
        let run = exec::checked(&[option], &stubborn()?, &["_exit"])?;
        must_be(option, status, &run.outcome.status)?;
        must_be("verdict", "findings", &run.report.summary.verdict)?;
    }
    Ok(())
}

fn arguments() -> Result<(), String> {
    let run = exec::checked(&[], &stubborn()?, &["arguments", "--help", "--json=x", "--", "", "a b"])?;
    must_be("output", "--help\n--json=x\n--\n\na b\n", &String::from_utf8_lossy(&run.outcome.stdout))
}

fn environment() -> Result<(), String> {
    let set = |command: &mut Command| {
        command.env_clear().env("PATH", "/bin").env("LANG", "C").env("ODD", "a=b c");
    };
    let scratch = exec::scratch()?;
    let mut native = Command::new(stubborn()?);
    set(native.arg("environment").current_dir(&scratch));
    let native = exec::run(&mut native, scratch.path())?;
    let mut command = exec::memcheck();
    set(command.current_dir(&scratch));
    let run = exec::checked_in(command, &[], &stubborn()?, &["environment"], scratch.path())?;
    must_be(
        "environment",
        &String::from_utf8_lossy(&native.stdout),
        &String::from_utf8_lossy(&run.outcome.stdout),
    )
}

fn unwritable_report() -> Result<(), String> {
    let scratch = exec::scratch()?;
    let mut command = exec::memcheck();
    command.arg("--json=/proc/nonexistent/report.json").arg(stubborn()?).args(["clean", "0"]);
    let outcome = exec::run(&mut command, scratch.path())?;
    must_be("status", "exit 125", &outcome.status)?;
    let said = String::from_utf8_lossy(&outcome.stderr);
    if said.contains("/proc/nonexistent/report.json") { Ok(()) } else { Err(format!("it said: {said}")) }
}

fn unknown_option() -> Result<(), String> {
    let scratch = exec::scratch()?;
    let mut command = exec::memcheck();
    command.arg("--leak-chek=full").arg(stubborn()?).args(["clean", "0"]);
    let outcome = exec::run(&mut command, scratch.path())?;
    must_be("status", "exit 125", &outcome.status)?;
    let said = String::from_utf8_lossy(&outcome.stderr);
    if said.contains("--leak-check") { Ok(()) } else { Err(format!("no suggestion: {said}")) }
}

fn threads() -> Result<(), String> {
    let run = exec::checked(&[], &program("counting.c")?, &[])?;
    must_be("output", "joined\n", &String::from_utf8_lossy(&run.outcome.stdout))?;
    run.report.must_be_clean()
}

fn must_be(what: &str, expected: &str, seen: &str) -> Result<(), String> {
    if expected == seen { Ok(()) } else { Err(format!("{what}: {seen:?}, expected {expected:?}")) }
}
