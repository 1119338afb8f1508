//! The fast operations against the slow reference, on random histories.

use std::cell::RefCell;

use memcheck_model::{Addr, AddrRange, Size};
use memcheck_shadow::{
    GranuleIndex, Granules, Poison, SHORT_BYTES, ShadowByte, allow, find_bad, forbid, is_clean,
    is_clean_short, poison, reference, unpoison,
};
use proptest::prelude::*;

const GRANULES: usize = 80;

/// Readers may look this far beyond the last granule.
const READ_BEYOND: usize = 7;

struct Vector(RefCell<[u8; GRANULES + READ_BEYOND]>);

impl Vector {
    fn new() -> Self {
        Self(RefCell::new([0; GRANULES + READ_BEYOND]))
    }
}

impl Granules for Vector {
    fn byte(&self, index: GranuleIndex) -> ShadowByte {
        ShadowByte(self.0.borrow()[index.0 as usize])
    }

    fn set_byte(&self, index: GranuleIndex, value: ShadowByte) {
        self.0.borrow_mut()[index.0 as usize] = value.0;
    }

    fn word(&self, index: GranuleIndex) -> u64 {
        assert_eq!(index.0 % 8, 0);
        let start = index.0 as usize;
        u64::from_le_bytes(self.0.borrow()[start..start + 8].try_into().unwrap())
    }

    fn word_from(&self, index: GranuleIndex) -> u64 {
        let start = index.0 as usize;
        u64::from_le_bytes(self.0.borrow()[start..start + 8].try_into().unwrap())
    }

    fn fill(&self, index: GranuleIndex, count: u64, value: ShadowByte) {
        let start = index.0 as usize;
        self.0.borrow_mut()[start..start + count as usize].fill(value.0);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Poison(AddrRange, Poison),
    Unpoison(AddrRange),
}

fn range(start: u64, size: u64) -> AddrRange {
    let end = (start + size).min(8 * GRANULES as u64);
    AddrRange::between(Addr(start), Addr(end)).unwrap()
}

fn any_step() -> impl Strategy<Value = Step> {
    let places = 0..8 * GRANULES as u64;
    let sizes = 0..200u64;
    prop_oneof![
        (places.clone(), sizes.clone(), 0..Poison::ALL.len())
            .prop_map(|(start, size, reason)| Step::Poison(range(start, size), Poison::ALL[reason])),
        (places, sizes).prop_map(|(start, size)| Step::Unpoison(range(start & !7, size))),
    ]
}

proptest! {
    #[test]
    fn histories_leave_the_same_shadow_and_the_same_answers(
        steps in proptest::collection::vec(any_step(), 0..40),
        checks in proptest::collection::vec((0..8 * GRANULES as u64, 0..600u64), 20),
    ) {
        let fast = Vector::new();
        let slow = Vector::new();
        for step in steps {
            match step {
                Step::Poison(range, reason) => {
                    poison(&fast, range, reason);
                    reference::poison(&slow, range, reason);
                }
                Step::Unpoison(range) => {
                    unpoison(&fast, range);
                    reference::unpoison(&slow, range);
                }
            }
            prop_assert_eq!(&*fast.0.borrow(), &*slow.0.borrow());
        }
        for (start, size) in checks {
            let range = range(start, size);
            prop_assert_eq!(find_bad(&fast, range), reference::find_bad(&fast, range));
            prop_assert_eq!(is_clean(&fast, range), reference::find_bad(&fast, range).is_none());
            let short = AddrRange::between(range.start(), Addr(range.end().0.min(start + SHORT_BYTES))).unwrap();
            if !short.is_empty() {
                let clean = reference::find_bad(&fast, short).is_none();
                prop_assert_eq!(is_clean_short(&fast, short.start(), short.size().0), clean);
            }
        }
    }
}

/// Every granule state, access size, offset: the table that the emitted check must agree with.
#[test]
fn every_block_size_up_to_64_has_exactly_its_bytes_addressable() {
    for size in 0..=64 {
        let shadow = Vector::new();
        poison(&shadow, range(0, 8 * GRANULES as u64), Poison::Unused);
        unpoison(&shadow, AddrRange::new(Addr(64), Size(size)).unwrap());
        for addr in 0..8 * GRANULES as u64 {
            assert_eq!(reference::is_addressable(&shadow, Addr(addr)), (64..64 + size).contains(&addr));
        }
    }
}

proptest! {
    #[test]
    fn ranges_of_any_kind_are_forbidden_and_allowed_without_touching_others(
        steps in proptest::collection::vec((any::<bool>(), 0..8 * GRANULES as u64, 0..60u64), 0..30),
    ) {
        let shadow = Vector::new();
        let states = || -> Vec<bool> {
            (0..8 * GRANULES as u64).map(|addr| reference::is_addressable(&shadow, Addr(addr))).collect()
        };
        for (allows, start, size) in steps {
            let range = range(start, size);
            let before = states();
            if allows { allow(&shadow, range) } else { forbid(&shadow, range) }
            for (addr, (&was, is)) in before.iter().zip(states()).enumerate() {
                let granule = addr / 8;
                let inside = range.contains(Addr(addr as u64));
                let is_before = (addr as u64) < range.start().0 && start / 8 == granule as u64;
                // A granule's addressable bytes are its first: what lies behind the range keeps those before it.
                let behind = (addr + 1..8 * (granule + 1))
                    .any(|other| other as u64 >= range.end().0 && before[other]);
                let expected = match (inside, allows) {
                    (true, true) => true,
                    (true, false) => was && behind,
                    (false, true) => was || is_before && !range.is_empty(),
                    (false, false) => was,
                };
                prop_assert_eq!(is, expected, "{} after {:?} of {:?}", addr, allows, range);
            }
        }
    }
}
