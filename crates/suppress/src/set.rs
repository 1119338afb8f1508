//! All the rules of a run, and how often each was needed.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use memcheck_model::Function;

use crate::rule::{FrameNames, Rule, Scope, Subject, replaced};
use crate::{date::Date, own, valgrind};

/// What memcheck brings along.
const DEFAULT_RULES: &str = include_str!("default.supp");

/// Why a file of rules cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: u32,
    /// What was seen and what was expected.
    pub what: String,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.what)
    }
}

impl std::error::Error for SyntaxError {}

/// A rule and how often it kept something out.
#[derive(Clone, Debug)]
pub struct Usage {
    /// The rule.
    pub rule: Rule,
    /// How many findings or loss records it kept out.
    pub count: u64,
}

/// Why a rule should go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// It kept nothing out.
    Unused,
    /// Its last day is past, so it was not applied.
    Expired(Date),
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unused => f.write_str("never needed"),
            Self::Expired(date) => write!(f, "expired after {date}, so it was not applied"),
        }
    }
}

/// The rules of a run, in the order in which they are tried.
#[derive(Debug)]
pub struct Suppressions {
    today: Date,
    rules: Vec<Usage>,
}

impl Suppressions {
    /// No rules.
    #[must_use]
    pub const fn new(today: Date) -> Self {
        Self { today, rules: Vec::new() }
    }

    /// Whether rules other than those that memcheck brings along are about leaks.
    #[must_use]
    pub fn concern_leaks(&self) -> bool {
        let rules = self.rules.iter().map(|usage| &usage.rule).filter(|rule| rule.origin.file.is_some());
        rules.into_iter().any(|rule| matches!(rule.scope, Scope::Leaks(_) | Scope::Either(..)))
    }

    /// Adds the rules that memcheck brings along, after those that were read before.
    ///
    /// # Panics
    /// Never: a test reads them.
    pub fn add_defaults(&mut self) {
        let rules = valgrind::parse(Path::new("default.supp"), DEFAULT_RULES);
        let rules = rules.expect("the default rules are well formed");
        self.rules.extend(rules.into_iter().map(|mut rule| {
            rule.origin.file = None;
            Usage { rule, count: 0 }
        }));
    }

    /// Adds the rules of a file, whose text this is: in our own form if its name ends in `.toml`, else in
    /// Valgrind's.
    ///
    /// # Errors
    /// When the text is malformed. No rule is added then.
    pub fn read(&mut self, file: &Path, text: &str) -> Result<(), SyntaxError> {
        let rules = if file.extension().is_some_and(|extension| extension == "toml") {
            own::parse(file, text)?
        } else {
            valgrind::parse(file, text)?
        };
        self.rules.extend(rules.into_iter().map(|rule| Usage { rule, count: 0 }));
        Ok(())
    }

    /// The rule that keeps this finding out, if one does; it is counted. `function` is the allocator or string
    /// function that the innermost frame called: our stacks begin at its caller, those of Valgrind with itself,
    /// so rules are tried with it and without it.
    pub fn find(
        &mut self,
        subject: &Subject<'_>,
        function: Option<Function>,
        stack: &[FrameNames<'_>],
    ) -> Option<&Rule> {
        let today = self.today;
        let with_function: Option<Vec<_>> =
            function.map(|function| [replaced(function)].into_iter().chain(stack.iter().copied()).collect());
        let usage = self.rules.iter_mut().find(|usage| {
            !usage.rule.has_expired(today)
                && (usage.rule.matches(subject, stack)
                    || with_function.as_ref().is_some_and(|stack| usage.rule.matches(subject, stack)))
        })?;
        usage.count += 1;
        Some(&usage.rule)
    }

    /// The rules that were needed.
    pub fn used(&self) -> impl Iterator<Item = &Usage> {
        self.rules.iter().filter(|usage| usage.count > 0)
    }

    /// The user's rules that should go, and why.
    pub fn stale(&self) -> impl Iterator<Item = (&Rule, Stale)> {
        self.rules.iter().filter(|usage| usage.rule.origin.file.is_some()).filter_map(|usage| {
            match usage.rule.expires {
                Some(date) if usage.rule.has_expired(self.today) => Some((&usage.rule, Stale::Expired(date))),
                _ if usage.count == 0 => Some((&usage.rule, Stale::Unused)),
                _ => None,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memcheck_model::{ErrorKind, LeakKind};

    const TODAY: Date = Date { year: 2026, month: 6, day: 15 };

    fn stack<'a>(functions: &[&'a str]) -> Vec<FrameNames<'a>> {
        functions
            .iter()
            .map(|&function| FrameNames { function: Some(function), ..FrameNames::default() })
            .collect()
    }

    fn rules(text: &str, file: &str) -> Suppressions {
        let mut rules = Suppressions::new(TODAY);
        rules.read(Path::new(file), text).unwrap();
        rules
    }

    #[test]
    fn the_default_rules_are_well_formed() {
        let mut rules = Suppressions::new(TODAY);
        rules.add_defaults();
        assert!(!rules.rules.is_empty());
        assert_eq!(rules.stale().count(), 0, "the user cannot remove them");
    }

    #[test]
    fn rules_match_with_and_without_the_allocator_function() {
        let mut rules =
            rules("{\n a\n Memcheck:Leak\n fun:malloc\n fun:f\n}\n{\n b\n memcheck:Leak\n fun:g\n}\n", "x");
        let leak = Subject::Leak(LeakKind::Definite);
        let name = |rule: Option<&Rule>| rule.map(|rule| rule.name.clone());
        let malloc = Some(Function::Malloc);
        assert_eq!(name(rules.find(&leak, malloc, &stack(&["f", "main"]))).as_deref(), Some("a"));
        assert_eq!(name(rules.find(&leak, malloc, &stack(&["g", "main"]))).as_deref(), Some("b"));
        assert_eq!(name(rules.find(&leak, Some(Function::Calloc), &stack(&["f", "main"]))), None);
        assert_eq!(rules.used().map(|usage| usage.count).sum::<u64>(), 2);
    }

    #[test]
    fn operators_match_by_their_mangled_names() {
        let mut rules = rules("{\n a\n Memcheck:Free\n fun:_ZdaPv\n fun:main\n}\n", "x");
        let subject =
            Subject::Error { kind: ErrorKind::AllocDeallocMismatch, access_bytes: None, parameter: None };
        assert!(rules.find(&subject, Some(Function::DeleteArray), &stack(&["main"])).is_some());
    }

    #[test]
    fn an_expired_rule_does_not_hold_and_is_listed() {
        let text = "[[suppress]]\nname = \"old\"\nreason = \"r\"\nexpires = 2026-06-14\nkinds = [\"definite\"]\n\
                    stack = [\"fun:f\"]\n[[suppress]]\nname = \"last day\"\nreason = \"r\"\n\
                    expires = 2026-06-15\nkinds = [\"definite\"]\nstack = [\"fun:f\"]\n";
        let mut rules = rules(text, "x.toml");
        let found = rules.find(&Subject::Leak(LeakKind::Definite), None, &stack(&["f"]));
        assert_eq!(found.map(|rule| rule.name.as_str()), Some("last day"));
        let stale: Vec<_> = rules.stale().map(|(rule, why)| (rule.name.as_str(), why)).collect();
        assert_eq!(stale, [("old", Stale::Expired(Date { day: 14, ..TODAY }))]);
    }

    #[test]
    fn a_rule_that_was_never_needed_is_listed() {
        let rules = rules("{\n a\n Memcheck:Leak\n fun:f\n}\n", "x");
        assert_eq!(rules.stale().map(|(_, why)| why).collect::<Vec<_>>(), [Stale::Unused]);
    }

    #[test]
    fn an_access_of_another_size_is_not_meant() {
        let mut rules = rules("{\n a\n Memcheck:Addr4\n fun:f\n}\n", "x");
        let mut find = |kind, access_bytes| {
            rules
                .find(&Subject::Error { kind, access_bytes, parameter: None }, None, &stack(&["f"]))
                .is_some()
        };
        assert!(find(ErrorKind::HeapUseAfterFree, Some(4)) && find(ErrorKind::HeapBufferOverflow, None));
        assert!(!find(ErrorKind::HeapUseAfterFree, Some(8)) && !find(ErrorKind::DoubleFree, None));
    }

    #[test]
    fn leak_kinds_narrow_a_rule() {
        let mut rules =
            rules("{\n a\n Memcheck:Leak\n match-leak-kinds: possible,reachable\n fun:f\n}\n", "x");
        let mut find = |kind| rules.find(&Subject::Leak(kind), None, &stack(&["f"])).is_some();
        assert!(find(LeakKind::Possible) && find(LeakKind::Reachable) && !find(LeakKind::Definite));
    }

    #[test]
    fn a_system_calls_argument_matches_by_its_name() {
        let mut rules = rules("{\n a\n Memcheck:Param\n write(*)\n fun:f\n}\n", "x");
        let mut find = |parameter| {
            let subject = Subject::Error { kind: ErrorKind::SyscallParam, access_bytes: None, parameter };
            rules.find(&subject, None, &stack(&["f"])).is_some()
        };
        assert!(find(Some("write(buf)")) && !find(Some("read(buf)")));
    }
}
