//! The trail against plain walks of stacks that grow, shrink and change.

extern crate std;
use super::*;
use crate::CfaBase;
use core::sync::atomic::{AtomicU32, AtomicU64};
use proptest::prelude::*;
use std::{collections::HashMap, vec::Vec};

/// A stack of a few hundred words, and rules that depend on the low bits of the pc.
struct Fake {
    words: Vec<u64>,
    /// The stack pointer of the walk.
    start: u64,
}

const BASE: u64 = 0x1000;

impl Process for Fake {
    fn read(&self, addr: u64) -> Option<u64> {
        let index = addr.checked_sub(BASE).filter(|offset| offset.is_multiple_of(8))? / 8;
        self.words.get(index as usize).copied()
    }
    fn read_again(&self, addr: u64) -> u64 {
        assert!(addr >= self.start, "{addr:#x} lies below the stack pointer");
        self.read(addr).unwrap()
    }
    fn stack_end(&self) -> u64 {
        BASE + 8 * self.words.len() as u64
    }
    fn rule(&self, pc: u64, _: PcKind) -> Rule {
        let size = (pc >> 4 & 3) as i64 * 8;
        match pc & 15 {
            0..=5 => Rule::frame(CfaBase::Rsp, 8 + size, None),
            6..=9 => Rule::frame(CfaBase::Rsp, 16 + size, Some(-16)),
            10 | 11 => Rule::frame(CfaBase::Rbp, 16, Some(-16)),
            12 => Rule::Unknown,
            13 => Rule::frame(CfaBase::Realigned, 8, None),
            14 => Rule::Outermost,
            _ => Rule::Refused,
        }
    }
    fn is_code(&self, pc: u64) -> bool {
        pc & 0x40 == 0
    }
}

fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 1u64..0x80,
        1 => (0u64..300).prop_map(|index| BASE + index * 8),
        1 => any::<u64>(),
    ]
}

fn memory(index: usize, store: usize) -> (Vec<AtomicU32>, Vec<AtomicU64>) {
    ((0..index).map(|_| AtomicU32::new(0)).collect(), (0..store).map(|_| AtomicU64::new(0)).collect())
}

proptest! {
    #[test]
    fn a_trail_never_changes_what_a_walk_finds(
        words in prop::collection::vec(word(), 300),
        depth in 1usize..=MAX_FRAMES,
        captures in prop::collection::vec(
            (prop::collection::vec((0usize..300, word()), 0..3), 0u64..60, 1u64..0x40, any::<bool>()), 1..60),
    ) {
        let mut fake = Fake { words, start: 0 };
        let trail = Trail::new();
        let (index, store) = memory(1024, 16384);
        let depot = Depot::new(&index, &store);
        let mut ids: HashMap<Vec<Pc>, StackId> = HashMap::new();
        let (mut bp, mut generation) = (BASE + 80, 1);
        for (changes, sp, pc, is_fresh) in captures {
            for (index, word) in changes {
                fake.words[index] = word;
            }
            if is_fresh {
                bp = BASE + sp * 16;
                generation += u32::from(sp == 7);
            }
            let start = Registers { pc, sp: BASE + sp / 4 * 8, bp };
            fake.start = start.sp;
            for _ in 0..3 {
                let mut plain = [Pc(0); MAX_FRAMES];
                let len = walk_in(start, PcKind::Return, &fake, &mut plain[..depth]);
                let known = trail.find(start, generation, depth, &fake);
                let known = known.or_else(|| trail.climb(start, generation, depth, &fake, &depot));
                let id = trail.capture(start, generation, depth, &fake, &depot);
                prop_assert!(known.is_none_or(|known| known == id));
                let mut frames = [Pc(0); MAX_FRAMES];
                prop_assert_eq!(depot.get_in(id, &mut frames), &plain[..len]);
                prop_assert_eq!(*ids.entry(plain[..len].to_vec()).or_insert(id), id);
                prop_assert_eq!(capture_by_rules(start, depth, &fake, &depot), id);
            }
        }
    }
}

/// A stack of frames of two words each, all of one pc, with an outermost one.
fn recursion(frames: usize) -> Fake {
    let mut words: Vec<u64> = (0..frames).flat_map(|_| [0, 0x10]).collect();
    words.extend([0, 0x1e]);
    Fake { words, start: BASE }
}

#[test]
fn a_recursion_deeper_than_a_trail_keeps_its_stacks() {
    let fake = recursion(200);
    let trail = Trail::new();
    let (index, store) = memory(1024, 16384);
    let depot = Depot::new(&index, &store);
    for depth in [1, 5, 30, MAX_FRAMES] {
        for sp in (0..200).chain((0..200).rev()).step_by(3) {
            let start = Registers { pc: 0x10, sp: BASE + sp * 16, bp: 0 };
            let mut plain = [Pc(0); MAX_FRAMES];
            let len = walk_in(start, PcKind::Return, &fake, &mut plain[..depth]);
            let id = trail.capture(start, 1, depth, &fake, &depot);
            let mut frames = [Pc(0); MAX_FRAMES];
            assert_eq!(depot.get_in(id, &mut frames), &plain[..len], "{depth} {sp}");
            assert_eq!(id, capture_by_rules(start, depth, &fake, &depot), "{depth} {sp}");
        }
    }
}

#[test]
fn two_places_of_one_function_are_known_when_met_again() {
    let fake = recursion(10);
    let trail = Trail::new();
    let (index, store) = memory(1024, 1024);
    let depot = Depot::new(&index, &store);
    let places = [0x10, 0x50].map(|pc| Registers { pc, sp: BASE + 16, bp: 7 });
    for start in [places; 3].into_iter().flatten() {
        trail.capture(start, 1, 30, &fake, &depot);
    }
    for start in places {
        let id = trail.find(start, 1, 30, &fake).unwrap();
        assert_eq!(id, trail.capture(start, 1, 30, &fake, &depot));
        assert_eq!(trail.find(start, 2, 30, &fake), None);
        assert_eq!(trail.find(start, 1, 29, &fake), None);
    }
}

#[test]
fn places_whose_callers_take_turns_are_known_when_met_again() {
    // Two functions that allocate, called in turn from one place: the trail holds one of them at a time.
    let fakes = [0x10, 0x50].map(|inner| {
        let mut fake = recursion(10);
        fake.words[1] = inner;
        fake
    });
    let trail = Trail::new();
    let (index, store) = memory(1024, 1024);
    let depot = Depot::new(&index, &store);
    let places = [0x90, 0xd0].map(|pc| Registers { pc, sp: BASE, bp: 7 });
    let turns = || places.into_iter().zip(&fakes);
    for (start, fake) in (0..3).flat_map(|_| turns()) {
        trail.capture(start, 1, 30, fake, &depot);
    }
    for (start, fake) in (0..3).flat_map(|_| turns()) {
        let id = trail.find(start, 1, 30, fake).unwrap();
        assert_eq!(id, capture_by_rules(start, 30, fake, &depot));
    }
    // Called from the other.
    for (start, fake) in places.into_iter().zip(fakes.iter().rev()) {
        assert_eq!(trail.find(start, 1, 30, fake), None);
    }
}

#[test]
fn new_rules_are_asked_again() {
    struct Changing<'a>(&'a Fake, Rule);
    impl Process for Changing<'_> {
        fn read(&self, addr: u64) -> Option<u64> {
            self.0.read(addr)
        }
        fn read_again(&self, addr: u64) -> u64 {
            self.0.read_again(addr)
        }
        fn stack_end(&self) -> u64 {
            self.0.stack_end()
        }
        fn rule(&self, _: u64, _: PcKind) -> Rule {
            self.1
        }
        fn is_code(&self, _: u64) -> bool {
            true
        }
    }
    let fake = recursion(8);
    let trail = Trail::new();
    let (index, store) = memory(1024, 1024);
    let depot = Depot::new(&index, &store);
    let start = Registers { pc: 0x10, sp: BASE, bp: 0 };
    let every = Changing(&fake, Rule::frame(CfaBase::Rsp, 16, None));
    let other = Changing(&fake, Rule::frame(CfaBase::Rsp, 32, None));
    let before = trail.capture(start, 1, 30, &every, &depot);
    assert_ne!(trail.capture(start, 2, 30, &other, &depot), before);
}

#[test]
fn a_trail_in_use_is_left_alone() {
    let fake = recursion(8);
    let trail = Trail::new();
    let (index, store) = memory(1024, 1024);
    let depot = Depot::new(&index, &store);
    let start = Registers { pc: 0x10, sp: BASE, bp: 0 };
    let id = trail.capture(start, 1, 30, &fake, &depot);
    trail.busy.store(true, Ordering::Relaxed);
    let interrupting = Registers { pc: 0x20, ..start };
    assert_ne!(trail.capture(interrupting, 2, 30, &fake, &depot), id);
    assert_eq!(trail.terms.get(), terms(1, 30));
}
