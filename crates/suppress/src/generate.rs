//! The text of a rule that keeps a finding out, in Valgrind's syntax, so that both tools read it.

use memcheck_model::{ErrorKind, Function};

use crate::rule::{FrameNames, Subject};

/// The most frames that a generated rule names, as Valgrind's do.
const FRAMES: usize = 24;

/// A rule for exactly this finding, ready to be pasted into a file.
#[must_use]
pub fn generate(subject: &Subject<'_>, function: Option<Function>, stack: &[FrameNames<'_>]) -> String {
    let mut lines =
        vec!["<insert_a_suppression_name_here>".to_owned(), format!("Memcheck:{}", kind(subject))];
    match subject {
        Subject::Leak(kind) => lines.push(format!("match-leak-kinds: {}", kind.id())),
        Subject::Error { kind: ErrorKind::SyscallParam, parameter, .. } => {
            lines.push(parameter.unwrap_or("*").to_owned());
        }
        Subject::Error { .. } => {}
    }
    lines.extend(function.map(|function| format!("fun:{}", function.linkage_name())));
    let room = FRAMES - usize::from(function.is_some());
    lines.extend(stack.iter().take(room).map(location));
    let mut text = String::from("{\n");
    for line in lines {
        text.push_str("   ");
        text.push_str(&line);
        text.push('\n');
    }
    text.push_str("}\n");
    text
}

fn location(frame: &FrameNames<'_>) -> String {
    match (frame.linkage_name.or(frame.function), frame.object) {
        (Some(function), _) => format!("fun:{}", on_a_line(function)),
        (None, Some(object)) => format!("obj:{}", on_a_line(object)),
        (None, None) => "obj:*".to_owned(),
    }
}

/// The name as a pattern for itself that a line can end with: what would end the line, or be cut off its end, is `?`.
fn on_a_line(name: &str) -> String {
    let kept = name.trim_end().len();
    let mut pattern = String::new();
    for (at, letter) in name.char_indices() {
        match letter {
            '\n' => pattern.push('?'),
            // One for each byte.
            _ if at >= kept => pattern.extend(std::iter::repeat_n('?', letter.len_utf8())),
            _ => pattern.push(letter),
        }
    }
    pattern
}

fn kind(subject: &Subject<'_>) -> String {
    use ErrorKind as E;
    let Subject::Error { kind, access_bytes, .. } = subject else { return "Leak".to_owned() };
    match (kind, access_bytes) {
        (
            E::HeapBufferOverflow | E::HeapUseAfterFree | E::WildAccess | E::ForbiddenAccess,
            Some(bytes @ (1 | 2 | 4 | 8 | 16 | 32)),
        ) => {
            format!("Addr{bytes}")
        }
        (E::BadFree | E::DoubleFree | E::BadRealloc | E::AllocDeallocMismatch, _) => "Free".to_owned(),
        (E::ParamOverlap, _) => "Overlap".to_owned(),
        (E::SyscallParam, _) => "Param".to_owned(),
        (E::ClientCheck, _) => "User".to_owned(),
        (E::BadMempool, _) => "Mempool".to_owned(),
        // What Valgrind has no word for is named by its own id, which only we read.
        _ => kind.id().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Date, Suppressions};
    use memcheck_model::LeakKind;
    use std::path::Path;

    #[test]
    fn a_generated_rule_looks_like_valgrinds() {
        let frames = [
            FrameNames { function: Some("f"), ..FrameNames::default() },
            FrameNames { object: Some("/lib/x.so"), ..FrameNames::default() },
        ];
        let text = generate(&Subject::Leak(LeakKind::Definite), Some(Function::Malloc), &frames);
        let expected = "{\n   <insert_a_suppression_name_here>\n   Memcheck:Leak\n   match-leak-kinds: definite\n   \
                        fun:malloc\n   fun:f\n   obj:/lib/x.so\n}\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_generated_rule_keeps_its_finding_out() {
        let today = Date { year: 2026, month: 1, day: 1 };
        let frames = [
            FrameNames { function: Some("f(int)"), linkage_name: Some("_Z1fi"), ..FrameNames::default() },
            FrameNames { object: Some("/lib/x.so"), ..FrameNames::default() },
            FrameNames { object: Some("/home/two\nlines\r\n\u{a0}"), ..FrameNames::default() },
        ];
        let subjects = ErrorKind::ALL.iter().flat_map(|&kind| {
            [None, Some(1), Some(3), Some(8), Some(100)].map(|access_bytes| Subject::Error {
                kind,
                access_bytes,
                parameter: (kind == ErrorKind::SyscallParam).then_some("write(buf)"),
            })
        });
        for subject in subjects.chain(LeakKind::ALL.map(Subject::Leak)) {
            for function in [None, Some(Function::NewArray)] {
                let mut rules = Suppressions::new(today);
                let text = generate(&subject, function, &frames);
                rules.read(Path::new("x.supp"), &text).unwrap();
                assert!(rules.find(&subject, function, &frames).is_some(), "{subject:?}\n{text}");
            }
        }
    }
}
