//! Every report that a test gets is what its schema says, and so is what it converts to.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use jsonschema::Validator;
use memcheck_report::{Format, Protocol, SourceRoot};
use serde_json::Value;

static REPORT: LazyLock<Validator> =
    LazyLock::new(|| validator(include_str!("../../docs/report-schema.json")));

static SARIF: LazyLock<Validator> = LazyLock::new(|| {
    // Its patterns for languages have a bracket too many.
    let schema = include_str!("../../crates/report/tests/fixtures/sarif-schema-2.1.0.json");
    validator(&schema.replace("{2}]?$", "{2}$"))
});

fn validator(schema: &str) -> Validator {
    let schema = serde_json::from_str(schema).expect("the schema is JSON");
    jsonschema::validator_for(&schema).expect("the schema is one")
}

fn validate(what: &str, validator: &Validator, text: &str) -> Result<(), String> {
    let value: Value = serde_json::from_str(text).map_err(|e| format!("{what} is no JSON: {e}"))?;
    match validator.iter_errors(&value).next() {
        Some(error) => Err(format!("{what} is not valid: {error} at {}", error.instance_path())),
        None => Ok(()),
    }
}

/// Fails unless the JSON report, and the SARIF made of it, are valid.
pub fn check_json(json: &str) -> Result<(), String> {
    validate("the JSON report", &REPORT, json)?;
    let report = memcheck_report::read(json.as_bytes()).map_err(|e| e.to_string())?;
    validate("SARIF", &SARIF, &Format::Sarif.render(&report, &SourceRoot::default()))
}

/// Fails unless the XML formats that are made of the report are valid: JUnit under the schema that Jenkins publishes.
pub fn check_xml(json: &str) -> Result<(), String> {
    let report = memcheck_report::read(json.as_bytes()).map_err(|e| e.to_string())?;
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/report/tests/fixtures/jenkins-junit.xsd");
    let schema = schema.display().to_string();
    for (format, options) in
        [(Format::Junit, &["--schema", schema.as_str()][..]), (Format::ValgrindXml(Protocol::Four), &[])]
    {
        let xml = format.render(&report, &SourceRoot::default());
        let mut lint = Command::new("xmllint");
        lint.arg("--noout").args(options).arg("-").stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut lint = lint.spawn().map_err(|e| format!("failed to start xmllint: {e}"))?;
        if let Some(mut input) = lint.stdin.take() {
            input.write_all(xml.as_bytes()).map_err(|e| e.to_string())?;
        }
        let output = lint.wait_with_output().map_err(|e| e.to_string())?;
        if !output.status.success() {
            return Err(format!("{}: {}", format.name(), String::from_utf8_lossy(&output.stderr)));
        }
    }
    Ok(())
}
