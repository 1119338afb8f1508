//! Text with wildcards, as users name programs, modules and functions by it.

/// Whether the whole text is as the pattern says: `*` is any text, `?` any byte, also one of a longer character.
#[must_use]
pub fn is_wildcard_match(pattern: &[u8], text: &[u8]) -> bool {
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
            assert_eq!(is_wildcard_match(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }
}
