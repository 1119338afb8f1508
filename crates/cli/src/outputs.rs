//! The reports that a run or a conversion writes: their options, and writing them.
//!
//! Invariant: every file was tried before the program starts.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs::{File, OpenOptions},
    io::Write as _,
    path::PathBuf,
};

use memcheck_report::{Format, PathMap, Protocol, Report, SourceRoot, step_summary};

use crate::{
    destination::{Destination, DestinationError},
    flags::YesNo,
    progress, valgrind,
};

/// Where GitHub wants the text for the page of a run.
const STEP_SUMMARY: &str = "GITHUB_STEP_SUMMARY";

/// The files to write, one option a format.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Reports (%p: process id, %q{VAR}: environment variable)")]
pub struct ReportFlags {
    /// Write a JSON report to this file
    #[arg(long, value_name = "FILE", require_equals = true)]
    json: Option<OsString>,

    /// Write SARIF 2.1.0, for code scanning, to this file
    #[arg(long, value_name = "FILE", require_equals = true)]
    sarif: Option<OsString>,

    /// Write JUnit's XML to this file
    #[arg(long, value_name = "FILE", require_equals = true)]
    junit: Option<OsString>,

    /// Write a GitLab Code Quality report to this file
    #[arg(long, value_name = "FILE", require_equals = true, alias = "gitlab")]
    codequality: Option<OsString>,

    /// Write GitHub's annotation commands to this file, or to standard error; what GitHub does not show of them goes to
    /// the step summary
    #[arg(long, value_name = "FILE", require_equals = true, num_args = 0..=1,
        default_missing_value = "/dev/stderr")]
    github: Option<OsString>,

    /// Write a line for each finding, as compilers do, to this file
    #[arg(long, value_name = "FILE", require_equals = true)]
    oneline: Option<OsString>,

    /// Write a page for a browser to this file
    #[arg(long, value_name = "FILE", require_equals = true)]
    html: Option<OsString>,

    /// Write Valgrind's XML to the file that --xml-file names
    #[arg(long, value_name = "YES|NO", default_value = "no", require_equals = true)]
    xml: YesNo,

    /// Write Valgrind's XML to this file
    #[arg(long, value_name = "FILE", require_equals = true)]
    xml_file: Option<OsString>,

    /// The protocol of Valgrind's XML: 4, 5 or 6
    #[arg(long, value_name = "N", default_value = "4", require_equals = true, value_parser = protocol)]
    xml_protocol: Protocol,

    /// Where source files are that debugging information has elsewhere: every file below FROM is below TO
    #[arg(long, value_name = "FROM=TO", require_equals = true)]
    pub path_map: Vec<PathMap>,

    /// The folder that source paths in reports are relative to (the working directory)
    #[arg(long, value_name = "DIR", require_equals = true)]
    source_root: Option<PathBuf>,
}

fn protocol(number: &str) -> Result<Protocol, String> {
    Protocol::ALL
        .into_iter()
        .find(|protocol| protocol.number() == number)
        .ok_or_else(|| "protocols 4, 5 and 6 are known".to_owned())
}

impl ReportFlags {
    /// What contradicts itself.
    pub fn find_contradiction(&self) -> Option<&'static str> {
        (self.xml == YesNo::Yes && self.xml_file.is_none())
            .then_some("--xml=yes needs a file: --xml-file=FILE")
    }

    /// The folder that paths are relative to.
    pub fn source_root(&self) -> SourceRoot {
        let root =
            self.source_root.clone().map_or_else(std::env::current_dir, |root| std::path::absolute(&root));
        SourceRoot::new(&root.unwrap_or_default())
    }

    /// Tries all files.
    pub fn prepare(&self) -> Result<Outputs, DestinationError> {
        let wanted = [
            (Format::Json, &self.json),
            (Format::Sarif, &self.sarif),
            (Format::Junit, &self.junit),
            (Format::CodeQuality, &self.codequality),
            (Format::Github, &self.github),
            (Format::OneLine, &self.oneline),
            (Format::Html, &self.html),
            (Format::ValgrindXml(self.xml_protocol), &self.xml_file),
        ];
        let mut files = Vec::new();
        for (format, pattern) in wanted {
            if let Some(pattern) = pattern {
                files.push((format, Destination::prepare(pattern)?));
            }
        }
        Ok(Outputs { files, socket: None, is_one_for_each_process: false })
    }
}

/// Files that can be written.
#[derive(Debug)]
pub struct Outputs {
    files: Vec<(Format, Destination)>,
    /// Somebody who listens for Valgrind's XML.
    socket: Option<File>,
    /// Whether a `%p` in a file's name gives every process a report of its own.
    is_one_for_each_process: bool,
}

impl Outputs {
    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.socket.is_none()
    }

    /// Does as Valgrind does: `%p` names a file for each process, and XML may go to a socket.
    pub fn use_manner(&mut self, manner: &valgrind::Manner) -> Result<(), String> {
        self.is_one_for_each_process = true;
        self.socket = manner.xml_socket.as_deref().map(valgrind::connect).transpose()?;
        Ok(())
    }

    /// The reports for a file, each with the process that it is about.
    fn reports<'a>(
        &self,
        report: &'a Report,
        pid: u32,
        destination: &Destination,
    ) -> Vec<(u32, Cow<'a, Report>)> {
        if !self.is_one_for_each_process || !destination.is_one_for_each_process() {
            return vec![(pid, Cow::Borrowed(report))];
        }
        let pids: BTreeSet<u32> = report.processes.iter().map(|process| process.pid).collect();
        pids.into_iter().filter_map(|pid| Some((pid, Cow::Owned(report.of_process(pid)?)))).collect()
    }

    /// Writes all of them. One that fails keeps none of the others from being written.
    pub fn write(&self, report: &Report, pid: u32, root: &SourceRoot) -> Result<(), Vec<String>> {
        let mut failures = Vec::new();
        for (format, destination) in &self.files {
            for (pid, report) in self.reports(report, pid, destination) {
                let content = progress::during("writing the reports", || format.render(&report, root));
                if let Err(error) = destination.write_whole(pid, content.as_bytes()) {
                    failures.push(error.to_string());
                }
            }
            if *format == Format::Github
                && let Some(file) = std::env::var_os(STEP_SUMMARY)
                && let Some(summary) = step_summary(report, root)
                && let Err(error) = append(&file, &summary)
            {
                failures.push(format!("cannot write {}: {error}", file.display()));
            }
        }
        if let Some(mut socket) = self.socket.as_ref() {
            let content = Format::ValgrindXml(Protocol::Four).render(report, root);
            if let Err(error) = socket.write_all(content.as_bytes()) {
                failures.push(format!("--xml-socket: {error}"));
            }
        }
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }
}

fn append(file: &OsStr, text: &str) -> std::io::Result<()> {
    OpenOptions::new().append(true).create(true).open(file)?.write_all(text.as_bytes())
}
