//! Valgrind's suppression files, as its manual describes them in 2.5 and 4.4.
//!
//! ```text
//! {
//!    name
//!    tool[,tool]:kind
//!    [kind's own line: the argument of Param, match-leak-kinds: of Leak]
//!    fun:… | obj:… | src:… | ...
//! }
//! ```
//!
//! Blank lines and lines that begin with `#` are skipped, and so are blocks for other tools. What we add: the
//! kind may be the id of a finding (`memcheck:double-free`).

use std::path::Path;

use memcheck_model::{ErrorKind, LeakKind};

use crate::pattern::{Location, Pattern};
use crate::rule::{Origin, Rule, Scope};
use crate::set::SyntaxError;

/// The lines that mean something, trimmed, with their numbers.
struct Lines<'a> {
    file: &'a Path,
    rest: std::iter::Enumerate<std::str::Lines<'a>>,
    number: u32,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Option<&'a str> {
        for (index, line) in self.rest.by_ref() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                self.number = u32::try_from(index + 1).unwrap_or(u32::MAX);
                return Some(line);
            }
        }
        None
    }

    fn error(&self, line: u32, what: impl Into<String>) -> SyntaxError {
        SyntaxError { file: self.file.to_owned(), line, what: printable(&what.into()) }
    }

    /// The next line of the block that begins at line `start`, unless it ends the block.
    fn inside(&mut self, start: u32, expected: &str) -> Result<&'a str, SyntaxError> {
        match self.next() {
            Some("}") => Err(self.error(self.number, format!("expected {expected} before `}}`"))),
            Some(line) => Ok(line),
            None => Err(self.unclosed(start)),
        }
    }

    fn unclosed(&self, start: u32) -> SyntaxError {
        self.error(start, "this suppression is not closed: expected `}` before the end of the file")
    }
}

/// The text without what a terminal would take for commands, and not longer than a line or two: the file may be
/// anything.
fn printable(text: &str) -> String {
    const MOST: usize = 200;
    let shown = text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter });
    let cut = if text.chars().nth(MOST).is_some() { "…" } else { "" };
    shown.take(MOST).collect::<String>() + cut
}

/// The rules of a file.
pub(crate) fn parse(file: &Path, text: &str) -> Result<Vec<Rule>, SyntaxError> {
    let mut lines = Lines { file, rest: text.lines().enumerate(), number: 0 };
    let mut rules = Vec::new();
    while let Some(line) = lines.next() {
        if line != "{" {
            return Err(
                lines.error(lines.number, format!("expected `{{` to begin a suppression, found `{line}`"))
            );
        }
        rules.extend(parse_block(&mut lines)?);
    }
    Ok(rules)
}

/// The rest of a block after its `{`: a rule, or nothing when it is for other tools.
fn parse_block(lines: &mut Lines<'_>) -> Result<Option<Rule>, SyntaxError> {
    let start = lines.number;
    let name = lines.inside(start, "the suppression's name")?;
    let heading = lines.inside(start, "`Memcheck:KIND`")?;
    let heading_line = lines.number;
    let Some((tools, kind)) = heading.split_once(':') else {
        let what = format!("expected `Memcheck:KIND`, found `{heading}`");
        return Err(lines.error(heading_line, what));
    };
    if !tools.split(',').any(|tool| tool.trim().eq_ignore_ascii_case("memcheck")) {
        loop {
            match lines.next() {
                Some("}") => return Ok(None),
                Some(_) => {}
                None => return Err(lines.unclosed(start)),
            }
        }
    }
    let kind = kind.trim();
    let mut scope = match parse_kind(kind) {
        Some(Kind::Scope(scope)) => scope,
        Some(Kind::NeedsArgument) => {
            let argument = lines.inside(start, "the argument that the suppression is about")?;
            if Location::parse(argument).is_some() {
                let what = format!("expected the argument's name, such as `write(buf)`, found `{argument}`");
                return Err(lines.error(lines.number, what));
            }
            if kind == "Param" {
                Scope::Parameter(Pattern::new(argument))
            } else {
                Scope::Errors(vec![ErrorKind::BadSize])
            }
        }
        None => {
            let what =
                format!("unknown kind `{kind}`: expected Leak, Addr1 to Addr32, Free, Param, Overlap, …");
            return Err(lines.error(heading_line, what));
        }
    };
    let mut locations = Vec::new();
    loop {
        let line = match lines.next() {
            Some("}") => break,
            Some(line) => line,
            None => return Err(lines.unclosed(start)),
        };
        if let Some(location) = Location::parse(line) {
            locations.push(location);
        } else if let (Some(kinds), Scope::Leaks(of), true) =
            (line.strip_prefix("match-leak-kinds:"), &mut scope, locations.is_empty())
        {
            *of = parse_leak_kinds(kinds).map_err(|word| {
                let known = "definite, indirect, possible, reachable, all or none";
                lines.error(lines.number, format!("unknown leak kind `{word}`: expected {known}"))
            })?;
        } else {
            let what = format!("expected `fun:`, `obj:`, `src:`, `...` or `}}`, found `{line}`");
            return Err(lines.error(lines.number, what));
        }
    }
    if locations.iter().all(|location| *location == Location::Any) {
        let what = "a suppression needs at least one line with `fun:`, `obj:` or `src:`";
        return Err(lines.error(lines.number, what));
    }
    let origin = Origin { file: Some(lines.file.to_owned()), line: start };
    Ok(Some(Rule { name: name.to_owned(), reason: None, expires: None, origin, scope, locations }))
}

enum Kind {
    Scope(Scope),
    /// The next line says more.
    NeedsArgument,
}

fn parse_kind(kind: &str) -> Option<Kind> {
    use ErrorKind as E;
    let errors = |kinds: &[E]| Some(Kind::Scope(Scope::Errors(kinds.to_vec())));
    if let Some(bytes) = kind.strip_prefix("Addr") {
        let bytes = bytes.parse().ok().filter(|bytes| [1u64, 2, 4, 8, 16, 32, 64].contains(bytes))?;
        return Some(Kind::Scope(Scope::Access(bytes)));
    }
    if let Some(bytes) = kind.strip_prefix("Value") {
        bytes.parse::<u64>().ok()?;
        return errors(&[E::UseOfUninitialised]);
    }
    match kind {
        "Leak" => Some(Kind::Scope(Scope::Leaks(LeakKind::ALL.to_vec()))),
        "Param" | "FishyValue" => Some(Kind::NeedsArgument),
        "Cond" => errors(&[E::UseOfUninitialised]),
        "Free" => errors(&[E::BadFree, E::DoubleFree, E::BadRealloc, E::AllocDeallocMismatch]),
        "Overlap" => errors(&[E::ParamOverlap]),
        "Jump" => errors(&[E::FatalSignal]),
        "ReallocZero" => errors(&[E::ReallocZero]),
        "BadSize" => errors(&[E::BadSize]),
        "BadAlign" => errors(&[E::BadAlignment]),
        "User" => errors(&[E::ClientCheck]),
        "Mempool" => errors(&[E::BadMempool]),
        // What threads do to each other: nothing here has this kind.
        "CoreMem" => errors(&[]),
        id => errors(&[E::from_id(id)?]),
    }
}

/// The kinds that a comma-separated list names, or the word that names none.
fn parse_leak_kinds(list: &str) -> Result<Vec<LeakKind>, &str> {
    let mut kinds = Vec::new();
    for word in list.split(',').map(str::trim) {
        match (word, LeakKind::ALL.into_iter().find(|kind| kind.id() == word)) {
            (_, Some(kind)) => kinds.push(kind),
            ("all", None) => kinds.extend(LeakKind::ALL),
            ("none", None) => {}
            _ => return Err(word),
        }
    }
    Ok(kinds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn error(text: &str) -> String {
        parse(Path::new("my.supp"), text).unwrap_err().to_string()
    }

    #[test]
    fn comments_blank_lines_and_other_tools_are_skipped() {
        let text = "# a comment\n\n{\n  # here too\n  one\n  Helgrind:Race\n  anything goes\n}\n\
                    {\n\ttwo\n\tHelgrind,Memcheck:Addr8\n\tobj:*/libX11.so*\n\t...\n\tfun:main\n}\n";
        let rules = parse(Path::new("x"), text).unwrap();
        assert_eq!(rules.len(), 1);
        assert_eq!((rules[0].name.as_str(), rules[0].origin.line), ("two", 9));
        assert_eq!(rules[0].scope, Scope::Access(8));
        assert_eq!(rules[0].locations.len(), 3);
    }

    #[test]
    fn a_malformed_file_is_one_error_with_its_line() {
        assert_eq!(
            error("{\n a\n Memcheck:Leak\n fun:f\n"),
            "my.supp:1: this suppression is not closed: expected `}` before the end of the file"
        );
        assert_eq!(error("a\n"), "my.supp:1: expected `{` to begin a suppression, found `a`");
        assert_eq!(error("\x1b[2J\n"), "my.supp:1: expected `{` to begin a suppression, found `\u{fffd}[2J`");
        assert!(error(&"x".repeat(100_000)).len() < 300);
        assert_eq!(error("{\n a\n}\n"), "my.supp:3: expected `Memcheck:KIND` before `}`");
        assert_eq!(error("{\n a\n Leak\n fun:f\n}\n"), "my.supp:3: expected `Memcheck:KIND`, found `Leak`");
        assert!(error("{\n a\n Memcheck:Leek\n fun:f\n}\n").starts_with("my.supp:3: unknown kind `Leek`"));
        assert!(error("{\n a\n Memcheck:Addr3\n fun:f\n}\n").starts_with("my.supp:3: unknown kind `Addr3`"));
        assert!(error("{\n a\n Memcheck:Leak\n function:f\n}\n").starts_with("my.supp:4: expected `fun:`"));
        assert!(error("{\n a\n Memcheck:Leak\n ...\n}\n").starts_with("my.supp:5: a suppression needs"));
        assert!(error("{\n a\n Memcheck:Leak\n}\n").starts_with("my.supp:4: a suppression needs"));
        assert!(
            error("{\n a\n Memcheck:Leak\n match-leak-kinds: definit\n fun:f\n}\n")
                .contains(":4: unknown leak kind `definit`")
        );
        assert!(error("{\n a\n Memcheck:Param\n fun:f\n}\n").contains(":4: expected the argument's name"));
    }

    #[test]
    fn spaces_around_tool_and_kind_mean_nothing() {
        let rules = |heading: &str| {
            parse(Path::new("x"), &format!("{{\n a\n {heading}\n write(buf)\n fun:f\n}}\n")).unwrap()
        };
        assert_eq!(rules("Memcheck : Param"), rules("Memcheck:Param"));
    }

    #[test]
    fn every_kind_of_memcheck_is_known() {
        for kind in [
            "Leak",
            "Addr1",
            "Addr2",
            "Addr4",
            "Addr8",
            "Addr16",
            "Addr32",
            "Value1",
            "Value8",
            "Value16",
            "Value32",
            "Cond",
            "Free",
            "Overlap",
            "Jump",
            "User",
            "ReallocZero",
            "BadSize",
            "BadAlign",
            "double-free",
        ] {
            let text = format!("{{\n a\n Memcheck:{kind}\n fun:f\n}}\n");
            assert_eq!(parse(Path::new("x"), &text).map(|rules| rules.len()), Ok(1), "{kind}");
        }
        for kind in ["Param", "FishyValue"] {
            let text = format!("{{\n a\n Memcheck:{kind}\n write(buf)\n fun:f\n}}\n");
            assert_eq!(parse(Path::new("x"), &text).map(|rules| rules.len()), Ok(1), "{kind}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "[{}\\n#a:. fun]{0,60}") {
            let _ = parse(Path::new("x"), &text);
        }
    }
}
