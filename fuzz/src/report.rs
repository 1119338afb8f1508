//! Any bytes as a stored report, and what is made of it: every format, a comparison, a merged report, a baseline.
//!
//! Oracle: a report that is read is written and read again as the same; every format is what its readers expect as far
//! as syntax goes; a report compared with itself has nothing new, merged with itself it has the same findings, and
//! held against itself as the baseline it is clean.

use memcheck_model::LeakKind;
use memcheck_report::{Comparison, Format, Report, SourceRoot, Verdict, merge, read, step_summary};

/// The report that tests of the formats have.
#[path = "../../crates/report/tests/sample/mod.rs"]
mod sample;

/// The whole input is the report.
pub fn run(data: &[u8]) {
    let report = match read(data) {
        Ok(report) => report,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let written = Format::Json.render(&report, &SourceRoot::default());
    assert_eq!(read(written.as_bytes()).expect("our own report"), report);
    show(&report);
    let same = Comparison::of(&report, &report);
    assert!(!same.is_worse() && same.text().contains("0 new, 0 gone, "), "{}", same.text());
    assert!(!Comparison::of(&report, &Report::new(Vec::new())).is_worse());
    compare_merged(&report);
    let mut known = report.clone();
    known.baseline = Some(report.as_baseline());
    known.summary.verdict = Verdict::Clean;
    known.summarize(&LeakKind::ALL);
    assert_eq!((known.summary.verdict, known.summary.failing_leaks), (Verdict::Clean, 0));
    if let Some(process) = report.processes.first() {
        assert!(report.of_process(process.pid).is_some());
    }
}

fn compare_merged(report: &Report) {
    let once = merge(vec!["m".to_owned()], vec![report.clone()]);
    let twice = merge(vec!["m".to_owned()], vec![report.clone(), report.clone()]);
    assert_eq!((once.errors.len(), once.leaks.len()), (twice.errors.len(), twice.leaks.len()));
    assert_eq!(once.summary.verdict, twice.summary.verdict);
    for (one, two) in once.errors.iter().zip(&twice.errors) {
        assert!(two.count >= one.count, "{one:?} {two:?}");
    }
    for (one, two) in once.leaks.iter().zip(&twice.leaks) {
        assert!(two.bytes >= one.bytes && two.blocks >= one.blocks, "{one:?} {two:?}");
    }
    assert!(!Comparison::of(report, &twice).is_worse());
    show(&twice);
}

/// Every format of the report.
pub fn show(report: &Report) {
    let root = SourceRoot::new(std::path::Path::new("/home/u"));
    for format in Format::ALL {
        let text = format.render(report, &root);
        match format {
            Format::Json | Format::Sarif | Format::CodeQuality => {
                let parsed: Result<serde_json::Value, _> = serde_json::from_str(&text);
                assert!(parsed.is_ok(), "{}: {parsed:?}\n{text}", format.name());
            }
            Format::Junit | Format::ValgrindXml(_) => check_xml(format.name(), &text),
            Format::Text | Format::Html => assert!(!text.is_empty()),
            Format::Github => assert!(text.lines().all(|line| line.starts_with("::")), "{text:?}"),
            Format::OneLine => {
                assert_eq!(text.lines().count(), report.errors.len() + report.leaks.len(), "{text:?}");
                assert!(!text.contains('\r'), "{text:?}");
            }
        }
    }
    assert!(step_summary(report, &root).is_none_or(|text| text.ends_with('\n')));
}

/// Whether elements nest and every character is one that XML has (XML 1.0, 2.2).
fn check_xml(name: &str, text: &str) {
    let is_character = |letter: char| matches!(letter, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    assert!(text.chars().all(is_character), "{name}: {text}");
    let mut reader = quick_xml::Reader::from_str(text);
    reader.config_mut().check_end_names = true;
    let mut depth = 0u32;
    loop {
        match reader.read_event() {
            Ok(quick_xml::events::Event::Eof) => break,
            Ok(quick_xml::events::Event::Start(element)) => {
                assert!(element.attributes().all(|attribute| attribute.is_ok()), "{name}: {text}");
                depth += 1;
            }
            Ok(quick_xml::events::Event::End(_)) => depth -= 1,
            Ok(_) => {}
            Err(error) => panic!("{name}: {error}\n{text}"),
        }
    }
    assert_eq!(depth, 0, "{name}: {text}");
}

/// A report with something of everything, one with little, and one with nothing.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let full = sample::report();
    let mut small = full.clone();
    small.errors.truncate(1);
    small.leaks.truncate(1);
    small.stale.clear();
    if let Some(frame) = small.errors.first_mut().and_then(|finding| finding.stack.first_mut()) {
        frame.file = Some("src/two\nlines.c".into());
    }
    let written = |report: &Report| Format::Json.render(report, &SourceRoot::default()).into_bytes();
    let compact = |report: &Report| serde_json::to_vec(report).unwrap_or_default();
    vec![written(&full), compact(&full), compact(&small), written(&Report::new(Vec::new()))]
}
