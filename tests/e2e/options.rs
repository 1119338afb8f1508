//! What the options of the launcher do, each as a user meets it: its text, its files, its status.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::Trial;

use crate::{compile, exec, trial};

/// A test of its own.
type Check = fn() -> Result<(), String>;

/// All of them.
pub fn trials() -> Vec<Trial> {
    let checks: [(&str, Check); 2] = [
        ("explain_takes_its_finding_after_a_space", explain),
        ("limit_on_file_sizes_is_one_error", file_size_limit),
    ];
    checks.into_iter().map(|(name, check)| trial(format!("options::{name}"), check)).collect()
}

/// What a command said and how it ended.
struct Said {
    status: String,
    stdout: String,
    stderr: String,
}

fn say(command: &mut Command, folder: &Path) -> Result<Said, String> {
    let output = command
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("failed to start {command:?}: {e}"))?;
    Ok(Said {
        status: exec::describe(output.status),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

impl Said {
    /// Fails unless it ended so and said each of these words.
    fn must(&self, status: &str, words: &[&str]) -> Result<(), String> {
        let both = format!("{}{}", self.stdout, self.stderr);
        match words.iter().find(|word| !both.contains(**word)) {
            _ if self.status != status => Err(format!("{}, expected {status}: {both}", self.status)),
            Some(word) => Err(format!("no {word:?} in: {both}")),
            None => Ok(()),
        }
    }
}

fn clean() -> Result<PathBuf, String> {
    let source = compile::source("options", "clean.c", "int main(void) { return 0; }\n")?;
    compile::program(&source, "options", &["-g".to_owned()])
}

fn explain() -> Result<(), String> {
    let scratch = exec::scratch()?;
    for words in [&["--explain", "double-free"][..], &["--explain=double-free"]] {
        say(exec::memcheck().args(words), scratch.path())?.must("exit 0", &["double-free: "])?;
    }
    say(exec::memcheck().args(["--explain", "double-fee"]), scratch.path())?.must("exit 125", &["double-fee"])
}

fn file_size_limit() -> Result<(), String> {
    let scratch = exec::scratch()?;
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -f 0; exec \"$@\"", "sh"]).arg(exec::memcheck().get_program()).arg(clean()?);
    say(&mut shell, scratch.path())?.must("exit 125", &["memcheck: cannot size the channel", "ulimit -f"])
}
