//! Options that few runs need, with the names and meanings that Valgrind gives them.

use std::{ffi::OsString, str::FromStr};

use clap::ValueEnum;
use memcheck_model::{Addr, AddrRange, Size};
use memcheck_wire::MAX_ALIGN_SHIFT;

use crate::flags::YesNo;

/// The options.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Rarely needed")]
pub struct RareFlags {
    /// Do not watch started programs whose path matches one of these patterns (* and ?)
    #[arg(long, value_name = "PATTERN,...", require_equals = true, value_delimiter = ',')]
    pub trace_children_skip: Vec<OsString>,

    /// Do not watch started programs that have an argument which matches one of these patterns
    #[arg(long, value_name = "PATTERN,...", require_equals = true, value_delimiter = ',')]
    pub trace_children_skip_by_arg: Vec<OsString>,

    /// Leave out what forked processes do until they start a program
    #[arg(long, value_name = "YES|NO", default_value = "no", require_equals = true)]
    pub child_silent_after_fork: YesNo,

    /// somalloc=PATTERN: check the heap of modules with an allocator of their own whose DT_SONAME matches (NONE: those
    /// without one, as programs), not of all
    #[arg(long, value_name = "SYNONYM=PATTERN,...", require_equals = true, value_delimiter = ',')]
    pub soname_synonyms: Vec<Synonym>,

    /// Show names of C++ as the source has them
    #[arg(long, value_name = "YES|NO", default_value = "yes", require_equals = true)]
    pub demangle: YesNo,

    /// Show inlined calls as frames of their own
    #[arg(long, value_name = "YES|NO", default_value = "yes", require_equals = true)]
    pub read_inline_info: YesNo,

    /// Which stacks of blocks are shown
    #[arg(long, value_name = "WHICH", default_value = "alloc-and-free", require_equals = true)]
    pub keep_stacktraces: KeptStacks,

    /// Do not report accesses to these addresses: 0x1000-0x1fff,...
    #[arg(long, value_name = "RANGE,...", require_equals = true, value_delimiter = ',')]
    pub ignore_ranges: Vec<IgnoredRange>,

    /// Place every block at a multiple of this power of two, 16 to 4096
    #[arg(long, value_name = "BYTES", default_value = "16", require_equals = true)]
    pub alignment: Alignment,

    /// How many unused bytes lie between blocks at least, up to 4096
    #[arg(long, value_name = "BYTES", default_value_t = 16, require_equals = true,
        value_parser = clap::value_parser!(u16).range(0..=4096))]
    pub redzone_size: u16,

    /// A text about the run, for the head of Valgrind's XML
    #[arg(long, value_name = "TEXT", require_equals = true)]
    pub xml_user_comment: Option<String>,
}

impl RareFlags {
    /// Patterns of the modules whose own allocators are replaced; all, when there are none.
    pub fn allocator_patterns(&self) -> impl Iterator<Item = &str> {
        self.soname_synonyms.iter().filter(|synonym| synonym.name == "somalloc").map(|it| it.pattern.as_str())
    }
}

/// One of `--soname-synonyms`: what a name of Valgrind's stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synonym {
    name: String,
    pattern: String,
}

impl FromStr for Synonym {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, pattern) = text
            .split_once('=')
            .ok_or_else(|| format!("{text}: expected a name and a pattern, as in somalloc=libjemalloc*"))?;
        Ok(Self { name: name.to_owned(), pattern: pattern.to_owned() })
    }
}

/// `--keep-stacktraces`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KeptStacks {
    /// Where blocks were allocated.
    Alloc,
    /// Where blocks were freed.
    Free,
    /// Both.
    AllocAndFree,
    /// Where blocks were freed, or allocated when they were not.
    AllocThenFree,
    /// None.
    None,
}

impl KeptStacks {
    /// Whether the stack of the allocation is shown, of a block that was freed or not.
    pub fn shows_allocation(self, is_freed: bool) -> bool {
        match self {
            Self::Alloc | Self::AllocAndFree => true,
            Self::AllocThenFree => !is_freed,
            Self::Free | Self::None => false,
        }
    }

    /// Whether the stack of the free is shown.
    pub fn shows_free(self) -> bool {
        matches!(self, Self::Free | Self::AllocAndFree | Self::AllocThenFree)
    }
}

/// Addresses from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IgnoredRange(pub AddrRange);

impl FromStr for IgnoredRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| u64::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok();
        let range = text.split_once('-').and_then(|(from, to)| Some((number(from)?, number(to)?)));
        range
            .and_then(|(from, to)| AddrRange::new(Addr(from), Size(to.checked_sub(from)?.checked_add(1)?)))
            .map(Self)
            .ok_or_else(|| format!("{text}: expected a range such as 0x1000-0x1fff"))
    }
}

/// An alignment, as a shift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alignment(pub u8);

impl FromStr for Alignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = text.parse().ok().filter(|bytes: &u64| bytes.is_power_of_two());
        let shift = bytes.map(|bytes| bytes.trailing_zeros() as u8);
        match shift.filter(|shift| (3..=MAX_ALIGN_SHIFT).contains(shift)) {
            // Every block has 16 anyway.
            Some(shift) => Ok(Self(if shift > 4 { shift } else { 0 })),
            None => Err(format!("{text}: expected a power of two from 16 to {}", 1 << MAX_ALIGN_SHIFT)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_include_both_ends() {
        let IgnoredRange(range) = "0x10-0x1f".parse().unwrap();
        assert!(range.contains(Addr(0x10)) && range.contains(Addr(0x1f)) && !range.contains(Addr(0x20)));
        for bad in ["0x10", "10-20", "0x20-0x10", "0x0-0xffffffffffffffff", ""] {
            assert!(bad.parse::<IgnoredRange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn alignments_are_powers_of_two_up_to_a_page() {
        assert_eq!("16".parse(), Ok(Alignment(0)));
        assert_eq!("4096".parse(), Ok(Alignment(12)));
        for bad in ["0", "24", "8192", "x"] {
            assert!(bad.parse::<Alignment>().is_err(), "{bad}");
        }
    }

    #[test]
    fn stacks_are_kept_as_asked() {
        use KeptStacks as K;
        let kept = |which: K, is_freed| (which.shows_allocation(is_freed), which.shows_free());
        assert_eq!(kept(K::AllocThenFree, true), (false, true));
        assert_eq!(kept(K::AllocThenFree, false), (true, true));
        assert_eq!(kept(K::Alloc, true), (true, false));
        assert_eq!(kept(K::None, false), (false, false));
    }
}
