//! Our own form of rules, in TOML: what Valgrind's says, and why, and until when.
//!
//! ```toml
//! [[suppress]]
//! name = "driver cache"
//! reason = "freed by nobody on purpose, see the driver's manual, section 3"
//! expires = 2027-03-31                      # the last day; optional
//! kinds = ["definite", "heap-use-after-free"]   # leak kinds, "leak" for all of them, ids of findings
//! stack = ["fun:malloc", "...", "obj:*/libdriver.so*"]
//! ```

use std::path::Path;

use memcheck_model::{ErrorKind, LeakKind};
use serde::Deserialize;
use toml::{Spanned, value::Datetime};

use crate::date::Date;
use crate::pattern::Location;
use crate::rule::{Origin, Rule, Scope};
use crate::set::SyntaxError;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    suppress: Vec<Spanned<Entry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    reason: Spanned<String>,
    expires: Option<Spanned<Datetime>>,
    kinds: Spanned<Vec<Spanned<String>>>,
    stack: Spanned<Vec<Spanned<String>>>,
}

/// The rules of a file.
pub(crate) fn parse(file: &Path, text: &str) -> Result<Vec<Rule>, SyntaxError> {
    let line_at = |byte: usize| {
        let newlines = text.as_bytes().iter().take(byte).filter(|&&byte| byte == b'\n').count();
        u32::try_from(newlines + 1).unwrap_or(u32::MAX)
    };
    let error = |byte: usize, what: String| SyntaxError { file: file.to_owned(), line: line_at(byte), what };
    let parsed: File = toml::from_str(text).map_err(|problem| {
        error(problem.span().map_or(0, |span| span.start), problem.message().replace('\n', ", "))
    })?;
    let mut rules = Vec::new();
    for entry in parsed.suppress {
        let start = entry.span().start;
        let entry = entry.into_inner();
        if entry.reason.get_ref().trim().is_empty() {
            let what = "a suppression needs a reason: say why the finding is acceptable";
            return Err(error(entry.reason.span().start, what.to_owned()));
        }
        let expires = match entry.expires {
            None => None,
            Some(value) => Some(parse_date(value.get_ref()).ok_or_else(|| {
                let what = format!("expected a date such as 2027-03-31, found {}", value.get_ref());
                error(value.span().start, what)
            })?),
        };
        let mut leaks = Vec::new();
        let mut errors = Vec::new();
        for word in entry.kinds.get_ref() {
            let word_text = word.get_ref().as_str();
            if let Some(kind) = LeakKind::ALL.into_iter().find(|kind| kind.id() == word_text) {
                leaks.push(kind);
            } else if word_text == "leak" {
                leaks.extend(LeakKind::ALL);
            } else if let Some(kind) = ErrorKind::from_id(word_text) {
                errors.push(kind);
            } else {
                let what = format!(
                    "unknown kind `{word_text}`: expected the id of a finding, such as double-free, or \
                     definite, indirect, possible, reachable, leak"
                );
                return Err(error(word.span().start, what));
            }
        }
        if leaks.is_empty() && errors.is_empty() {
            return Err(error(entry.kinds.span().start, "a suppression needs at least one kind".to_owned()));
        }
        let mut locations = Vec::new();
        for line in entry.stack.get_ref() {
            locations.push(Location::parse(line.get_ref()).ok_or_else(|| {
                let what = format!("expected `fun:`, `obj:`, `src:` or `...`, found `{}`", line.get_ref());
                error(line.span().start, what)
            })?);
        }
        if locations.iter().all(|location| *location == Location::Any) {
            let what = "a suppression needs at least one line with `fun:`, `obj:` or `src:`";
            return Err(error(entry.stack.span().start, what.to_owned()));
        }
        rules.push(Rule {
            name: entry.name,
            reason: Some(entry.reason.into_inner()),
            expires,
            origin: Origin { file: Some(file.to_owned()), line: line_at(start) },
            scope: Scope::Either(leaks, errors),
            locations,
        });
    }
    Ok(rules)
}

fn parse_date(value: &Datetime) -> Option<Date> {
    let date = value.date?;
    Some(Date { year: date.year.into(), month: date.month, day: date.day })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# ours\n[[suppress]]\nname = \"cache\"\nreason = \"by design\"\nexpires = 2027-03-31\n\
                        kinds = [\"definite\", \"heap-use-after-free\"]\nstack = [\"...\", \"fun:f\"]\n";

    #[test]
    fn a_rule_has_reason_date_kinds_and_stack() {
        let rules = parse(Path::new("x.toml"), GOOD).unwrap();
        assert_eq!(rules[0].name, "cache");
        assert_eq!(rules[0].reason.as_deref(), Some("by design"));
        assert_eq!(rules[0].expires, Some(Date { year: 2027, month: 3, day: 31 }));
        assert_eq!(
            rules[0].scope,
            Scope::Either(vec![LeakKind::Definite], vec![ErrorKind::HeapUseAfterFree])
        );
        assert_eq!(rules[0].origin.line, 2);
    }

    #[test]
    fn a_malformed_file_is_one_error_with_its_line() {
        let error = |from: &str, to: &str| {
            assert!(GOOD.contains(from));
            let error = parse(Path::new("x.toml"), &GOOD.replace(from, to)).unwrap_err();
            assert!(!error.what.contains('\n'));
            (error.line, error.what)
        };
        assert_eq!(error("definite", "definit").0, 6);
        assert_eq!(error("by design", " ").0, 4);
        assert_eq!(error("2027-03-31", "07:32:00").0, 5);
        assert_eq!(error("fun:f", "f").0, 7);
        assert_eq!(error("\"...\", \"fun:f\"", "").0, 7);
        assert_eq!(error("name =", "title =").0, 3);
        assert_eq!(error("= \"cache\"", "").0, 3);
        assert_eq!(error("reason = \"by design\"\n", "").0, 2);
    }
}
