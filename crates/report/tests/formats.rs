//! Every format holds every finding, and is what its readers expect.

use memcheck_model::{Addr, LeakKind};
use memcheck_report::{
    AccessRecord, Exit, Finding, Format, Frame, LeakRecord, Level, Losses, Operation, Process, Protocol,
    Report, SourceRoot, read, step_summary,
};
use serde_json::Value;

fn frame(function: &str, line: u32) -> Frame {
    Frame {
        pc: Addr(0x40_1136),
        module: Some("/home/u/a.out".into()),
        offset: Some(0x1136),
        function: Some(function.into()),
        file: Some("src/a b.c".into()),
        line: Some(line),
        column: Some(7),
        inlined: false,
    }
}

fn finding(id: &str, message: &str) -> Finding {
    Finding {
        id: id.into(),
        severity: Level::Error,
        message: message.into(),
        pid: 12,
        tid: 12,
        count: 3,
        function: None,
        access: Some(AccessRecord { op: Operation::Write, size: 4, address: Addr(0x2000) }),
        block: None,
        stack: vec![frame("fill", 9), frame("main", 20)],
        allocated: vec![frame("make", 4)],
        freed: Vec::new(),
        fingerprint: "00112233aabbccdd".into(),
        notes: vec!["a note with <markup> & more".into()],
        help: "try this".into(),
        suppression: Some(
            "{\n   <a rule>\n   Memcheck:Free\n   fun:free\n   obj:*/lib.so\n   ...\n}\n".into(),
        ),
    }
}

fn report() -> Report {
    let mut report = Report::new(vec!["./a.out".into(), "x<y".into()]);
    report.processes.push(Process {
        pid: 12,
        ppid: 1,
        command: report.command.clone(),
        exit: Some(Exit::Code(0)),
        heap: Default::default(),
        coverage: Default::default(),
        functions: Default::default(),
    });
    report.errors.push(finding("heap-buffer-overflow", "write of 4 bytes, 0 bytes past the end"));
    report.errors.push(finding("double-free", "50%: free, again"));
    let losses = Losses { blocks: 1, bytes: 10, indirect_blocks: 0, indirect_bytes: 0 };
    report.leaks.push(LeakRecord::new(LeakKind::Definite, losses, 12, vec![frame("make", 4)]));
    report.summarize(&[LeakKind::Definite]);
    report
}

fn rendered(format: Format, report: &Report) -> String {
    format.render(report, &SourceRoot::default())
}

#[test]
fn every_format_has_its_name_and_tells_every_finding() {
    for format in Format::ALL {
        assert_eq!(Format::from_name(format.name()), Some(format));
        let text = rendered(format, &report());
        assert!(text.contains("write of 4 bytes"), "{}", format.name());
        assert!(text.contains("10 bytes in 1 block"), "{}", format.name());
    }
}

#[test]
fn a_stored_report_converts_as_the_fresh_one_does() {
    let fresh = report();
    let stored = read(rendered(Format::Json, &fresh).as_bytes()).unwrap();
    assert_eq!(stored, fresh);
}

#[test]
fn a_report_of_another_version_is_refused_with_its_version() {
    let json = rendered(Format::Json, &report()).replace("memcheck-report/1", "memcheck-report/9");
    let error = read(json.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("memcheck-report/9"), "{error}");
    assert!(read(b"{").is_err() && read(b"[]").is_err());
}

#[test]
fn lines_are_what_compilers_print() {
    let text = rendered(Format::OneLine, &report());
    assert_eq!(
        text.lines().next().unwrap(),
        "src/a b.c:9:7: error: write of 4 bytes, 0 bytes past the end [heap-buffer-overflow]"
    );
    assert_eq!(text.lines().count(), 3);
}

#[test]
fn github_commands_escape_what_would_end_them() {
    let text = rendered(Format::Github, &report());
    let second = text.lines().nth(1).unwrap();
    assert!(
        second.starts_with("::error file=src/a b.c,line=9,col=7,title=double-free::50%25: free, again%0A")
    );
}

#[test]
fn gitlab_issues_have_distinct_fingerprints() {
    let issues: Value = serde_json::from_str(&rendered(Format::CodeQuality, &report())).unwrap();
    let prints: Vec<&str> =
        issues.as_array().unwrap().iter().map(|issue| issue["fingerprint"].as_str().unwrap()).collect();
    assert_eq!(prints[..2], ["00112233aabbccdd", "00112233aabbccdd-2"]);
    assert_eq!(issues[0]["location"]["lines"]["begin"], 9);
}

#[test]
fn sarif_results_refer_to_rules_that_exist() {
    let log: Value = serde_json::from_str(&rendered(Format::Sarif, &report())).unwrap();
    let run = &log["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    for result in run["results"].as_array().unwrap() {
        let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(rules[index]["id"], result["ruleId"]);
        let place = &result["locations"][0]["physicalLocation"]["artifactLocation"];
        assert_eq!(
            (place["uri"].as_str(), place["uriBaseId"].as_str()),
            (Some("src/a%20b.c"), Some("SRCROOT"))
        );
    }
    assert_eq!(run["results"][0]["relatedLocations"][0]["message"]["text"], "the block was allocated here");
    let flow = &run["results"][0]["codeFlows"][0]["threadFlows"][0]["locations"];
    assert_eq!(flow[1]["location"]["logicalLocations"][0]["fullyQualifiedName"], "fill");
}

#[test]
fn junit_counts_cases_and_failures() {
    let text = rendered(Format::Junit, &report());
    assert!(text.contains("<testsuites name=\"memcheck\" tests=\"3\" failures=\"3\""), "{text}");
    assert!(text.contains("<testsuite name=\"./a.out x&lt;y\" tests=\"3\""), "{text}");
    assert!(text.contains("note: a note with &lt;markup&gt; &amp; more"));
    let mut clean = report();
    clean.errors.clear();
    clean.leaks.clear();
    assert!(rendered(Format::Junit, &clean).contains("tests=\"1\" failures=\"0\""));
}

#[test]
fn valgrind_xml_has_only_kinds_that_its_readers_know() {
    let text = rendered(Format::ValgrindXml(Protocol::Four), &report());
    let kinds: Vec<&str> =
        text.lines().filter_map(|line| line.trim().strip_prefix("<kind>")?.strip_suffix("</kind>")).collect();
    assert_eq!(kinds, ["InvalidWrite", "InvalidFree", "Leak_DefinitelyLost"]);
    assert!(text.contains("<leakedbytes>10</leakedbytes>") && text.contains("<count>3</count>"));
    assert!(text.contains("<dir>src</dir>") && text.contains("<file>a b.c</file>"));
    let rule: String =
        text.lines().skip_while(|line| !line.contains("<suppression>")).take(11).map(str::trim).collect();
    let expected = "<suppression><sname>a rule</sname><skind>Memcheck:Free</skind><sframe><fun>free</fun></sframe>\
        <sframe><obj>*/lib.so</obj></sframe>";
    assert!(rule.starts_with(expected), "{rule}");
}

#[test]
fn what_github_does_not_annotate_is_in_the_summary_of_the_step() {
    let mut report = report();
    assert_eq!(step_summary(&report, &SourceRoot::default()), None);
    for number in 0..20 {
        report.errors.push(finding("bad-free", &format!("free number {number} of a|b <i>")));
    }
    let commands = rendered(Format::Github, &report);
    assert_eq!(commands.lines().count(), 11);
    assert!(commands.lines().last().unwrap().contains("13 further findings"));
    let summary = step_summary(&report, &SourceRoot::default()).unwrap();
    assert_eq!(summary.lines().filter(|line| line.contains("bad-free")).count(), 12);
    assert!(summary.contains("free number 19 of a\\|b &lt;i>"), "{summary}");
}

#[test]
fn paths_below_the_source_root_are_relative_in_every_format_for_others() {
    let mut report = report();
    for finding in &mut report.errors {
        finding.stack[0].file = Some("/home/u/p/build/../src/x.c".into());
    }
    let root = SourceRoot::new(std::path::Path::new("/home/u/p"));
    for format in [Format::Sarif, Format::CodeQuality, Format::Github, Format::OneLine, Format::Junit] {
        let text = format.render(&report, &root);
        assert!(text.contains("src/x.c") && !text.contains("/home/u/p/build"), "{}", format.name());
    }
    assert!(Format::Sarif.render(&report, &root).contains("\"uri\":\"file:///home/u/p/\""));
}
