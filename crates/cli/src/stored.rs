//! What memcheck does with stored reports: `memcheck diff OLD.json NEW.json` and `memcheck merge A.json B.json …`.
//!
//! Both words name other programs too. Invariant: a command is meant for us only when everything after the word is an
//! option or the name of a `.json` file; `memcheck -- diff …` always runs the program.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use memcheck_report::{Comparison, Format, Report};

use crate::{FAILED, fail, outputs::ReportFlags};

/// The status of `diff` when an error is new.
const WORSE: u8 = 1;

/// Shows what changed between two reports.
#[derive(Debug, Parser)]
#[command(
    name = "memcheck diff",
    about = "Shows which findings of two JSON reports are new, gone, the same",
    after_help = "Exit status: 0 when no error is new, 1 when one is, 125 when a report cannot be read."
)]
struct Diff {
    /// The earlier report
    old: PathBuf,

    /// The later report
    new: PathBuf,
}

/// Joins reports.
#[derive(Debug, Parser)]
#[command(
    name = "memcheck merge",
    about = "Joins JSON reports into one, on standard output unless files are named; the counts of equal findings are added up",
    after_help = "Exit status: 0 when the reports are written, 125 when not."
)]
struct Merge {
    /// The reports
    #[arg(required = true)]
    reports: Vec<PathBuf>,

    #[command(flatten)]
    written: ReportFlags,
}

/// The report in this file.
pub fn read(file: &Path) -> Result<Report, String> {
    let content = fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    memcheck_report::read(&content).map_err(|error| format!("{}: {error}", file.display()))
}

/// The answer to a command that is about stored reports.
pub fn try_run(command: &[OsString]) -> Option<ExitCode> {
    let (word, rest) = command.split_first()?;
    let is_ours = |word: &OsString| {
        word.as_encoded_bytes().starts_with(b"--") || Path::new(word).extension() == Some(OsStr::new("json"))
    };
    if rest.is_empty() || !rest.iter().all(is_ours) {
        return None;
    }
    match word.to_str()? {
        "diff" => Some(parsed(command, diff)),
        "merge" => Some(parsed(command, merge)),
        _ => None,
    }
}

fn parsed<T: Parser>(command: &[OsString], run: fn(&T) -> Result<ExitCode, String>) -> ExitCode {
    match T::try_parse_from(command) {
        Ok(arguments) => run(&arguments).unwrap_or_else(|reason| fail(FAILED, &reason)),
        Err(error) => {
            let _ = error.print();
            ExitCode::from(if error.use_stderr() { FAILED } else { 0 })
        }
    }
}

fn print(content: &[u8]) -> Result<(), String> {
    let written = std::io::stdout().write_all(content);
    written.map_err(|error| format!("cannot write to standard output: {error}"))
}

fn diff(arguments: &Diff) -> Result<ExitCode, String> {
    let (old, new) = (read(&arguments.old)?, read(&arguments.new)?);
    let comparison = Comparison::of(&old, &new);
    print(comparison.text().as_bytes())?;
    Ok(if comparison.is_worse() { ExitCode::from(WORSE) } else { ExitCode::SUCCESS })
}

fn merge(arguments: &Merge) -> Result<ExitCode, String> {
    let outputs = arguments.written.prepare().map_err(|error| error.to_string())?;
    let reports = arguments.reports.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
    let files = arguments.reports.iter().map(|file| file.display().to_string());
    let command = ["memcheck", "merge"].map(str::to_owned).into_iter().chain(files).collect();
    let mut merged = memcheck_report::merge(command, reports);
    merged.map_paths(&arguments.written.path_map);
    let root = arguments.written.source_root();
    if outputs.is_empty() {
        print(Format::Json.render(&merged, &root).as_bytes())?;
    }
    outputs.write(&merged, std::process::id(), &root).map_err(|errors| errors.join("; "))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn programs_of_these_names_are_run() {
        for command in
            [&["diff", "a.txt", "b.txt"][..], &["diff"], &["merge", "-p", "a.json"], &["cat", "a.json"]]
        {
            assert!(try_run(&words(command)).is_none(), "{command:?}");
        }
    }

    #[test]
    fn reports_that_cannot_be_read_are_a_failure() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("other.json");
        fs::write(&file, r#"{"schema":"memcheck-report/9"}"#).unwrap();
        assert!(read(&file).unwrap_err().contains("memcheck-report/9"));
        assert!(read(&directory.path().join("missing.json")).unwrap_err().starts_with("cannot read"));
        assert!(try_run(&words(&["diff", "/no/such.json", "/nor/this.json"])).is_some());
    }
}
