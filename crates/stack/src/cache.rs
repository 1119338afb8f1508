//! Rules by return address, shared by all threads.
//!
//! ```text
//!  entry: bit 63      30 29       0        set = top 14 bits of hash(pc), 48 bits
//!             tag        rule              tag = the other 34
//! ```
//!
//! `hash(pc) = pc · ODD mod 2^48` loses nothing, so set and tag together *are* the address: an entry is one word,
//! never torn, and a hit is never another address' rule. A set has two entries, and a new rule goes to the first and
//! pushes what was there to the second. No locks; may run in signal handlers.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::Rule;

const PC_BITS: u32 = 48;
const SET_BITS: u32 = 14;
const TAG_BITS: u32 = PC_BITS - SET_BITS;
/// Odd, so that multiplication mod 2^48 is one to one; its high bits mix the low bits of addresses upwards.
const ODD: u64 = 0x9e37_79b9_7f4b;

/// How many entries a rule cache has.
pub const RULE_CACHE_ENTRIES: usize = 2 << SET_BITS;

const _: () = assert!(TAG_BITS + Rule::BITS == 64);

/// The rule cache over memory that the caller provides, zeroed.
#[derive(Clone, Copy)]
pub struct RuleCache<'a> {
    entries: &'a [AtomicU64; RULE_CACHE_ENTRIES],
}

impl<'a> RuleCache<'a> {
    /// A cache in this memory.
    #[must_use]
    pub const fn new(entries: &'a [AtomicU64; RULE_CACHE_ENTRIES]) -> Self {
        Self { entries }
    }

    /// The rule for `pc`, from the cache or else from `resolve`, which is then remembered.
    #[inline]
    pub fn get(&self, pc: u64, resolve: impl FnOnce() -> Rule) -> Rule {
        Rule::decode(self.get_encoded(pc, resolve))
    }

    /// The same as [`Rule::encode`] has it.
    #[inline(always)]
    pub fn get_encoded(&self, pc: u64, resolve: impl FnOnce() -> Rule) -> u32 {
        let hash = pc.wrapping_mul(ODD) & ((1 << PC_BITS) - 1);
        let set = (hash >> TAG_BITS) as usize * 2;
        let tag = hash & ((1 << TAG_BITS) - 1);
        let (first, second) = (&self.entries[set], &self.entries[set + 1]);
        for entry in [first, second] {
            // Relaxed: the word is all there is.
            let found = entry.load(Ordering::Relaxed);
            let bits = (found & ((1 << Rule::BITS) - 1)) as u32;
            if found >> Rule::BITS == tag && bits != 0 {
                return bits;
            }
        }
        let rule = resolve().encode();
        if pc >> PC_BITS == 0 {
            second.store(first.load(Ordering::Relaxed), Ordering::Relaxed);
            first.store(tag << Rule::BITS | u64::from(rule), Ordering::Relaxed);
        }
        rule
    }

    /// Forgets everything: code was loaded or unloaded.
    pub fn clear(&self) {
        for entry in self.entries {
            entry.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::CfaBase;
    use std::{boxed::Box, vec::Vec};

    fn memory() -> Box<[AtomicU64; RULE_CACHE_ENTRIES]> {
        let entries: Vec<_> = (0..RULE_CACHE_ENTRIES).map(|_| AtomicU64::new(0)).collect();
        entries.into_boxed_slice().try_into().unwrap()
    }

    #[test]
    fn a_rule_is_resolved_once_until_the_cache_is_cleared() {
        let memory = memory();
        let cache = RuleCache::new(&memory);
        let rule = Rule::frame(CfaBase::Rsp, 64, Some(-16));
        assert_eq!(cache.get(0x7fff_1234_5678, || rule), rule);
        assert_eq!(cache.get(0x7fff_1234_5678, || panic!("it is cached")), rule);
        cache.clear();
        assert_eq!(cache.get(0x7fff_1234_5678, || Rule::Signal), Rule::Signal);
    }

    #[test]
    fn addresses_never_share_a_rule() {
        let memory = memory();
        let cache = RuleCache::new(&memory);
        for pc in 0..200_000u64 {
            let own = Rule::frame(CfaBase::Rsp, (pc as i64 % 60_000) * 8, None);
            assert_eq!(cache.get(0x5555_0000_0000 + pc * 3, || own), own);
            assert_eq!(cache.get(0x5555_0000_0000 + pc * 3, || Rule::Refused), own);
        }
    }
}
