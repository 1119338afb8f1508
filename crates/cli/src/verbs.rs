//! What memcheck does besides running a program: `convert`, `config`, `doctor`, `ctl`, `completions`, `man`.
//!
//! Each verb is a word that programs bear too. Invariant: a command line that a program of that name could be meant
//! by runs the program, as does one whose verb is the name of a program that exists (`config`, `doctor`); `memcheck --
//! convert …` always does.

use std::{
    ffi::{OsStr, OsString},
    io::Write as _,
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser as _};
use clap_complete::Shell;

use crate::{
    FAILED, Shim, config::Config, convert, convert::Convert, ctl, doctor, fail, flags::Flags, program,
};

/// The verb's answer, when the command is one.
pub fn try_verb(command: &[OsString], shim: Shim) -> Option<ExitCode> {
    let words: Vec<&str> = command.iter().map(|word| word.to_str().unwrap_or_default()).collect();
    match words[..] {
        // ImageMagick's convert has no options of two dashes.
        ["convert", ref rest @ ..] if rest.iter().any(|word| word.starts_with("--")) => {
            Some(match Convert::try_parse_from(command) {
                Ok(convert) => convert::run(&convert),
                Err(error) => {
                    let _ = error.print();
                    ExitCode::from(if error.use_stderr() { FAILED } else { 0 })
                }
            })
        }
        ["ctl", pid, ref rest @ ..] if is_control(pid, rest) => Some(ctl::run(command)),
        ["completions", shell] => Some(match shell.parse::<Shell>() {
            Ok(shell) => print(&completions(shell)),
            Err(_) => fail(
                FAILED,
                &format_args!("no completions for {shell:?}: bash, elvish, fish, powershell or zsh"),
            ),
        }),
        ["config", ref options @ ..]
            if options.iter().all(|word| word.starts_with('-')) && !is_program("config") =>
        {
            Some(config(&command[1..]))
        }
        ["doctor", ..] if !is_program("doctor") => Some(doctor::run(&command[1..], shim)),
        ["man"] => Some(print(&manual())),
        _ => None,
    }
}

/// `PID WHAT …`, or a call for help.
fn is_control(pid: &str, rest: &[&str]) -> bool {
    match rest.first() {
        Some(&what) => pid.parse::<u32>().is_ok() && (what == "leaks" || what == "--help"),
        None => pid == "--help",
    }
}

/// Whether a shell would find a program of this name.
fn is_program(name: &str) -> bool {
    program::locate(OsStr::new(name), std::env::var_os("PATH").as_deref()).is_ok()
}

fn config(options: &[OsString]) -> ExitCode {
    let config = match Config::find(options, &std::env::current_dir().unwrap_or_default()) {
        Ok(config) => config,
        Err(reason) => return fail(FAILED, &reason),
    };
    match config.describe(options) {
        Ok(text) => print(text.as_bytes()),
        Err(error) => {
            let _ = error.print();
            ExitCode::from(if error.use_stderr() { FAILED } else { 0 })
        }
    }
}

fn print(content: &[u8]) -> ExitCode {
    match std::io::stdout().write_all(content) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(FAILED, &format_args!("cannot write to standard output: {error}")),
    }
}

fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Flags::command(), "memcheck", &mut script);
    script
}

/// The manual page, as troff.
fn manual() -> Vec<u8> {
    let mut page = Vec::new();
    // Writing to memory does not fail.
    let _ = clap_mangen::Man::new(Flags::command()).render(&mut page);
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn programs_of_a_verbs_name_are_programs() {
        for command in [
            &["convert", "a.png", "b.jpg"][..],
            &["./convert", "--to=sarif"],
            &["convert"],
            &["man", "ls"],
            &["completions"],
            &["ctl"],
            &["ctl", "start"],
            &["ctl", "7", "stop"],
        ] {
            assert!(try_verb(&words(command), Shim::default()).is_none(), "{command:?}");
        }
    }

    #[test]
    fn a_conversion_is_answered_even_when_it_fails() {
        assert!(try_verb(&words(&["convert", "--to=nothing", "x"]), Shim::default()).is_some());
        assert!(try_verb(&words(&["convert", "/no/such/report", "--to=sarif"]), Shim::default()).is_some());
    }

    #[test]
    fn completions_and_the_manual_know_every_option() {
        let shown: Vec<String> = Flags::command()
            .get_arguments()
            .filter(|argument| !argument.is_hide_set())
            .filter_map(|argument| argument.get_long().map(str::to_owned))
            .collect();
        assert!(shown.len() > 20);
        let manual = String::from_utf8(manual()).unwrap().replace('\\', "");
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = String::from_utf8(completions(shell)).unwrap();
            for option in &shown {
                assert!(script.contains(option.as_str()), "{shell}: {option}");
                assert!(manual.contains(&format!("--{option}")), "{option}");
            }
        }
    }
}
