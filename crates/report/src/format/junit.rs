//! JUnit's XML as Jenkins, GitLab and others read it: one suite a process, one failed case a finding, one passed case
//! where a process has none.

use std::collections::{BTreeMap, HashSet};

use quick_junit::{NonSuccessKind, Report as Document, TestCase, TestCaseStatus, TestSuite};

use super::{Item, items, plain};
use crate::{Level, Report, SourceRoot};

const CLASS: &str = "memcheck";

/// The document.
pub(super) fn document(report: &Report, root: &SourceRoot) -> String {
    let mut by_process = BTreeMap::<u32, Vec<Item<'_>>>::new();
    for item in items(report) {
        by_process.entry(item.pid()).or_default().push(item);
    }
    let mut document = Document::new(CLASS);
    let mut known = HashSet::new();
    let pids = report.processes.iter().map(|process| process.pid).chain(by_process.keys().copied());
    for pid in pids.filter(|pid| known.insert(*pid)) {
        let command = report.find_process(pid).map_or(&report.command, |process| &process.command).join(" ");
        let mut suite = TestSuite::new(command.as_str());
        match by_process.get(&pid) {
            Some(items) => suite.add_test_cases(items.iter().map(|&item| case(item, &command, root))),
            None => {
                let mut passed = TestCase::new(command.as_str(), TestCaseStatus::success());
                passed.set_classname(CLASS);
                suite.add_test_case(passed)
            }
        };
        document.add_test_suite(suite);
    }
    // Writing to memory does not fail, and quick-junit removes what XML cannot hold. The schema of Jenkins knows no count
    // of skipped cases for all suites together, which stands first.
    document.to_string().unwrap_or_default().replacen(" skipped=\"0\"", "", 1)
}

fn case(item: Item<'_>, command: &str, root: &SourceRoot) -> TestCase {
    let place = item.location().map_or_else(
        || command.to_owned(),
        |(file, frame)| format!("{}:{}", root.relative(file), frame.line.unwrap_or(1)),
    );
    let name = format!("{} at {place}", item.id());
    let text = plain(item, root);
    let mut case = if item.level() == Level::Error {
        let mut failure = TestCaseStatus::non_success(NonSuccessKind::Failure);
        failure.set_type(item.id()).set_message(item.message()).set_description(text);
        TestCase::new(name, failure)
    } else {
        let mut passed = TestCase::new(name, TestCaseStatus::success());
        passed.set_system_out(text);
        passed
    };
    case.set_classname(CLASS);
    case
}
