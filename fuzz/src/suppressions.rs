//! Any text as a file of suppressions, in Valgrind's form and in ours; and any names in a rule that is made for them.
//!
//! Oracle: an error names a line of the file; a file that is laid out differently gives the same rules; a rule made for
//! a finding is read back as one rule and keeps that finding out.

use std::path::Path;

use memcheck_model::{ErrorKind, Function, LeakKind, ParameterName};
use memcheck_suppress::{Date, FrameNames, Rule, Subject, Suppressions, SyntaxError, generate};

use crate::input::Input;

const TODAY: Date = Date { year: 2026, month: 1, day: 1 };

/// The first byte chooses between the three.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    match input.u8() {
        0 => made(&mut input),
        1 => {
            if let Ok(text) = std::str::from_utf8(input.0) {
                let _ = parse("rules.toml", text);
            }
        }
        _ => read(&String::from_utf8_lossy(input.0)),
    }
}

fn parse(file: &str, text: &str) -> Result<Vec<Rule>, SyntaxError> {
    let mut rules = Suppressions::new(TODAY);
    let read = rules.read(Path::new(file), text);
    let lines = text.split('\n').count() as u32;
    match read {
        Ok(()) => {
            let all: Vec<Rule> = rules.stale().map(|(rule, _)| rule.clone()).collect();
            assert!(all.iter().all(|rule| (1..=lines).contains(&rule.origin.line)), "{all:?}");
            Ok(all)
        }
        Err(error) => {
            assert!((1..=lines).contains(&error.line) && !error.what.is_empty(), "{error}");
            assert_eq!(rules.stale().count(), 0, "no rule of a broken file is used");
            Err(error)
        }
    }
}

/// Valgrind's form.
fn read(text: &str) {
    let spread = |line: &str| format!("# {{\n\n \t{}  \n", line.trim());
    // A colon in the line after a block's name stands between tool and kind.
    let mut since_begin = 0;
    let mut other = String::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        since_begin = if line == "{" && since_begin != 1 { 1 } else { since_begin + 1 };
        match line.split_once(':') {
            Some((tools, kind)) if since_begin == 3 => other += &spread(&format!("{tools} :  {kind}")),
            _ => other += &spread(line),
        }
        if line == "}" {
            since_begin = 0;
        }
    }
    let plain = |rules: Vec<Rule>| -> Vec<Rule> {
        rules.into_iter().map(|mut rule| (rule.origin.line = 0, rule).1).collect()
    };
    match (parse("x.supp", text).map(plain), parse("x.supp", &other).map(plain)) {
        (Ok(rules), Ok(same)) => assert_eq!(rules, same, "{text}\n{other}"),
        (Err(_), Err(_)) => {}
        (one, two) => panic!("{one:?} {two:?}\n{text}\n{other}"),
    }
}

/// A rule for the finding that the input makes.
fn made(input: &mut Input<'_>) {
    let kind = ErrorKind::ALL[usize::from(input.u8()) % ErrorKind::ALL.len()];
    let parameter =
        (kind == ErrorKind::SyscallParam).then(|| ParameterName::new(format_args!("x{}", input.u8())));
    let subject = match input.u8() % 8 {
        0 => Subject::Leak(input.choice(&LeakKind::ALL)),
        size => Subject::Error {
            kind,
            access_bytes: (size > 1).then(|| u64::from(input.u8())),
            parameter: parameter.as_ref().map(ParameterName::as_str),
        },
    };
    let function = input.choice(&[None, Some(Function::Malloc), Some(Function::DeleteArray)]);
    let mut names: Vec<[Option<String>; 3]> = Vec::new();
    while !input.is_empty() && names.len() < 30 {
        let has = input.u8();
        names.push([1, 2, 4].map(|bit| {
            let len = (has & bit != 0).then(|| input.u8() % 64)?;
            Some(String::from_utf8_lossy(input.take(len.into())).into_owned())
        }));
    }
    let stack: Vec<FrameNames<'_>> = names
        .iter()
        .map(|[function, linkage_name, object]| FrameNames {
            function: function.as_deref(),
            linkage_name: linkage_name.as_deref(),
            object: object.as_deref(),
            ..FrameNames::default()
        })
        .collect();
    if stack.is_empty() {
        return; // a rule needs a frame
    }
    let text = generate(&subject, function, &stack);
    let rules = parse("x.supp", &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(rules.len(), 1, "{text}");
    let mut all = Suppressions::new(TODAY);
    all.read(Path::new("x.supp"), &text).expect("it was read before");
    assert!(all.find(&subject, function, &stack).is_some(), "{subject:?} {stack:?}\n{text}");
}

/// Files of both forms, and findings.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let valgrind = "{\n   a name\n   Memcheck:Leak\n   match-leak-kinds: possible,reachable\n   fun:malloc\n   ...\n   \
                    obj:*/lib?.so*\n}\n# more\n{\n b\n Memcheck,Helgrind:Param\n write(buf)\n src:a.c:12\n}\n{\n c\n \
                    drd:x\n fun:f\n}\n{\n d\n memcheck:Addr8\n fun:_Z1fv\n fun:main\n}\n{\n e\n memcheck:double-free\n fun:g\n}\n";
    let own = "# ours\n[[suppress]]\nname = \"cache\"\nreason = \"by design\"\nexpires = 2027-03-31\nkinds = \
               [\"definite\", \"heap-use-after-free\", \"leak\"]\nstack = [\"...\", \"fun:f\", \"obj:*/x.so\"]\n";
    let finding = [
        &[0, 3, 2, 8, 1][..],
        &[7, 6],
        b"f(int)",
        &[6],
        b"_Z1fi\x00",
        &[9],
        b"/lib/x.so",
        &[1, 4],
        b"main",
        &[4, 5],
        b"/a.so",
    ];
    let mut seeds =
        vec![[b"\x02", valgrind.as_bytes()].concat(), [b"\x01", own.as_bytes()].concat(), finding.concat()];
    seeds
        .extend((0..40).map(|kind| [&[0, kind, kind % 8, 4, kind % 3], &finding[1..].concat()[..]].concat()));
    seeds
}
