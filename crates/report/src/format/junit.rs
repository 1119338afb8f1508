//! JUnit's XML as Jenkins, GitLab and others read it: one suite a process, one failed case a finding, one passed case
//! where a process has none.

use super::{Item, items, plain};
use crate::xml::Xml;
use crate::{Level, Report};

/// The document.
pub(super) fn document(report: &Report) -> String {
    let mut pids: Vec<u32> = report.processes.iter().map(|process| process.pid).collect();
    pids.extend(items(report).map(pid));
    let mut known = std::collections::HashSet::new();
    pids.retain(|pid| known.insert(*pid));
    let is_failure = |item: &Item<'_>| item.level() == Level::Error;
    let failures = items(report).filter(is_failure).count();
    let tests: usize = pids.iter().map(|&id| cases(report, id).len().max(1)).sum();
    let mut xml = Xml::new();
    let (tests, failures) = (tests.to_string(), failures.to_string());
    xml.element("testsuites", &[("name", "memcheck"), ("tests", &tests), ("failures", &failures)], |xml| {
        for id in pids {
            suite(xml, report, id);
        }
    });
    xml.finish()
}

fn pid(item: Item<'_>) -> u32 {
    match item {
        Item::Error(finding) => finding.pid,
        Item::Leak(leak) => leak.pid,
    }
}

fn cases(report: &Report, id: u32) -> Vec<Item<'_>> {
    items(report).filter(|item| pid(*item) == id).collect()
}

fn suite(xml: &mut Xml, report: &Report, id: u32) {
    let cases = cases(report, id);
    let command = report.find_process(id).map_or(&report.command, |process| &process.command).join(" ");
    let tests = cases.len().max(1).to_string();
    let failures = cases.iter().filter(|item| item.level() == Level::Error).count().to_string();
    let attributes = [("name", command.as_str()), ("tests", &tests), ("failures", &failures)];
    xml.element("testsuite", &attributes, |xml| {
        if cases.is_empty() {
            xml.element("testcase", &[("classname", "memcheck"), ("name", &command)], |_| {});
        }
        for item in cases {
            let place = item.location().map_or_else(
                || command.clone(),
                |(file, frame)| format!("{file}:{}", frame.line.unwrap_or(1)),
            );
            let name = format!("{} at {place}", item.id());
            xml.element("testcase", &[("classname", "memcheck"), ("name", &name)], |xml| {
                let text = plain(item);
                if item.level() == Level::Error {
                    xml.leaf_with("failure", &[("type", item.id()), ("message", item.message())], &text);
                } else {
                    xml.leaf("system-out", &text);
                }
            });
        }
    });
}
