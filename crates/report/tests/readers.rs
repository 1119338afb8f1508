//! What each format's own readers insist on: the published schemas, and a reader of Valgrind's XML that knows nothing of
//! ours and refuses what the protocol does not name.

mod sample;

use std::io::Write as _;
use std::process::{Command, Stdio};

use memcheck_model::LeakKind;
use memcheck_report::{Format, Level, Protocol, SourceRoot};
use sample::report;
use serde::Deserialize;
use serde_json::{Value, json};

fn rendered(format: Format) -> String {
    format.render(&report(), &SourceRoot::new(std::path::Path::new("/home/u")))
}

fn must_be_valid(schema: &Value, instance: &Value) {
    let validator = jsonschema::validator_for(schema).unwrap();
    let errors: Vec<String> = validator
        .iter_errors(instance)
        .map(|error| format!("{error} at {}", error.instance_path()))
        .collect();
    assert_eq!(errors, Vec::<String>::new());
}

#[test]
fn sarif_is_valid_under_its_published_schema() {
    // Its patterns for languages have a bracket too many.
    let schema = include_str!("fixtures/sarif-schema-2.1.0.json").replace("{2}]?$", "{2}$");
    let schema = serde_json::from_str(&schema).unwrap();
    must_be_valid(&schema, &serde_json::from_str(&rendered(Format::Sarif)).unwrap());
}

#[test]
fn sarif_keeps_the_limits_of_github() {
    let log: Value = serde_json::from_str(&rendered(Format::Sarif)).unwrap();
    let run = &log["runs"][0];
    for rule in run["tool"]["driver"]["rules"].as_array().unwrap() {
        assert!(rule["properties"]["tags"].as_array().unwrap().len() <= 20);
        let severity: f64 = rule["properties"]["security-severity"].as_str().unwrap().parse().unwrap();
        assert!((0.0..=10.0).contains(&severity));
        assert!(rule["help"]["text"].as_str().is_some_and(|text| !text.is_empty()));
    }
    for result in run["results"].as_array().unwrap() {
        let location = &result["locations"][0]["physicalLocation"];
        assert!(location["artifactLocation"]["uri"].is_string(), "{result}");
        assert!(location["region"]["startLine"].as_u64().is_some_and(|line| line > 0), "{result}");
        assert!(result["partialFingerprints"]["memcheck/v1"].is_string());
    }
    let mut many = report();
    let mut one = many.errors[0].clone();
    one.stack.truncate(1);
    (one.allocated, one.freed) = (Vec::new(), Vec::new());
    many.errors.resize(25_010, one);
    let log: Value = serde_json::from_str(&Format::Sarif.render(&many, &SourceRoot::default())).unwrap();
    assert_eq!(log["runs"][0]["results"].as_array().unwrap().len(), 25_000);
    let warning = &log["runs"][0]["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"];
    assert!(warning.as_str().unwrap().contains("findings are left out"), "{warning}");
}

#[test]
fn code_quality_is_what_gitlab_documents() {
    let schema = json!({
        "type": "array",
        "items": {
            "type": "object",
            "required": ["description", "check_name", "fingerprint", "severity", "location"],
            "properties": {
                "description": { "type": "string", "minLength": 1 },
                "check_name": { "type": "string", "minLength": 1 },
                "fingerprint": { "type": "string", "minLength": 1 },
                "severity": { "enum": ["info", "minor", "major", "critical", "blocker"] },
                "location": {
                    "type": "object",
                    "required": ["path", "lines"],
                    "properties": {
                        "path": { "type": "string", "pattern": "^(?!\\./)" },
                        "lines": {
                            "type": "object",
                            "required": ["begin"],
                            "properties": { "begin": { "type": "integer", "minimum": 1 } },
                        },
                    },
                },
            },
        },
    });
    must_be_valid(&schema, &serde_json::from_str(&rendered(Format::CodeQuality)).unwrap());
}

#[test]
fn junit_is_valid_under_the_schema_of_jenkins() {
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/jenkins-junit.xsd");
    let mut xmllint = Command::new("xmllint")
        .args(["--noout", "--schema", schema, "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("xmllint is installed: see .ci/run");
    xmllint.stdin.take().unwrap().write_all(rendered(Format::Junit).as_bytes()).unwrap();
    let output = xmllint.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Valgrind's XML as its protocols name it. Unknown elements and kinds are errors.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "fields say what must be there")]
struct Output {
    protocolversion: u32,
    protocoltool: String,
    preamble: Preamble,
    pid: u32,
    ppid: u32,
    tool: String,
    usercomment: Option<String>,
    args: Args,
    status: Vec<Status>,
    #[serde(default)]
    error: Vec<Error>,
    fatal_signal: Option<FatalSignal>,
    heap_summary: Option<Any>,
    all_heap_blocks_freed: Option<bool>,
    leak_summary: Option<Any>,
    error_summary: Option<Any>,
    errorcounts: Pairs,
    suppcounts: Pairs,
}

#[derive(Debug, Deserialize)]
struct Any {}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "fields say what must be there")]
struct Preamble {
    line: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "fields say what must be there")]
struct Args {
    vargv: Argv,
    argv: Argv,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Argv {
    exe: String,
    #[serde(default)]
    arg: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "fields say what must be there")]
struct Status {
    state: String,
    time: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "fields say what must be there")]
struct Error {
    unique: String,
    tid: u32,
    kind: String,
    what: Option<String>,
    xwhat: Option<Xwhat>,
    #[serde(default)]
    auxwhat: Vec<String>,
    stack: Vec<Stack>,
    suppression: Option<Rule>,
}

/// `suppression`, as protocol 4 defines it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "fields say what must be there")]
struct Rule {
    sname: String,
    skind: String,
    skaux: Option<String>,
    sframe: Vec<RuleFrame>,
    rawtext: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "fields say what must be there")]
struct RuleFrame {
    obj: Option<String>,
    fun: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "fields say what must be there")]
struct Xwhat {
    text: String,
    leakedbytes: u64,
    leakedblocks: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "fields say what must be there")]
struct FatalSignal {
    tid: u32,
    signo: i32,
    signame: String,
    sicode: i32,
    event: String,
    stack: Stack,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stack {
    frame: Vec<XmlFrame>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "fields say what must be there")]
struct XmlFrame {
    ip: String,
    obj: Option<String>,
    r#fn: Option<String>,
    dir: Option<String>,
    file: Option<String>,
    line: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pairs {
    #[serde(default)]
    pair: Vec<Pair>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "fields say what must be there")]
struct Pair {
    count: u64,
    unique: Option<String>,
    name: Option<String>,
}

/// The kinds of protocol 4, and of 5 and 6 beyond.
const KINDS: [&str; 15] = [
    "InvalidFree",
    "MismatchedFree",
    "InvalidRead",
    "InvalidWrite",
    "InvalidJump",
    "Overlap",
    "InvalidMemPool",
    "UninitCondition",
    "UninitValue",
    "SyscallParam",
    "ClientCheck",
    "Leak_DefinitelyLost",
    "Leak_IndirectlyLost",
    "Leak_PossiblyLost",
    "Leak_StillReachable",
];
const KINDS_OF_5: [&str; 3] = ["FdBadClose", "FdNotClosed", "FdBadUse"];
const KINDS_OF_6: [&str; 3] = ["InvalidSize", "InvalidAlignment", "ReallocSizeZero"];

#[test]
fn valgrinds_xml_holds_what_each_protocol_names_and_nothing_else() {
    for protocol in Protocol::ALL {
        let text = rendered(Format::ValgrindXml(protocol));
        let output: Output = quick_xml::de::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(output.protocolversion.to_string(), protocol.number());
        for error in &output.error {
            let kind = error.kind.as_str();
            let is_known = KINDS.contains(&kind)
                || (protocol >= Protocol::Five && KINDS_OF_5.contains(&kind))
                || (protocol >= Protocol::Six && KINDS_OF_6.contains(&kind));
            assert!(is_known, "protocol {}: {kind}", protocol.number());
            assert!(error.stack.iter().all(|stack| !stack.frame.is_empty()));
            assert_eq!(error.what.is_none(), kind.starts_with("Leak_"));
        }
        let counted = report().errors.iter().filter(|finding| finding.severity == Level::Error).count();
        assert_eq!(output.error.len(), counted + LeakKind::ALL.len());
        assert_eq!(output.errorcounts.pair.len(), counted);
        assert_eq!(output.suppcounts.pair.len(), 1);
        assert_eq!(output.args.argv.arg, ["]]> <x>", "\u{fffd}"]);
        assert_eq!(output.usercomment.as_deref(), Some("build <7>"));
        assert_eq!(output.args.argv.exe, "./a.out");
        assert!(output.fatal_signal.is_some());
        assert_eq!(output.heap_summary.is_some(), protocol == Protocol::Six);
    }
}
