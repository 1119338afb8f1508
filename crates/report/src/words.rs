//! Numbers and places in words: the phrases that messages, notes and formats share.

use memcheck_model::{Addr, Block, BlockState, Function};

use crate::frame::{NamedAddress, Symbol};

/// `1 byte`, `24 bytes`.
#[must_use]
pub(crate) fn bytes(count: u64) -> String {
    plural(count, "byte")
}

/// `1 block`, `24 blocks`.
#[must_use]
pub(crate) fn blocks(count: u64) -> String {
    plural(count, "block")
}

/// `1 NOUN`, `24 NOUNs`.
#[must_use]
pub(crate) fn plural(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// `a 24-byte block`, with what became of it.
#[must_use]
pub(crate) fn block_phrase(block: &Block) -> String {
    let size = block.size.0;
    // "an 8-byte", "an 11-byte", "an 18-byte", "an 80-byte", "an 11000-byte"
    let digits = size.to_string();
    let vowel = digits.starts_with('8') || ((size == 11 || size == 18) || is_eleven_thousand(&digits));
    let article = if vowel { "an" } else { "a" };
    let freed = if block.state == BlockState::Freed { " that was freed" } else { "" };
    format!("{article} {size}-byte block{freed}")
}

fn is_eleven_thousand(digits: &str) -> bool {
    digits.len() % 3 == 2 && (digits.starts_with("11") || digits.starts_with("18"))
}

/// Where `[addr, addr+size)` lies against a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    /// It starts before the block, by this many bytes.
    Before(u64),
    /// It starts in the block; this many of its bytes are past the end.
    Into {
        /// Bytes from the block's start.
        offset: u64,
        /// Bytes of the access past the end.
        past: u64,
    },
    /// It starts this many bytes past the end.
    Past(u64),
}

impl Relation {
    pub(crate) fn of(addr: Addr, size: u64, block: &Block) -> Self {
        let offset = addr.offset_from(block.start);
        if offset < 0 {
            return Self::Before(offset.unsigned_abs());
        }
        let offset = offset.unsigned_abs();
        // The end of an empty access, or of a freed pointer, lies in the block as long as its start does.
        match offset.checked_sub(block.size.0) {
            Some(gap) => Self::Past(gap),
            None => Self::Into { offset, past: size.saturating_sub(block.size.0 - offset) },
        }
    }

    /// `8 bytes past the end of a 40-byte block`.
    pub(crate) fn phrase(self, block: &Block) -> String {
        let whole = block_phrase(block);
        match self {
            Self::Before(gap) => format!("{} before the start of {whole}", bytes(gap)),
            Self::Past(gap) => format!("{} past the end of {whole}", bytes(gap)),
            Self::Into { past, .. } if past > 0 => {
                format!("{past} of them past the end of {whole}")
            }
            Self::Into { offset: 0, .. } => format!("at the start of {whole}"),
            Self::Into { offset, .. } => format!("{} into {whole}", bytes(offset)),
        }
    }
}

/// `the variable \`table\``, `8 bytes into the variable \`table\` (64 bytes)`.
#[must_use]
pub(crate) fn named_phrase(named: &NamedAddress) -> String {
    let whole = match named.symbol {
        Symbol::Function => format!("the function `{}`", named.name),
        Symbol::Variable if named.size > 0 => {
            format!("the global variable `{}` ({})", named.name, bytes(named.size))
        }
        Symbol::Variable => format!("the global variable `{}`", named.name),
    };
    if named.offset == 0 { whole } else { format!("{} into {whole}", bytes(named.offset)) }
}

/// What reverses an allocator function: the name to use instead of a wrong one.
#[must_use]
pub(crate) fn matching_release(allocator: Function) -> &'static str {
    use Function as F;
    match allocator {
        F::New | F::NewNothrow => "delete",
        F::NewAligned | F::NewAlignedNothrow => "delete (with the same alignment)",
        F::NewArray | F::NewArrayNothrow => "delete[]",
        F::NewArrayAligned | F::NewArrayAlignedNothrow => "delete[] (with the same alignment)",
        _ => "free",
    }
}

/// Bytes as a hex dump with their text, `41 41 41 41 ("AAAA")`.
#[must_use]
pub(crate) fn dump(content: &[u8]) -> String {
    let hex: Vec<String> = content.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut text = hex.join(" ");
    let printable = content.iter().filter(|byte| byte.is_ascii_graphic() || **byte == b' ').count();
    if printable * 2 > content.len() {
        text.push_str(&format!(" (\"{}\")", content.escape_ascii()));
    }
    text
}

/// A text broken between words into lines of at most `most` columns, those after the first behind `indent` spaces.
/// Longer words stand alone.
pub(crate) fn wrap(text: &str, most: usize, indent: usize) -> String {
    let mut wrapped = String::new();
    let mut column = 0;
    for word in text.split(' ') {
        let len = word.chars().count();
        if column > 0 && column + 1 + len > most {
            wrapped.push('\n');
            wrapped.extend(std::iter::repeat_n(' ', indent));
            column = 0;
        } else if column > 0 {
            wrapped.push(' ');
            column += 1;
        }
        wrapped.push_str(word);
        column += len;
    }
    wrapped
}

#[cfg(test)]
mod tests {
    use super::*;
    use memcheck_model::{Size, ThreadId};

    fn block(size: u64) -> Block {
        Block {
            start: Addr(0x1000),
            size: Size(size),
            state: BlockState::Live,
            allocated_by: Function::Malloc,
            freed_by: None,
            alloc_tid: ThreadId(1),
            free_tid: ThreadId(0),
        }
    }

    #[test]
    fn articles_follow_the_number_as_spoken() {
        for (size, phrase) in [
            (8, "an 8-byte block"),
            (11, "an 11-byte block"),
            (18, "an 18-byte block"),
            (80, "an 80-byte block"),
            (110, "a 110-byte block"),
            (180, "a 180-byte block"),
            (1800, "a 1800-byte block"),
            (11000, "an 11000-byte block"),
            (0, "a 0-byte block"),
        ] {
            assert_eq!(block_phrase(&block(size)), phrase);
        }
    }

    #[test]
    fn an_access_lies_before_in_across_or_past() {
        let block = block(24);
        let at = |offset: u64, size| {
            Relation::of(Addr(0x1000u64.wrapping_add(offset)), size, &block).phrase(&block)
        };
        assert_eq!(at(24, 4), "0 bytes past the end of a 24-byte block");
        assert_eq!(at(25, 4), "1 byte past the end of a 24-byte block");
        assert_eq!(at(20, 8), "4 of them past the end of a 24-byte block");
        assert_eq!(at(16, 8), "16 bytes into a 24-byte block");
        assert_eq!(at(0, 8), "at the start of a 24-byte block");
        assert_eq!(at(0u64.wrapping_sub(8), 4), "8 bytes before the start of a 24-byte block");
    }

    #[test]
    fn dumps_show_text_only_where_there_is_some() {
        assert_eq!(dump(b"AAAA"), "41 41 41 41 (\"AAAA\")");
        assert_eq!(dump(&[0, 0, 0, 1]), "00 00 00 01");
        assert_eq!(dump(b"lo\0"), "6c 6f 00 (\"lo\\x00\")");
    }
}
