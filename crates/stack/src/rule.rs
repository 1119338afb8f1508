//! How to get from one frame to its caller's, in few enough bits that a rule and its key are one word.
//!
//! ```text
//!  bit 29 27 26         8 7          0
//!      base   CFA offset/8 rbp offset/8       base zero: no frame, the low bits say why
//! ```
//!
//! Equations (DWARF 5, 6.4; psABI 3.7), with `[a]` the word at `a`: the return address is at `CFA - 8`; the caller's
//! rsp is the CFA; the caller's rbp is at `CFA - 8·b`, or unchanged when `b` is zero, except in realigned frames. The
//! CFA is as [`CfaBase`] says. What gcc and clang emit for functions fits; the rest is refused.

/// What the canonical frame address is computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CfaBase {
    /// The stack pointer: `CFA = rsp + 8·c`.
    Rsp,
    /// The frame pointer: `CFA = rbp + 8·c`.
    Rbp,
    /// The caller's stack pointer, saved in the frame: `CFA = [rsp + 8·c] + 8` (hand-written code that aligns rsp).
    SavedRsp,
    /// A copy of the CFA below the frame pointer: `CFA = [rbp - 8·c]`, and the caller's rbp is `[rbp]` (what gcc makes
    /// of functions that realign the stack for vectors).
    Realigned,
}

/// How to leave one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The usual frame.
    Frame {
        /// What the CFA is computed from.
        base: CfaBase,
        /// The CFA's distance from it, in words.
        cfa_words: u32,
        /// How many words below the CFA rbp was saved; zero when it was not.
        rbp_words: u32,
    },
    /// The kernel's frame of a signal handler: the registers are in the `ucontext_t` on the stack.
    Signal,
    /// The outermost frame: its return address is undefined.
    Outermost,
    /// Nothing is known of this code: the frame pointer may lead on.
    Unknown,
    /// Something is known, but no rule can say it: the walk ends.
    Refused,
}

const BASE_SHIFT: u32 = 27;
const CFA_SHIFT: u32 = 8;
/// Frames of up to 4 MiB.
const CFA_MAX: u32 = (1 << (BASE_SHIFT - CFA_SHIFT)) - 1;
/// Compilers save rbp among the six registers next to the return address.
const RBP_MAX: u32 = (1 << CFA_SHIFT) - 1;
const SIGNAL: u32 = 1;
const OUTERMOST: u32 = 2;
const UNKNOWN: u32 = 3;
const REFUSED: u32 = 4;

impl CfaBase {
    const fn code(self) -> u32 {
        match self {
            Self::Rsp => 1,
            Self::Rbp => 2,
            Self::SavedRsp => 3,
            Self::Realigned => 4,
        }
    }
}

/// A frame whose CFA is computed from a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UsualFrame {
    /// Whether from rbp, not rsp.
    pub by_bp: bool,
    pub cfa_words: u32,
    pub rbp_words: u32,
}

impl UsualFrame {
    /// The frame, if an encoded rule is of one. Nearly every rule is, so this asks for nothing else.
    #[inline(always)]
    pub const fn decode(bits: u32) -> Option<Self> {
        const FIRST: u32 = CfaBase::Rsp.code();
        const _: () = assert!(CfaBase::Rbp.code() == FIRST + 1);
        let base = (bits >> BASE_SHIFT).wrapping_sub(FIRST);
        if base > 1 {
            return None;
        }
        Some(Self { by_bp: base == 1, cfa_words: bits >> CFA_SHIFT & CFA_MAX, rbp_words: bits & RBP_MAX })
    }
}

impl Rule {
    /// How many bits `encode` uses.
    pub const BITS: u32 = 30;

    /// The rule with these offsets in bytes, if it can be said.
    #[must_use]
    pub fn frame(base: CfaBase, cfa_offset: i64, rbp_offset: Option<i64>) -> Self {
        let words = |bytes: i64, most: u32| {
            (bytes % 8 == 0).then(|| u32::try_from(bytes / 8).ok()).flatten().filter(|&words| words <= most)
        };
        let rbp_words =
            rbp_offset.map_or(Some(0), |offset| words(-offset, RBP_MAX).filter(|&words| words > 0));
        match (words(cfa_offset, CFA_MAX), rbp_words) {
            (Some(cfa_words), Some(rbp_words)) => Self::Frame { base, cfa_words, rbp_words },
            _ => Self::Refused,
        }
    }

    /// The rule as at most [`Self::BITS`] bits, never zero.
    #[must_use]
    pub const fn encode(self) -> u32 {
        match self {
            Self::Frame { base, cfa_words, rbp_words } => {
                base.code() << BASE_SHIFT | cfa_words << CFA_SHIFT | rbp_words
            }
            Self::Signal => SIGNAL,
            Self::Outermost => OUTERMOST,
            Self::Unknown => UNKNOWN,
            Self::Refused => REFUSED,
        }
    }

    /// The rule that `encode` gave.
    #[must_use]
    #[inline(always)]
    pub const fn decode(bits: u32) -> Self {
        let base = match bits >> BASE_SHIFT {
            1 => CfaBase::Rsp,
            2 => CfaBase::Rbp,
            3 => CfaBase::SavedRsp,
            4 => CfaBase::Realigned,
            _ => {
                return match bits {
                    SIGNAL => Self::Signal,
                    OUTERMOST => Self::Outermost,
                    UNKNOWN => Self::Unknown,
                    _ => Self::Refused,
                };
            }
        };
        Self::Frame { base, cfa_words: bits >> CFA_SHIFT & CFA_MAX, rbp_words: bits & RBP_MAX }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(Rule::frame(CfaBase::Rsp, 12, None), Rule::Refused);
        assert_eq!(Rule::frame(CfaBase::Rsp, -8, None), Rule::Refused);
        assert_eq!(Rule::frame(CfaBase::Rsp, 8 << 19, None), Rule::Refused);
        assert_eq!(Rule::frame(CfaBase::Rbp, 16, Some(8)), Rule::Refused);
        assert_eq!(Rule::frame(CfaBase::Rbp, 16, Some(0)), Rule::Refused);
    }

    #[test]
    fn rules_without_offsets_survive_encoding() {
        for rule in [Rule::Signal, Rule::Outermost, Rule::Unknown, Rule::Refused] {
            assert_eq!(Rule::decode(rule.encode()), rule);
            assert_eq!(UsualFrame::decode(rule.encode()), None);
        }
    }

    proptest! {
        #[test]
        fn frames_survive_encoding(cfa in 0i64..0x80000, rbp in 0i64..0x100, base in 0usize..4) {
            let base = [CfaBase::Rsp, CfaBase::Rbp, CfaBase::SavedRsp, CfaBase::Realigned][base];
            let rule = Rule::frame(base, cfa * 8, (rbp > 0).then_some(-rbp * 8));
            prop_assert_ne!(rule, Rule::Refused);
            prop_assert_eq!(Rule::decode(rule.encode()), rule);
            prop_assert!(u64::from(rule.encode()) < 1 << Rule::BITS);
            let usual = UsualFrame::decode(rule.encode()).map(|usual| {
                let base = if usual.by_bp { CfaBase::Rbp } else { CfaBase::Rsp };
                Rule::Frame { base, cfa_words: usual.cfa_words, rbp_words: usual.rbp_words }
            });
            prop_assert_eq!(usual, Some(rule).filter(|_| matches!(base, CfaBase::Rsp | CfaBase::Rbp)));
        }
    }
}
