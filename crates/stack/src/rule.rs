//! How to get from one frame to its caller's, in few enough bits that a rule and its key are one word.
//!
//! ```text
//!  bit 30 28 27        12 11         0
//!      kind   CFA offset/8 rbp offset/8
//! ```
//!
//! Equations (DWARF 5, 6.4; psABI 3.7): `CFA = rsp + 8·c` or `rbp + 8·c`; the return address is at `CFA - 8`; the
//! caller's rsp is the CFA; the caller's rbp is at `CFA - 8·b`, or unchanged when `b` is zero.

/// What the canonical frame address is computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CfaBase {
    /// The stack pointer.
    Rsp,
    /// The frame pointer.
    Rbp,
}

/// How to leave one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The usual frame.
    Frame {
        /// What the CFA is computed from.
        base: CfaBase,
        /// The CFA's distance from it, in words.
        cfa_words: u16,
        /// How many words below the CFA rbp was saved; zero when it was not.
        rbp_words: u16,
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

const KIND_SHIFT: u32 = 28;
const CFA_SHIFT: u32 = 12;
const CFA_MAX: u16 = u16::MAX;
const RBP_MAX: u16 = 0xfff;
const RSP_FRAME: u32 = 1;
const RBP_FRAME: u32 = 2;
const SIGNAL: u32 = 3;
const OUTERMOST: u32 = 4;
const UNKNOWN: u32 = 5;
const REFUSED: u32 = 6;

impl Rule {
    /// How many bits `encode` uses.
    pub const BITS: u32 = 31;

    /// The rule with these offsets in bytes, if it can be said.
    #[must_use]
    pub fn frame(base: CfaBase, cfa_offset: i64, rbp_offset: Option<i64>) -> Self {
        let words = |bytes: i64, most: u16| {
            (bytes % 8 == 0).then(|| u16::try_from(bytes / 8).ok()).flatten().filter(|&words| words <= most)
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
                let kind = match base {
                    CfaBase::Rsp => RSP_FRAME,
                    CfaBase::Rbp => RBP_FRAME,
                };
                kind << KIND_SHIFT | (cfa_words as u32) << CFA_SHIFT | rbp_words as u32
            }
            Self::Signal => SIGNAL << KIND_SHIFT,
            Self::Outermost => OUTERMOST << KIND_SHIFT,
            Self::Unknown => UNKNOWN << KIND_SHIFT,
            Self::Refused => REFUSED << KIND_SHIFT,
        }
    }

    /// The rule that `encode` gave.
    #[must_use]
    pub const fn decode(bits: u32) -> Self {
        let base = match bits >> KIND_SHIFT {
            RSP_FRAME => CfaBase::Rsp,
            RBP_FRAME => CfaBase::Rbp,
            SIGNAL => return Self::Signal,
            OUTERMOST => return Self::Outermost,
            UNKNOWN => return Self::Unknown,
            _ => return Self::Refused,
        };
        Self::Frame {
            base,
            cfa_words: (bits >> CFA_SHIFT & 0xffff) as u16,
            rbp_words: (bits & RBP_MAX as u32) as u16,
        }
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
        assert_eq!(Rule::frame(CfaBase::Rsp, 8 << 17, None), Rule::Refused);
        assert_eq!(Rule::frame(CfaBase::Rbp, 16, Some(8)), Rule::Refused);
        assert_eq!(Rule::frame(CfaBase::Rbp, 16, Some(0)), Rule::Refused);
    }

    #[test]
    fn rules_without_offsets_survive_encoding() {
        for rule in [Rule::Signal, Rule::Outermost, Rule::Unknown, Rule::Refused] {
            assert_eq!(Rule::decode(rule.encode()), rule);
        }
    }

    proptest! {
        #[test]
        fn frames_survive_encoding(cfa in 0i64..0x10000, rbp in 0i64..0x1000, from_rsp: bool) {
            let base = if from_rsp { CfaBase::Rsp } else { CfaBase::Rbp };
            let rule = Rule::frame(base, cfa * 8, (rbp > 0).then_some(-rbp * 8));
            prop_assert_ne!(rule, Rule::Refused);
            prop_assert_eq!(Rule::decode(rule.encode()), rule);
            prop_assert!(u64::from(rule.encode()) < 1 << Rule::BITS);
        }
    }
}
