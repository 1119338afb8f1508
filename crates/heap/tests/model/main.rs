//! The heap over memory that is a vector, against a model that is a list: what is live, what was freed, and what
//! each byte may be used for.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::cell::RefCell;

use memcheck_heap::{
    Backend, BatchWords, Change, ChunkMeta, ChunkState, Class, FreeError, Freeing, Heap, Late, Layout,
    Pattern, Reason, Request, Tables, ThreadCache, Wishes,
};
use memcheck_model::{Addr, AddrRange, Function, StackId, ThreadId};
use proptest::prelude::*;

const BASE: u64 = 1 << 32;
const ADDRESSABLE: u8 = 0;
const POISONED: u8 = 1;

struct Bytes {
    content: Vec<u8>,
    shadow: Vec<u8>,
    committed: Vec<bool>,
}

struct Fake(RefCell<Bytes>);

impl Fake {
    fn new(layout: &Layout) -> Self {
        let len = layout.range().size().0 as usize;
        Self(RefCell::new(Bytes {
            content: vec![0; len],
            shadow: vec![0; len],
            committed: vec![false; len / 4096],
        }))
    }

    fn at(range: AddrRange) -> std::ops::Range<usize> {
        (range.start().0 - BASE) as usize..(range.end().0 - BASE) as usize
    }

    fn assert_committed(&self, range: AddrRange) {
        let at = Self::at(range);
        let pages = at.start / 4096..at.end.div_ceil(4096);
        assert!(range.is_empty() || self.0.borrow().committed[pages].iter().all(|&page| page), "{range:?}");
    }

    fn write(&self, start: Addr, size: u64, value: u8) {
        let range = AddrRange::new(start, memcheck_model::Size(size)).unwrap();
        self.assert_committed(range);
        self.0.borrow_mut().content[Self::at(range)].fill(value);
    }

    fn is_addressable(&self, addr: u64) -> bool {
        self.0.borrow().shadow[(addr - BASE) as usize] == ADDRESSABLE
    }
}

impl Backend for Fake {
    fn commit(&self, range: AddrRange) -> bool {
        assert!(range.start().is_aligned(4096) && range.end().is_aligned(4096), "{range:?}");
        let at = Self::at(range);
        self.0.borrow_mut().committed[at.start / 4096..at.end / 4096].fill(true);
        true
    }

    fn decommit(&self, range: AddrRange) {
        self.assert_committed(range);
        let at = Self::at(range);
        let mut bytes = self.0.borrow_mut();
        bytes.committed[at.start / 4096..at.end / 4096].fill(false);
        bytes.content[at].fill(0);
    }

    fn discard(&self, range: AddrRange) {
        self.assert_committed(range);
        self.0.borrow_mut().content[Self::at(range)].fill(0);
    }

    fn fill(&self, range: AddrRange, pattern: Pattern) {
        self.assert_committed(range);
        self.0.borrow_mut().content[Self::at(range)].fill(pattern as u8);
    }

    fn find_change(&self, range: AddrRange, pattern: Pattern) -> Option<Change> {
        self.assert_committed(range);
        let bytes = self.0.borrow();
        let changed: Vec<u64> = Self::at(range)
            .filter(|&at| bytes.content[at] != pattern as u8)
            .map(|at| BASE + at as u64)
            .collect();
        Some(Change {
            first: Addr(*changed.first()?),
            last: Addr(*changed.last()?),
            changed: changed.len() as u64,
        })
    }

    fn prefetch(&self, addr: Addr) {
        assert!(addr.0 >= BASE);
    }

    fn read(&self, from: Addr, into: &mut [u8]) {
        let at = (from.0 - BASE) as usize;
        into.copy_from_slice(&self.0.borrow().content[at..at + into.len()]);
    }

    fn poison(&self, range: AddrRange, _: Reason) {
        let mut bytes = self.0.borrow_mut();
        let mut at = Self::at(range);
        // As the real shadow: what a granule leaves of a range that ends inside it is lost.
        at.end = at.end.next_multiple_of(8).min(bytes.shadow.len());
        bytes.shadow[at].fill(POISONED);
    }

    fn unpoison(&self, range: AddrRange) {
        assert!(range.start().is_aligned(8));
        let mut bytes = self.0.borrow_mut();
        let at = Self::at(range);
        bytes.shadow[at.start..at.end.next_multiple_of(8)].fill(POISONED);
        bytes.shadow[at].fill(ADDRESSABLE);
    }

    fn enter_critical(&self) -> u64 {
        7
    }

    fn leave_critical(&self, before: u64) {
        assert_eq!(before, 7);
    }

    fn relax(&self) {
        panic!("nobody else holds a lock here");
    }
}

fn leak<T: Default>(count: usize) -> &'static [T] {
    Box::leak((0..count).map(|_| T::default()).collect())
}

/// A heap of small regions, so that they fill up.
fn heap(quarantine_bytes: u64) -> (Heap, Fake) {
    let layout = Layout::new(Addr(BASE), 17, 20);
    let tables = Tables {
        metas: leak::<ChunkMeta>(layout.chunk_count()),
        large_sizes: leak(layout.large_count()),
        small_ring: leak::<BatchWords>(1 << 6),
        big_ring: leak::<BatchWords>(1 << 4),
    };
    (
        Heap::new(layout, tables, Wishes { quarantine_bytes: Some(quarantine_bytes), ..Wishes::default() }),
        Fake::new(&layout),
    )
}

fn request(size: u64, align_shift: u32) -> Request {
    Request { size, align_shift, function: Function::Malloc, stack: StackId(1) }
}

const FREEING: Freeing = Freeing { function: Function::Free, stack: StackId(2) };

#[derive(Clone, Copy, Debug)]
enum Op {
    Allocate { size: u64, align_shift: u32 },
    Free { which: usize },
    FreeAgain { which: usize },
    Resize { which: usize, size: u64 },
    Overrun { which: usize, before: bool },
    WriteAfterFree { which: usize },
}

fn op() -> impl Strategy<Value = Op> {
    let size = prop_oneof![8 => 0u64..200, 4 => 0u64..5000, 1 => 0u64..700_000];
    let align = prop_oneof![9 => Just(0u32), 1 => 5u32..14];
    let which = any::<usize>();
    prop_oneof![
        40 => (size.clone(), align).prop_map(|(size, align_shift)| Op::Allocate { size, align_shift }),
        36 => which.prop_map(|which| Op::Free { which }),
        4 => which.prop_map(|which| Op::FreeAgain { which }),
        4 => (which, size).prop_map(|(which, size)| Op::Resize { which, size }),
        2 => (which, any::<bool>()).prop_map(|(which, before)| Op::Overrun { which, before }),
        1 => which.prop_map(|which| Op::WriteAfterFree { which }),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Known {
    addr: Addr,
    size: u64,
    tag: u8,
    overrun: bool,
}

impl Known {
    fn overlaps(&self, other: &Self) -> bool {
        let end = |known: &Self| known.addr.0 + known.size.max(1);
        self.addr.0 < end(other) && other.addr.0 < end(self)
    }
}

fn check_live(heap: &Heap, fake: &Fake, known: &Known) {
    let chunk = heap.describe(known.addr).unwrap();
    assert_eq!((chunk.start, chunk.size.0, chunk.state), (known.addr, known.size, ChunkState::Live));
    let (start, end) = (known.addr.0, known.addr.0 + known.size);
    assert!(!fake.is_addressable(start - 1) && !fake.is_addressable(end), "{known:?}");
    if known.size > 0 {
        assert!(fake.is_addressable(start) && fake.is_addressable(end - 1), "{known:?}");
        assert_eq!(heap.find_live(Addr(end - 1)).unwrap().start, known.addr);
        let mut ends = [[0u8]; 2];
        fake.read(known.addr, &mut ends[0]);
        fake.read(Addr(end - 1), &mut ends[1]);
        assert_eq!(ends, [[known.tag]; 2], "{known:?} lost its content");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_heap_does_as_the_model(ops in prop::collection::vec(op(), 1..1500), quarantine in 0u64..200_000) {
        let (heap, fake) = heap(quarantine);
        let mut caches = [ThreadCache::new(ThreadId(10)), ThreadCache::new(ThreadId(11))];
        let mut live: Vec<Known> = Vec::new();
        let mut freed: Vec<Known> = Vec::new();
        let (mut expected_late, mut expected_uaf) = (0, 0);
        let found: RefCell<Vec<Late>> = RefCell::default();
        let mut late = |each: &Late| found.borrow_mut().push(*each);
        let mut counts = (0u64, 0u64);
        for (step, op) in ops.iter().enumerate() {
            let cache = &mut caches[step % 3 / 2];
            match *op {
                Op::Allocate { size, align_shift } => {
                    let Some(made) = heap.allocate(cache, &fake, &request(size, align_shift)) else { continue };
                    prop_assert!(made.addr.is_aligned(1 << align_shift.max(4)));
                    let known = Known { addr: made.addr, size, tag: step as u8 | 1, overrun: false };
                    prop_assert!(!live.iter().any(|other| other.overlaps(&known)));
                    if made.zeroed && size > 0 {
                        let mut ends = [[1u8]; 2];
                        fake.read(made.addr, &mut ends[0]);
                        fake.read(Addr(made.addr.0 + size - 1), &mut ends[1]);
                        prop_assert_eq!(ends, [[0u8]; 2]);
                    }
                    fake.write(made.addr, size, known.tag);
                    // A slot remembers its last chunk only, wherever that began: of its class, none is larger
                    // than twice the size and the alignment together, nor begins further away.
                    let reach = 2 * (size + (1 << align_shift)) + (64 << 10);
                    freed.retain(|other| other.addr.0.abs_diff(known.addr.0) > reach);
                    live.push(known);
                    check_live(&heap, &fake, &known);
                    counts.0 += 1;
                }
                Op::Free { which } if !live.is_empty() => {
                    let known = live.swap_remove(which % live.len());
                    let before = found.borrow().len();
                    let done = heap.free(cache, &fake, known.addr, &FREEING, &mut late);
                    prop_assert!(done.is_ok(), "{done:?} {known:?} {:?}", heap.describe(known.addr));
                    let done = done.unwrap();
                    prop_assert_eq!(done.size, known.size);
                    if known.overrun {
                        // Unless the damage was seen through a neighbour already.
                        expected_late += found.borrow().len() - before;
                    }
                    prop_assert!(!fake.is_addressable(known.addr.0));
                    freed.push(known);
                    counts.1 += 1;
                }
                Op::FreeAgain { which } if !freed.is_empty() => {
                    let known = freed[which % freed.len()];
                    let again = heap.free(cache, &fake, known.addr, &FREEING, &mut late);
                    prop_assert!(
                        matches!(again, Err(FreeError::AlreadyFreed(chunk)) if chunk.start == known.addr
                            && chunk.size.0 == known.size && chunk.free_stack == StackId(2)),
                        "{:?} {:?}", again, known
                    );
                    if known.size > 8 {
                        let inside = heap.free(cache, &fake, Addr(known.addr.0 + 8), &FREEING, &mut late);
                        prop_assert_eq!(inside, Err(FreeError::NoChunk));
                    }
                }
                Op::Resize { which, size } if !live.is_empty() => {
                    let index = which % live.len();
                    let known = &mut live[index];
                    if known.overrun { continue; }
                    if heap.try_resize(cache, &fake, known.addr, &request(size, 0), &mut late) {
                        fake.write(known.addr, size, known.tag);
                        known.size = size;
                        let known = *known;
                        check_live(&heap, &fake, &known);
                        counts.0 += 1;
                        counts.1 += 1;
                    }
                }
                Op::Overrun { which, before } if !live.is_empty() => {
                    let index = which % live.len();
                    let known = &mut live[index];
                    let at = if before { known.addr.0 - 1 } else { known.addr.0 + known.size };
                    fake.write(Addr(at), 1, 0x41);
                    known.overrun = true;
                }
                Op::WriteAfterFree { which } if !freed.is_empty() => {
                    let known = freed[which % freed.len()];
                    let quarantined = heap.describe(known.addr)
                        .is_some_and(|chunk| chunk.state == ChunkState::Quarantined);
                    if known.size > 0 && quarantined {
                        fake.write(known.addr, 1, 0x42);
                        expected_uaf += 1;
                    }
                }
                _ => {}
            }
        }
        for known in &live {
            check_live(&heap, &fake, known);
        }
        let mut seen = 0;
        heap.for_each_live(|chunk| {
            assert!(live.iter().any(|known| known.addr == chunk.start && known.size == chunk.size.0));
            seen += 1;
        });
        prop_assert_eq!(seen, live.len());
        // Whatever was found was there: overruns belong to overrun chunks, late writes to freed ones.
        let uaf = found.borrow().iter().filter(|late| late.after_free).count();
        prop_assert!(uaf <= expected_uaf);
        prop_assert!(found.borrow().len() - uaf <= expected_late + live.len() + freed.len());
        for cache in &mut caches {
            heap.retire(cache, &fake, &mut late);
        }
        let sums = heap.retired_statistics();
        prop_assert_eq!((sums.allocs, sums.frees), counts);
    }
}

#[test]
fn every_class_serves_its_whole_capacity_and_watches_both_sides() {
    let layout = Layout::new(Addr(BASE), 20, 24);
    for class in Class::all() {
        let (heap, fake) = heap(0);
        let shape = class.shape();
        if shape.slot_bytes > 1 << 20 || layout.range().is_empty() {
            continue;
        }
        let mut cache = ThreadCache::new(ThreadId(1));
        for (offset, expected) in [(-1i64, -1), (shape.capacity as i64, shape.capacity as i64)] {
            let Some(made) = heap.allocate(&mut cache, &fake, &request(shape.capacity, 0)) else { continue };
            fake.write(made.addr, shape.capacity, 1);
            fake.write(Addr(made.addr.0.wrapping_add_signed(offset)), 1, 9);
            let mut seen = Vec::new();
            let mut late = |each: &Late| seen.push(*each);
            heap.free(&mut cache, &fake, made.addr, &FREEING, &mut late).unwrap();
            assert_eq!(seen.len(), 1, "{class:?} {offset}");
            assert_eq!((seen[0].damage.first, seen[0].after_free), (expected, false));
            assert_eq!(seen[0].chunk.start, made.addr);
        }
    }
}

#[test]
fn a_write_between_two_chunks_belongs_to_the_nearer_and_else_to_the_first() {
    for (from_end, of_first) in [(0, true), (7, true), (8, false), (15, false)] {
        let (heap, fake) = heap(1 << 20);
        let mut cache = ThreadCache::new(ThreadId(1));
        let mut chunks: Vec<Addr> =
            (0..2).map(|_| heap.allocate(&mut cache, &fake, &request(32, 0)).unwrap().addr).collect();
        chunks.sort();
        fake.write(Addr(chunks[0].0 + 32 + from_end), 1, 9);
        let mut seen = Vec::new();
        for &chunk in &chunks {
            heap.free(&mut cache, &fake, chunk, &FREEING, &mut |late: &Late| seen.push(late.chunk.start))
                .unwrap();
        }
        assert_eq!(seen, [if of_first { chunks[0] } else { chunks[1] }], "{from_end}");
    }
}

#[test]
fn an_empty_chunk_lies_in_its_own_slot_at_every_alignment() {
    for align_shift in 0..14 {
        let (heap, fake) = heap(0);
        let mut cache = ThreadCache::new(ThreadId(1));
        let mut never = |_: &Late| unreachable!();
        let made = heap.allocate(&mut cache, &fake, &request(0, align_shift)).unwrap();
        assert!(heap.free(&mut cache, &fake, made.addr, &FREEING, &mut never).is_ok(), "{align_shift}");
    }
}

#[test]
fn a_double_free_is_known_after_thousands_of_other_frees() {
    let (heap, fake) = heap(64 << 10);
    let mut cache = ThreadCache::new(ThreadId(1));
    let mut never = |_: &Late| unreachable!();
    let first = heap.allocate(&mut cache, &fake, &request(1000, 0)).unwrap().addr;
    heap.free(&mut cache, &fake, first, &FREEING, &mut never).unwrap();
    for _ in 0..5000 {
        let other = heap.allocate(&mut cache, &fake, &request(40, 0)).unwrap().addr;
        heap.free(&mut cache, &fake, other, &FREEING, &mut never).unwrap();
    }
    assert_eq!(heap.view(heap.describe(first).unwrap().id).state, ChunkState::Recycled);
    let again = heap.free(&mut cache, &fake, first, &FREEING, &mut never);
    assert!(matches!(again, Err(FreeError::AlreadyFreed(chunk)) if chunk.free_stack == StackId(2)));
}

#[test]
fn the_quarantine_keeps_a_chunk_from_reuse_until_its_budget_has_passed() {
    let (heap, fake) = heap(32 << 10);
    let mut cache = ThreadCache::new(ThreadId(1));
    let mut never = |_: &Late| unreachable!();
    let slot = Class::find(64, 0).unwrap().shape().slot_bytes;
    let first = heap.allocate(&mut cache, &fake, &request(64, 0)).unwrap().addr;
    heap.free(&mut cache, &fake, first, &FREEING, &mut never).unwrap();
    let mut passed = 0;
    loop {
        let next = heap.allocate(&mut cache, &fake, &request(64, 0)).unwrap().addr;
        if next == first {
            break;
        }
        heap.free(&mut cache, &fake, next, &FREEING, &mut never).unwrap();
        passed += slot;
        assert!(passed < 1 << 20, "the chunk never came back");
    }
    assert!(passed >= 32 << 10, "{passed}");
}

#[test]
fn damage_that_was_reported_as_it_was_done_is_not_told_again() {
    for (offset, after_free) in [(-1i64, false), (40, false), (47, false), (8, true)] {
        for is_known in [true, false] {
            let (heap, fake) = heap(1 << 20);
            let mut cache = ThreadCache::new(ThreadId(1));
            let mut told = 0;
            let mut late = |each: &Late| {
                assert_eq!((each.damage.first, each.after_free), (offset, after_free));
                told += 1;
            };
            let made = heap.allocate(&mut cache, &fake, &request(40, 0)).unwrap().addr;
            let write = || {
                let at = Addr(made.0.wrapping_add_signed(offset));
                if is_known {
                    heap.damage_is_known(at);
                }
                fake.write(at, 1, 9);
            };
            if !after_free {
                write();
            }
            heap.free(&mut cache, &fake, made, &FREEING, &mut late).unwrap();
            if after_free {
                write();
            }
            heap.sweep(&fake, &mut late);
            heap.sweep(&fake, &mut late);
            assert_eq!(told, u32::from(!is_known), "{offset} {after_free} {is_known}");
        }
    }
}

#[test]
fn a_known_overrun_hides_no_write_after_free_and_nothing_of_the_next_chunk_there() {
    let (heap, fake) = heap(0);
    let mut cache = ThreadCache::new(ThreadId(1));
    let mut told = Vec::new();
    let made = heap.allocate(&mut cache, &fake, &request(40, 0)).unwrap().addr;
    heap.damage_is_known(Addr(made.0 + 40));
    fake.write(Addr(made.0 + 40), 1, 9);
    heap.free(&mut cache, &fake, made, &FREEING, &mut |each: &Late| told.push(*each)).unwrap();
    fake.write(Addr(made.0 + 3), 1, 9);
    heap.retire(&mut cache, &fake, &mut |each: &Late| told.push(*each));
    heap.sweep(&fake, &mut |each: &Late| told.push(*each));
    assert_eq!(told.len(), 1);
    assert!(told[0].after_free);
    assert_eq!((told[0].damage.first, told[0].damage.last), (3, 3));
}

#[test]
fn damage_has_exact_ends() {
    let (heap, fake) = heap(0);
    let mut cache = ThreadCache::new(ThreadId(1));
    for first in 40..64u64 {
        // The gap after the chunk: eight bytes of slack and the next left redzone of sixteen.
        for last in first..64 {
            let made = heap.allocate(&mut cache, &fake, &request(40, 0)).unwrap().addr;
            fake.write(Addr(made.0 + first), last - first + 1, 0);
            let mut seen = Vec::new();
            heap.sweep(&fake, &mut |each: &Late| seen.push(*each));
            assert_eq!(seen.len(), 1);
            let damage = seen[0].damage;
            assert_eq!((damage.first, damage.last), (first as i64, last as i64));
            assert_eq!(damage.changed.0, last - first + 1);
            assert_eq!(u64::from(damage.content_len), (last - first + 1).min(16));
        }
    }
}
