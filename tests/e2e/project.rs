//! `memcheck.toml` and `memcheck doctor`, as a project's developer meets them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::Trial;

use crate::{compile, exec, trial};

/// A test of its own.
type Check = fn() -> Result<(), String>;

/// All of them.
pub fn trials() -> Vec<Trial> {
    let checks: [(&str, Check); 5] = [
        ("settings_of_the_nearest_file_are_in_force", settings),
        ("the_personality_of_valgrind_reads_no_settings", personality),
        ("faulty_settings_are_one_error_with_their_line", faults),
        ("sources_are_found_where_they_were_moved", moved_sources),
        ("the_doctor_says_what_is_in_the_way", doctor),
    ];
    checks.into_iter().map(|(name, check)| trial(format!("project::{name}"), check)).collect()
}

const BUGGY: &str = "#include <stdlib.h>\nint main(void) {\n  volatile char *p = malloc(8);\n  p[8] = 1;\n  free((void *)p);\n}\n";

/// A folder with a program that errs, and one below it.
struct Project {
    scratch: tempfile::TempDir,
}

impl Project {
    fn new(settings: &str) -> Result<Self, String> {
        let project = Self { scratch: exec::scratch()? };
        fs::create_dir(project.path("below")).map_err(|e| e.to_string())?;
        project.write("memcheck.toml", settings)?;
        let source = compile::source("project", "buggy.c", BUGGY)?;
        let program = compile::program(&source, "project", &["-g", "-w"].map(str::to_owned))?;
        exec::copy_program(&program, &project.path("buggy"))?;
        Ok(project)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), String> {
        fs::write(self.path(name), text).map_err(|e| format!("failed to write {name}: {e}"))
    }

    /// The status and both outputs of memcheck in the folder below.
    fn run(&self, words: &[&str]) -> Result<(Option<i32>, String), String> {
        run(exec::memcheck().args(words), &self.path("below"))
    }
}

fn run(command: &mut Command, folder: &Path) -> Result<(Option<i32>, String), String> {
    let output = command.current_dir(folder).stdin(Stdio::null()).output();
    let output = output.map_err(|e| format!("failed to start {command:?}: {e}"))?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&text).into_owned()))
}

fn must(said: (Option<i32>, String), status: i32, words: &[&str]) -> Result<String, String> {
    match words.iter().find(|word| !said.1.contains(**word)) {
        _ if said.0 != Some(status) => Err(format!("status {:?}, expected {status}: {}", said.0, said.1)),
        Some(word) => Err(format!("no {word:?} in: {}", said.1)),
        None => Ok(said.1),
    }
}

fn settings() -> Result<(), String> {
    let project = Project::new("error-exitcode = 7\nsuppressions = [\"known.toml\"]\nstats = true\n")?;
    project.write(
        "known.toml",
        "[[suppress]]\nname = \"n\"\nreason = \"r\"\nkinds = [\"double-free\"]\nstack = [\"fun:main\"]\n",
    )?;
    must(project.run(&["../buggy"])?, 7, &["[heap-buffer-overflow]", "1 allocation and 1 free"])?;
    must(project.run(&["--error-exitcode=8", "../buggy"])?, 8, &[])?;
    must(project.run(&["--config=no", "../buggy"])?, 99, &[])?;
    let shown = must(
        project.run(&["config", "--num-callers=5"])?,
        0,
        &[
            "error-exitcode = \"7\"  # line 1",
            "num-callers = \"5\"  # command line",
            "known.toml\"]  # line 2",
        ],
    )?;
    // What is shown is a file of its own.
    project.write("other.toml", &shown)?;
    must(project.run(&["--config=../other.toml", "../buggy"])?, 7, &["1 allocation and 1 free"])?;
    let file = project.path("memcheck.toml");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).map_err(|e| e.to_string())?;
    must(project.run(&["../buggy"])?, 125, &["can be changed by others"]).map(drop)
}

fn personality() -> Result<(), String> {
    let project = Project::new("error-exitcode = 7\n")?;
    must(project.run(&["--compat=valgrind", "../buggy"])?, 0, &["ERROR SUMMARY: 1 errors"]).map(drop)
}

fn faults() -> Result<(), String> {
    let project = Project::new("")?;
    for (text, words) in [
        ("\nleak-chek = \"full\"\n", &["memcheck.toml:2: ", "--leak-check"][..]),
        ("num-callers = 1000\n", &["memcheck.toml:1: ", "1000"]),
        ("quiet = yes\n", &["memcheck.toml:1: "]),
        ("suppressions = [\"missing.supp\"]\n", &["cannot read ", "missing.supp"]),
    ] {
        project.write("memcheck.toml", text)?;
        let said = must(project.run(&["../buggy"])?, 125, words)?;
        if said.lines().count() != 1 {
            return Err(format!("more than one line: {said}"));
        }
    }
    must(project.run(&["--config=none.toml", "../buggy"])?, 125, &["cannot read none.toml"]).map(drop)
}

fn moved_sources() -> Result<(), String> {
    let built = compile::source("project", "buggy.c", BUGGY)?;
    let from = built.parent().unwrap_or(Path::new("/")).display().to_string();
    let project = Project::new(&format!("[path-map]\n{from:?} = \"src\"\n"))?;
    fs::create_dir(project.path("src")).map_err(|e| e.to_string())?;
    project.write("src/buggy.c", &BUGGY.replace("p[8] = 1;", "p[8] = 1; // moved"))?;
    let place = format!("{}:4:", project.path("src/buggy.c").display());
    must(project.run(&["--json=r.json", "../buggy"])?, 99, &[&place, "// moved"])?;
    let lines = ["convert", "r.json", "--to=oneline", "--path-map=/=/elsewhere"];
    must(project.run(&lines)?, 0, &["/elsewhere/"]).map(drop)
}

fn doctor() -> Result<(), String> {
    let project = Project::new("")?;
    let strip = run(Command::new("strip").args(["buggy", "-o", "bare"]), project.scratch.path())?;
    must(strip, 0, &[])?;
    let source = compile::source("project", "buggy.c", BUGGY)?;
    let source = source.display().to_string();
    must(run(Command::new("cc").args(["-static", &source, "-o", "fixed"]), project.scratch.path())?, 0, &[])?;
    exec::copy_program(&project.path("buggy"), &project.path("root"))?;
    fs::set_permissions(project.path("root"), fs::Permissions::from_mode(0o4755))
        .map_err(|e| e.to_string())?;
    // The machine of the tests may have limits of its own.
    for (words, line) in
        [(&["doctor"][..], "checked its accesses"), (&["doctor", "../buggy"], "show source lines")]
    {
        let said = project.run(words)?;
        let expected = if said.1.contains("limited  ") { 1 } else { 0 };
        must(said, expected, &[line])?;
    }
    must(project.run(&["doctor", "../bare"])?, 1, &["limited  it is stripped", "do: build it with -g"])?;
    must(project.run(&["doctor", "../fixed"])?, 126, &["refused  ", "do: link it without -static"])?;
    must(project.run(&["doctor", "../root"])?, 126, &["setuid", "do: cp the program"])?;
    must(project.run(&["doctor", "../none"])?, 126, &["not found"])?;
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -v 4000000; exec \"$@\"", "sh"]).arg(exec::memcheck().get_program());
    limited.args(["doctor", "../buggy"]);
    must(run(&mut limited, &project.path("below"))?, 1, &["ulimit -v", "at the instruction are not"])
        .map(drop)
}
