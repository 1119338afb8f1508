//! `memcheck ctl` while the program runs: what it answers, and that the program does not notice.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use libtest_mimic::Trial;

use crate::{compile, exec, fixture, trial};

/// With which checks it is tried.
const MODES: [(&str, &str); 3] =
    [("lazy", "--translate=lazy"), ("eager", "--translate=eager"), ("heap-alone", "--access-checks=no")];

/// How often each process is asked.
const CALLS: usize = 20;

/// All of them.
pub fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = MODES
        .iter()
        .map(|&(mode, option)| {
            trial(format!("control::sleeping_threads_sleep_on,{mode}"), move || sleepers(option))
        })
        .collect();
    trials.push(trial("control::hundred_busy_threads_go_on", crowd));
    trials.push(trial("control::child_is_asked_by_its_own_id", child));
    trials.push(trial("control::parent_of_vfork_goes_on", parent_of_vfork));
    trials.push(trial("control::forks_and_changes_of_rights_go_on", forks));
    trials.push(trial("control::processes_that_cannot_be_asked_are_told_apart", refusals));
    trials
}

/// A program that talks over its standard streams, under memcheck.
struct Talker {
    launcher: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    scratch: tempfile::TempDir,
}

impl Talker {
    fn start(options: &[&str], program: &Path) -> Result<Self, String> {
        let scratch = exec::scratch()?;
        let mut command = exec::memcheck();
        command.args(options).arg(program).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(std::fs::File::create(scratch.path().join("errors")).map_err(|e| e.to_string())?);
        let mut launcher = command.spawn().map_err(|e| e.to_string())?;
        let output = BufReader::new(launcher.stdout.take().ok_or("no output")?);
        Ok(Self { input: launcher.stdin.take(), launcher, output, scratch })
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        self.output.read_line(&mut line).map_err(|e| e.to_string())?;
        Ok(line.trim().to_owned())
    }

    fn go_on(&mut self) -> Result<String, String> {
        self.input.as_mut().ok_or("no input")?.write_all(b"\n").map_err(|e| e.to_string())?;
        self.line()
    }

    /// Starts a program of this source.
    fn start_source(name: &str, text: &str) -> Result<Self, String> {
        let source = compile::source("control/source", name, text)?;
        let options = ["-g", "-w", "-pthread", "-fno-builtin"].map(str::to_owned);
        Self::start(&[], &compile::program(&source, "control", &options)?)
    }

    /// Ends the input, after which the program ends with nothing found.
    fn finish_well(self) -> Result<(), String> {
        let (status, text) = self.finish()?;
        if status == "exit 0" { Ok(()) } else { Err(format!("{status}:\n{text}")) }
    }

    /// Ends the input, and returns how the program ended and what it and memcheck printed.
    fn finish(mut self) -> Result<(String, String), String> {
        self.input = None;
        let status = exec::wait(&mut self.launcher, exec::TIME_LIMIT)?;
        let errors = std::fs::read_to_string(self.scratch.path().join("errors")).unwrap_or_default();
        Ok((exec::describe(status), errors))
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        self.input = None;
        drop(self.launcher.kill());
        drop(self.launcher.wait());
    }
}

/// What `memcheck ctl PID leaks OPTION` prints.
fn ask(pid: u32, option: &str) -> Result<String, String> {
    let mut command = exec::memcheck();
    let output = command
        .args(["ctl", &pid.to_string(), "leaks", option])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.code() {
        Some(0) => Ok(text),
        status => Err(format!("{status:?}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

fn must_hold(text: &str, parts: &[&str]) -> Result<(), String> {
    match parts.iter().find(|part| !text.contains(*part)) {
        Some(part) => Err(format!("no `{part}` in:\n{text}")),
        None => Ok(()),
    }
}

fn program(name: &str) -> Result<std::path::PathBuf, String> {
    let source = fixture::folder().join("programs").join(name);
    compile::program(&source, "control", &["-g", "-O1", "-w", "-pthread", "-fno-builtin"].map(str::to_owned))
}

fn sleepers(option: &str) -> Result<(), String> {
    let mut talker = Talker::start(&[option], &program("sleepers.c")?)?;
    talker.line()?;
    let pid = talker.launcher.id();
    let first = ask(pid, "--new")?;
    must_hold(
        &first,
        &[
            "leak: 24 bytes in 1 block lost: nothing points to it [definite]\n",
            "1 loss record, 1 of them new or grown",
            "\nmemcheck: 24 bytes in 1 block definitely lost\n",
        ],
    )?;
    for _ in 0..CALLS {
        let same = ask(pid, "--new")?;
        must_hold(&same, &["1 loss record, 0 of them new or grown"])?;
        if same.contains("[definite]") {
            return Err(format!("nothing is new:\n{same}"));
        }
    }
    talker.go_on()?;
    must_hold(
        &ask(pid, "--new")?,
        &["48 bytes in 2 blocks lost: nothing points to them; last time 24 bytes in 1 block [definite]"],
    )?;
    must_hold(&ask(pid, "--all")?, &["48 bytes in 2 blocks lost", "1 loss record, 0 of them"])?;
    let (status, text) = talker.finish()?;
    if text.contains("came back") || status != "exit 99" {
        return Err(format!("{status}:\n{text}"));
    }
    must_hold(&text, &["memcheck: 1 leak is an error; 48 bytes in 2 blocks definitely lost"])
}

fn crowd() -> Result<(), String> {
    let mut talker = Talker::start(&[], &program("crowd.c")?)?;
    talker.line()?;
    for _ in 0..5 {
        must_hold(&ask(talker.launcher.id(), "--all")?, &["0 loss records, 0 of them"])?;
    }
    talker.finish_well()
}

fn child() -> Result<(), String> {
    let mut talker = Talker::start_source("forker.c", FORKER)?;
    let pid: u32 = talker.line()?.parse().map_err(|e| format!("no process id: {e}"))?;
    must_hold(&ask(pid, "--new")?, &["leak: 77 bytes in 1 block lost", &format!("process {pid} (")])?;
    // What the child inherited is its parent's.
    if ask(pid, "--all")?.contains("55 bytes") {
        return Err("the child tells of its parent's block".to_owned());
    }
    must_hold(&ask(talker.launcher.id(), "--all")?, &["leak: 55 bytes in 1 block lost"])?;
    talker.finish().map(drop)
}

/// A parent that lost 55 bytes and a child that lost 77, until the input ends.
const FORKER: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
char *volatile held;
int main(void)
{
    held = malloc(55);
    held = NULL;
    char byte;
    pid_t child = fork();
    if (child == 0) {
        held = malloc(77);
        held = NULL;
        printf("%d\n", getpid());
        fflush(stdout);
        read(0, &byte, 1);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    return 0;
}
"#;

/// A thread that forks holds locks that others wait for, and libc tells all threads of changed rights by the very signal
/// that asks.
fn forks() -> Result<(), String> {
    let mut talker = Talker::start_source("forks.c", FORKS)?;
    talker.line()?;
    for _ in 0..CALLS {
        must_hold(&ask(talker.launcher.id(), "--all")?, &["0 loss records"])?;
    }
    talker.finish_well()
}

/// Threads that allocate, fork and set their user until the input ends.
const FORKS: &str = r#"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
static volatile int is_over;
static void *allocates(void *unused)
{
    void *blocks[32] = {0};
    for (unsigned i = 0; !is_over; i++) {
        free(blocks[i % 32]);
        blocks[i % 32] = malloc(i % 900);
    }
    for (int i = 0; i < 32; i++)
        free(blocks[i]);
    return unused;
}
static void *forks(void *unused)
{
    while (!is_over) {
        pid_t child = fork();
        if (child == 0)
            _exit(0);
        waitpid(child, NULL, 0);
    }
    return unused;
}
static void *sets_user(void *unused)
{
    for (; !is_over; usleep(500))
        seteuid(geteuid());
    return unused;
}
int main(void)
{
    void *(*work[])(void *) = {allocates, allocates, forks, sets_user};
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, work[i], NULL);
    puts("ready");
    fflush(stdout);
    char byte;
    while (read(0, &byte, 1) > 0)
        ;
    is_over = 1;
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    return 0;
}
"#;

/// A parent of vfork sleeps where no signal wakes it: the search takes it as it is, and it goes on when its child ends,
/// after the search.
fn parent_of_vfork() -> Result<(), String> {
    let mut talker = Talker::start_source("vforker.c", VFORKER)?;
    for round in 0..3 {
        must_hold(&talker.line()?, &["asleep"])?;
        for _ in 0..2 {
            must_hold(&ask(talker.launcher.id(), "--all")?, &["0 loss records"])?;
        }
        must_hold(&talker.go_on()?, &[&format!("awake {round}")])?;
    }
    talker.finish_well()
}

/// A thread's children of vfork live until a line comes.
const VFORKER: &str = r#"
#include <pthread.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
static void *work(void *unused)
{
    for (int round = 0; round < 3; round++) {
        char byte;
        pid_t child = vfork();
        if (child == 0) {
            write(1, "asleep\n", 7);
            _exit(read(0, &byte, 1) != 1);
        }
        waitpid(child, NULL, 0);
        printf("awake %d\n", round);
        fflush(stdout);
    }
    return unused;
}
int main(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, work, NULL);
    pthread_join(thread, NULL);
    return 0;
}
"#;

fn refusals() -> Result<(), String> {
    let own = std::process::id();
    // Ids end at 2^22 (proc(5)).
    for (pid, reason) in [
        (1 << 23, "there is no process 8388608".to_owned()),
        (own, format!("process {own} does not run under memcheck")),
    ] {
        match ask(pid, "--new") {
            Err(text) if text == format!("Some(125): memcheck: {reason}") => {}
            other => return Err(format!("{other:?}, expected {reason}")),
        }
    }
    Ok(())
}
