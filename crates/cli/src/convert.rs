//! `memcheck convert REPORT.json`: a stored report in other formats, any number at once.

use std::{fs, io::Write as _, path::PathBuf, process::ExitCode};

use clap::{
    Parser,
    builder::{PossibleValuesParser, TypedValueParser},
};
use memcheck_report::{Format, SourceRoot};

use crate::{FAILED, fail, outputs::ReportFlags, progress};

/// What to convert, and to what.
#[derive(Debug, Parser)]
#[command(name = "memcheck convert", about = "Writes a stored JSON report in other formats")]
pub struct Convert {
    /// The report that --json wrote
    report: PathBuf,

    /// Write this format to standard output: text, json, sarif, junit, codequality, github, oneline, html, xml, xml-5,
    /// xml-6
    #[arg(long, value_name = "FORMAT", require_equals = true, value_parser = formats(), hide_possible_values = true)]
    to: Option<Format>,

    #[command(flatten)]
    reports: ReportFlags,
}

/// Reads the name of a format.
fn formats() -> impl TypedValueParser<Value = Format> {
    let names = Format::ALL.map(Format::name);
    PossibleValuesParser::new(names).try_map(|name| Format::from_name(&name).ok_or("no format has this name"))
}

/// Converts.
pub fn run(convert: &Convert) -> ExitCode {
    match try_run(convert) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => fail(FAILED, &reason),
    }
}

fn try_run(convert: &Convert) -> Result<(), String> {
    let file = convert.report.display();
    let outputs = convert.reports.prepare().map_err(|error| error.to_string())?;
    if convert.to.is_none() && outputs.is_empty() {
        return Err(
            "nothing to convert to: --to=FORMAT, or a file for a format such as --html=FILE".to_owned()
        );
    }
    let content = fs::read(&convert.report).map_err(|error| format!("cannot read {file}: {error}"))?;
    let mut report = progress::during("reading the report", || memcheck_report::read(&content))
        .map_err(|error| format!("{file}: {error}"))?;
    report.map_paths(&convert.reports.path_map);
    let pid = report.processes.first().map_or(0, |process| process.pid);
    let root: SourceRoot = convert.reports.source_root();
    outputs.write(&report, pid, &root).map_err(|errors| errors.join("; "))?;
    if let Some(format) = convert.to {
        let text = progress::during("converting", || format.render(&report, &root));
        std::io::stdout()
            .write_all(text.as_bytes())
            .map_err(|error| format!("cannot write to standard output: {error}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    use memcheck_report::Report;

    fn converted(words: &[OsString]) -> Result<(), String> {
        try_run(&Convert::try_parse_from(words).map_err(|error| error.to_string())?)
    }

    #[test]
    fn one_reading_writes_any_number_of_formats() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).into_os_string();
        let report = Report::new(vec!["a.out".into()]);
        fs::write(at("r.json"), serde_json::to_vec(&report).unwrap()).unwrap();
        let option = |name: &str, file: &str| {
            let mut word = OsString::from(name);
            word.push(at(file));
            word
        };
        let words =
            ["convert".into(), at("r.json"), option("--sarif=", "r.sarif"), option("--html=", "r.html")];
        converted(&words).unwrap();
        assert!(fs::read_to_string(at("r.sarif")).unwrap().contains("\"2.1.0\""));
        assert!(fs::read_to_string(at("r.html")).unwrap().starts_with("<!doctype html>"));
        let error = converted(&words[..2]).unwrap_err();
        assert!(error.starts_with("nothing to convert to"), "{error}");
    }
}
