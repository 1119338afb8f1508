//! Which programs are not watched when a watched process becomes them: patterns of their paths and arguments.
//!
//! In: two lists of patterns from the launcher, and from a shim the path and the arguments of a program. Out: whether
//! one matches. The list travels as bytes in the header: each pattern after a letter that says what it is for, with
//! a zero byte behind.
//!
//! Runs between fork and exec: no allocation, no lock.

/// How many bytes the lists may have together.
pub const SKIP_BYTES: usize = 1024;

const PATH: u8 = b'p';
const ARGUMENT: u8 = b'a';

/// Writes the patterns for paths and those for arguments into `list`. `None` when they are too long.
pub(crate) fn write_in<'a>(
    list: &mut [u8; SKIP_BYTES],
    paths: impl IntoIterator<Item = &'a [u8]>,
    arguments: impl IntoIterator<Item = &'a [u8]>,
) -> Option<()> {
    let paths = paths.into_iter().map(|pattern| (PATH, pattern));
    let arguments = arguments.into_iter().map(|pattern| (ARGUMENT, pattern));
    let mut used = 0;
    for (letter, pattern) in paths.chain(arguments).filter(|(_, pattern)| !pattern.contains(&0)) {
        let end = used + pattern.len() + 2;
        let place = list.get_mut(used..end)?;
        place[0] = letter;
        place[1..=pattern.len()].copy_from_slice(pattern);
        used = end;
    }
    Some(())
}

/// Whether a pattern of the list matches the program.
pub(crate) fn matches<'a>(
    list: &[u8],
    path: &[u8],
    arguments: impl Iterator<Item = &'a [u8]> + Clone,
) -> bool {
    list.split(|&byte| byte == 0).any(|entry| match entry.split_first() {
        Some((&PATH, pattern)) => is_match(pattern, path),
        Some((&ARGUMENT, pattern)) => arguments.clone().any(|argument| is_match(pattern, argument)),
        _ => false,
    })
}

/// Whether the whole text is as the pattern says: `*` is any text, `?` any byte.
fn is_match(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    // Where to go on when what follows the last star does not match.
    let mut star = None;
    while from < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[from] => {
                at += 1;
                from += 1;
            }
            _ => {
                let Some((pattern_at, text_at)) = star else { return false };
                star = Some((pattern_at, text_at + 1));
                (at, from) = (pattern_at + 1, text_at + 1);
            }
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_stand_for_text_and_bytes() {
        for (pattern, text, expected) in [
            ("*/sh", "/bin/sh", true),
            ("*/sh", "/bin/bash", false),
            ("/bin/?sh", "/bin/zsh", true),
            ("*a*b*", "xxaxxabxx", true),
            ("", "", true),
            ("*", "", true),
            ("a", "ab", false),
            ("ab?", "ab", false),
        ] {
            assert_eq!(is_match(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn paths_and_arguments_have_their_own_patterns() {
        let mut list = [0; SKIP_BYTES];
        write_in(&mut list, [&b"*/perl"[..], b"/x"], [&b"--quick"[..]]).unwrap();
        let skips = |path: &str, arguments: &[&str]| {
            matches(&list, path.as_bytes(), arguments.iter().map(|argument| argument.as_bytes()))
        };
        assert!(skips("/usr/bin/perl", &["perl"]) && skips("/x", &[]));
        assert!(skips("/bin/test", &["test", "--quick"]));
        assert!(!skips("--quick", &["/x", "*/perl"]) && !skips("", &[""]));
    }

    #[test]
    fn a_list_that_is_too_long_is_refused() {
        let mut list = [0; SKIP_BYTES];
        assert!(write_in(&mut list, [&[b'x'; SKIP_BYTES - 2][..]], []).is_some());
        assert!(write_in(&mut list, [&[b'x'; SKIP_BYTES - 1][..]], []).is_none());
    }
}
