//! Text with wildcards, and lists of frames with wildcards.

use memcheck_model::is_wildcard_match;

use crate::rule::FrameNames;

/// What stands for a name that is not known, as in Valgrind's reports.
pub(crate) const UNKNOWN: &str = "???";

/// Text in which `*` stands for any text and `?` for any one character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(String);

impl Pattern {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Whether the whole of `text` matches.
    pub(crate) fn matches(&self, text: &str) -> bool {
        is_wildcard_match(self.0.as_bytes(), text.as_bytes())
    }
}

/// One line of a rule's stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// `fun:`, the function.
    Function(Pattern),
    /// `obj:`, the path of the module.
    Object(Pattern),
    /// `src:`, the source file, perhaps with `:` and the line.
    Source(Pattern),
    /// `...`, any number of frames.
    Any,
}

impl Location {
    /// The location that a line of a rule names, or `None` when it names none.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        if line == "..." {
            return Some(Self::Any);
        }
        let (kind, text) = line.split_once(':')?;
        match kind {
            "fun" => Some(Self::Function(Pattern::new(text))),
            "obj" => Some(Self::Object(Pattern::new(text))),
            "src" => Some(Self::Source(Pattern::new(text))),
            _ => None,
        }
    }

    fn matches(&self, frame: &FrameNames<'_>) -> bool {
        match self {
            Self::Function(pattern) => {
                pattern.matches(frame.function.unwrap_or(UNKNOWN))
                    || frame.linkage_name.is_some_and(|name| pattern.matches(name))
            }
            Self::Object(pattern) => pattern.matches(frame.object.unwrap_or(UNKNOWN)),
            Self::Source(pattern) => frame.file.is_some_and(|path| {
                let name = path.rsplit('/').next().unwrap_or(path);
                [path, name].into_iter().any(|file| {
                    pattern.matches(file)
                        || frame.line.is_some_and(|line| pattern.matches(&format!("{file}:{line}")))
                })
            }),
            Self::Any => true,
        }
    }
}

/// Whether `locations` match the innermost frames of `stack`.
///
/// Greedy like [`Pattern::matches`]: only the last `...` ever needs to take one frame more, so the time is at most
/// the product of both lengths.
pub(crate) fn match_stack(locations: &[Location], stack: &[FrameNames<'_>]) -> bool {
    let (mut at_location, mut at_frame) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match locations.get(at_location) {
            None => return true,
            Some(Location::Any) => {
                retry = Some((at_location, at_frame));
                at_location += 1;
            }
            Some(location) if stack.get(at_frame).is_some_and(|frame| location.matches(frame)) => {
                at_location += 1;
                at_frame += 1;
            }
            Some(_) => match retry {
                Some((any, swallowed)) if swallowed < stack.len() => {
                    retry = Some((any, swallowed + 1));
                    at_location = any + 1;
                    at_frame = swallowed + 1;
                }
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern).matches(text)
    }

    #[test]
    fn stars_and_question_marks_stand_for_text() {
        assert!(matches("*", "") && matches("a*", "a") && matches("*lib?.so*", "/usr/liba.so.6"));
        assert!(matches("a*b*c", "a-b-b-c") && matches("????", "main"));
        assert!(
            !matches("", "a") && !matches("a?", "a") && !matches("a*b", "a-b-c") && !matches("main", "mai")
        );
    }

    fn stack<'a>(functions: &[&'a str]) -> Vec<FrameNames<'a>> {
        functions
            .iter()
            .map(|&function| FrameNames { function: Some(function), ..FrameNames::default() })
            .collect()
    }

    fn match_lines(lines: &[&str], functions: &[&str]) -> bool {
        let locations: Vec<_> = lines.iter().map(|line| Location::parse(line).unwrap()).collect();
        match_stack(&locations, &stack(functions))
    }

    #[test]
    fn a_pattern_matches_from_the_innermost_frame_and_may_end_early() {
        assert!(match_lines(&["fun:malloc", "fun:f"], &["malloc", "f", "main"]));
        assert!(!match_lines(&["fun:f"], &["malloc", "f", "main"]));
        assert!(!match_lines(&["fun:malloc", "fun:f", "fun:main", "fun:_start"], &["malloc", "f", "main"]));
    }

    #[test]
    fn dots_stand_for_any_number_of_frames() {
        assert!(match_lines(&["...", "fun:main"], &["malloc", "f", "main"]));
        assert!(match_lines(&["fun:malloc", "...", "fun:f"], &["malloc", "f"]));
        assert!(match_lines(&["...", "fun:f", "fun:g", "...", "fun:main"], &["f", "x", "f", "g", "main"]));
        assert!(!match_lines(&["...", "fun:f", "fun:g", "...", "fun:main"], &["f", "x", "g", "main"]));
        assert!(match_lines(&["fun:malloc", "..."], &["malloc"]));
    }

    #[test]
    fn objects_and_sources_match_whole_paths_and_sources_also_base_names() {
        let frame = FrameNames {
            object: Some("/usr/lib/libz.so.1"),
            file: Some("/src/z/inflate.c"),
            line: Some(12),
            ..FrameNames::default()
        };
        let one = |line: &str| match_stack(&[Location::parse(line).unwrap()], &[frame]);
        assert!(
            one("obj:*/libz.so*") && one("src:inflate.c") && one("src:inflate.c:12") && one("src:/src/*")
        );
        assert!(!one("obj:libz.so") && !one("src:inflate.c:13") && !one("src:z/inflate.c"));
        assert!(one("fun:???") && one("fun:*"), "the function is not known");
    }

    #[test]
    fn a_mangled_name_matches_as_well_as_a_readable_one() {
        let frame = FrameNames {
            function: Some("operator new(unsigned long)"),
            linkage_name: Some("_Znwm"),
            ..FrameNames::default()
        };
        assert!(match_stack(&[Location::parse("fun:_Znw?").unwrap()], &[frame]));
        assert!(match_stack(&[Location::parse("fun:operator new*").unwrap()], &[frame]));
    }

    /// The definition, in exponential time.
    fn slowly(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|skip| slowly(rest, &text[skip..])),
            Some((&byte, rest)) => text
                .split_first()
                .is_some_and(|(&first, others)| (byte == b'?' || byte == first) && slowly(rest, others)),
        }
    }

    proptest! {
        #[test]
        fn wildcards_mean_what_the_definition_says(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            prop_assert_eq!(matches(&pattern, &text), slowly(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn frame_patterns_match_as_text_patterns_do(pattern in "[ab*]{0,6}", text in "[ab]{0,6}") {
            let lines: Vec<String> = pattern
                .chars()
                .map(|one| if one == '*' { "...".to_owned() } else { format!("fun:{one}") })
                .collect();
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let functions: Vec<String> = text.chars().map(String::from).collect();
            let functions: Vec<&str> = functions.iter().map(String::as_str).collect();
            prop_assert_eq!(match_lines(&lines, &functions), matches(&format!("{pattern}*"), &text));
        }
    }
}
