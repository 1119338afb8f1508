//! Patterns from the launcher: which programs are not watched when a watched process becomes them, and whose own
//! allocators the shim stands for.
//!
//! In: patterns, each of a [`Subject`]. Out: whether one matches what a shim asks about. They travel as bytes in the
//! header: each pattern after a letter that says what it is for, with a zero byte behind.
//!
//! Runs between fork and exec: no allocation, no lock.

use memcheck_model::is_wildcard_match;

/// How many bytes the patterns may have together.
pub const PATTERN_BYTES: usize = 1024;

/// What a pattern is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Subject {
    /// The path of a program that is not watched.
    SkippedPath = b'p',
    /// An argument of a program that is not watched.
    SkippedArgument = b'a',
    /// The DT_SONAME of a module whose own allocator the shim stands for; see [`NO_SONAME`].
    Allocator = b's',
}

/// The pattern that modules without a DT_SONAME match, as programs are.
pub const NO_SONAME: &[u8] = b"NONE";

/// Writes the patterns into `list`. `None` when they are too long.
pub(crate) fn write_in<'a>(
    list: &mut [u8; PATTERN_BYTES],
    patterns: impl IntoIterator<Item = (Subject, &'a [u8])>,
) -> Option<()> {
    let mut used = 0;
    for (subject, pattern) in patterns.into_iter().filter(|(_, pattern)| !pattern.contains(&0)) {
        let end = used + pattern.len() + 2;
        let place = list.get_mut(used..end)?;
        place[0] = subject as u8;
        place[1..=pattern.len()].copy_from_slice(pattern);
        used = end;
    }
    Some(())
}

fn patterns_of(list: &[u8], subject: Subject) -> impl Iterator<Item = &[u8]> {
    list.split(|&byte| byte == 0).filter_map(move |entry| entry.strip_prefix(&[subject as u8]))
}

/// Whether a program is not to be watched.
pub(crate) fn skips<'a>(list: &[u8], path: &[u8], arguments: impl Iterator<Item = &'a [u8]> + Clone) -> bool {
    patterns_of(list, Subject::SkippedPath).any(|pattern| is_wildcard_match(pattern, path))
        || patterns_of(list, Subject::SkippedArgument)
            .any(|pattern| arguments.clone().any(|argument| is_wildcard_match(pattern, argument)))
}

/// Whether the shim stands for the allocator of a module with this DT_SONAME: for every one, when nothing is said.
pub(crate) fn takes_allocator(list: &[u8], soname: Option<&[u8]>) -> bool {
    let mut patterns = patterns_of(list, Subject::Allocator).peekable();
    patterns.peek().is_none()
        || patterns.any(|pattern| match soname {
            Some(soname) => is_wildcard_match(pattern, soname),
            None => pattern == NO_SONAME,
        })
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    fn list(patterns: &[(Subject, &str)]) -> [u8; PATTERN_BYTES] {
        let mut list = [0; PATTERN_BYTES];
        let patterns = patterns.iter().map(|&(subject, pattern)| (subject, pattern.as_bytes()));
        write_in(&mut list, patterns).unwrap();
        list
    }

    #[test]
    fn paths_and_arguments_have_their_own_patterns() {
        use Subject as S;
        let list =
            list(&[(S::SkippedPath, "*/perl"), (S::SkippedPath, "/x"), (S::SkippedArgument, "--quick")]);
        let skips = |path: &str, arguments: &[&str]| {
            skips(&list, path.as_bytes(), arguments.iter().map(|argument| argument.as_bytes()))
        };
        assert!(skips("/usr/bin/perl", &["perl"]) && skips("/x", &[]));
        assert!(skips("/bin/test", &["test", "--quick"]));
        assert!(!skips("--quick", &["/x", "*/perl"]) && !skips("", &[""]));
    }

    #[test]
    fn allocators_are_taken_by_the_names_of_their_modules() {
        let takes = |patterns: &[&str], soname: Option<&str>| {
            let patterns: Vec<_> = patterns.iter().map(|&pattern| (Subject::Allocator, pattern)).collect();
            takes_allocator(&list(&patterns), soname.map(str::as_bytes))
        };
        assert!(takes(&[], None) && takes(&[], Some("libx.so")));
        assert!(takes(&["NONE"], None) && !takes(&["NONE"], Some("libx.so")));
        assert!(takes(&["*malloc*"], Some("libjemalloc.so.2")) && !takes(&["*malloc*"], None));
        assert!(takes(&["NONE", "libx*"], None) && takes(&["NONE", "libx*"], Some("libx.so")));
    }

    #[test]
    fn a_list_that_is_too_long_is_refused() {
        let mut list = [0; PATTERN_BYTES];
        let mut write =
            |bytes: usize| write_in(&mut list, [(Subject::SkippedPath, &[b'x'; PATTERN_BYTES][..bytes])]);
        assert!(write(PATTERN_BYTES - 2).is_some());
        assert!(write(PATTERN_BYTES - 1).is_none());
    }
}
