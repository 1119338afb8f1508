//! The heap over memory that is a vector, against a model that is a list: what is live, what was freed, and what
//! each byte may be used for.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod fake;
mod run;

use fake::{BASE, FREEING, Fake, OwnTables, request};
use memcheck_heap::{Backend, ChunkState, Class, FreeError, Heap, Late, Layout, ThreadCache, Wishes};
use memcheck_model::{Addr, AddrRange, Size, StackId, ThreadId};
use proptest::prelude::*;
use run::Op;

/// A heap that stays.
fn heap(quarantine_bytes: u64) -> (Heap<'static>, Fake) {
    heap_with(Wishes { quarantine_bytes: Some(quarantine_bytes), ..Wishes::default() })
}

fn heap_with(wishes: Wishes) -> (Heap<'static>, Fake) {
    Box::leak(Box::new(OwnTables::new())).heap(wishes)
}

fn bytes(at: Addr, size: u64) -> AddrRange {
    AddrRange::new(at, Size(size)).unwrap()
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_heap_does_as_the_model(
        ops in prop::collection::vec(op(), 1..1500),
        quarantine in 0u64..200_000,
        keeps_freed: bool,
    ) {
        run::run(&ops, Wishes { quarantine_bytes: Some(quarantine), keeps_freed, ..Wishes::default() });
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
        for (is_known, keeps_freed) in [(true, false), (false, false), (true, true), (false, true)] {
            let (heap, fake) =
                heap_with(Wishes { quarantine_bytes: Some(1 << 20), keeps_freed, ..Wishes::default() });
            let mut cache = ThreadCache::new(ThreadId(1));
            let mut told = 0;
            let mut late = |each: &Late| {
                let first = if after_free && keeps_freed { 0 } else { offset };
                assert_eq!((each.damage.first, each.after_free), (first, after_free));
                told += 1;
            };
            let made = heap.allocate(&mut cache, &fake, &request(40, 0)).unwrap().addr;
            let write = || {
                let at = Addr(made.0.wrapping_add_signed(offset));
                if is_known {
                    heap.damage_is_known(bytes(at, 1));
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
            heap.sweep(&fake, &[], &mut late);
            heap.sweep(&fake, &[], &mut late);
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
    heap.damage_is_known(bytes(Addr(made.0 + 40), 1));
    fake.write(Addr(made.0 + 40), 1, 9);
    heap.free(&mut cache, &fake, made, &FREEING, &mut |each: &Late| told.push(*each)).unwrap();
    fake.write(Addr(made.0 + 3), 1, 9);
    heap.retire(&mut cache, &fake, &mut |each: &Late| told.push(*each));
    heap.sweep(&fake, &[], &mut |each: &Late| told.push(*each));
    assert_eq!(told.len(), 1);
    assert!(told[0].after_free);
    assert_eq!((told[0].damage.first, told[0].damage.last), (3, 3));
}

#[test]
fn freed_chunks_that_keep_their_content_lose_it_when_they_are_given_out_again() {
    for size in [1, 15, 16, 40, 5000] {
        let (heap, fake) =
            heap_with(Wishes { quarantine_bytes: Some(0), keeps_freed: true, ..Wishes::default() });
        let mut cache = ThreadCache::new(ThreadId(1));
        let mut never = |late: &Late| panic!("{late:?}");
        let ends = |of: Addr| {
            let mut ends = [[0u8]; 2];
            fake.read(of, &mut ends[0]);
            fake.read(Addr(of.0 + size - 1), &mut ends[1]);
            ends
        };
        let made = heap.allocate(&mut cache, &fake, &request(size, 0)).unwrap().addr;
        fake.write(made, size, 7);
        heap.free(&mut cache, &fake, made, &FREEING, &mut never).unwrap();
        heap.sweep(&fake, &[], &mut never);
        assert_eq!(ends(made), [[7]; 2]);
        while heap.describe(made).unwrap().state == ChunkState::Quarantined {
            let other = heap.allocate(&mut cache, &fake, &request(size, 0)).unwrap().addr;
            heap.free(&mut cache, &fake, other, &FREEING, &mut never).unwrap();
        }
        assert!(ends(made).iter().all(|end| *end != [7]), "{size}");
    }
}

#[test]
fn a_change_of_a_freed_chunk_that_kept_its_content_is_told_once() {
    for (free_fill, at) in [(None, 0), (None, 39), (Some(0xee), 20)] {
        let (heap, fake) = heap_with(Wishes {
            quarantine_bytes: Some(1 << 20),
            keeps_freed: free_fill.is_none(),
            free_fill,
            ..Wishes::default()
        });
        let mut cache = ThreadCache::new(ThreadId(1));
        let mut told = Vec::new();
        let made = heap.allocate(&mut cache, &fake, &request(40, 0)).unwrap().addr;
        heap.free(&mut cache, &fake, made, &FREEING, &mut |each: &Late| told.push(*each)).unwrap();
        if let Some(byte) = free_fill {
            let mut content = [0; 40];
            fake.read(made, &mut content);
            assert_eq!(content, [byte; 40]);
        }
        fake.write(Addr(made.0 + at), 1, 9);
        heap.sweep(&fake, &[], &mut |each: &Late| told.push(*each));
        heap.sweep(&fake, &[], &mut |each: &Late| told.push(*each));
        assert_eq!(told.len(), 1);
        assert!(told[0].after_free);
        assert_eq!((told[0].damage.first, told[0].damage.last, told[0].damage.changed.0), (0, 39, 0));
    }
}

#[test]
fn known_damage_hides_no_other_damage_to_the_same_bytes_around() {
    for (known, unseen) in [((40, 4), (44, 47)), ((41, 1), (40, 40)), ((-2, 1), (-1, -1))] {
        let (heap, fake) = heap(1 << 20);
        let mut cache = ThreadCache::new(ThreadId(1));
        let mut told = Vec::new();
        let mut late = |each: &Late| told.push((each.damage.first, each.damage.last));
        let made = heap.allocate(&mut cache, &fake, &request(40, 0)).unwrap().addr;
        let at = Addr(made.0.wrapping_add_signed(known.0));
        heap.damage_is_known(bytes(at, known.1));
        fake.write(at, known.1, 9);
        fake.write(Addr(made.0.wrapping_add_signed(unseen.0)), (unseen.1 - unseen.0 + 1) as u64, 9);
        heap.free(&mut cache, &fake, made, &FREEING, &mut late).unwrap();
        heap.sweep(&fake, &[], &mut late);
        assert_eq!(told, [unseen]);
    }
}

#[test]
fn a_sweep_passes_over_what_cannot_be_read_and_nothing_else() {
    let (heap, fake) = heap(1 << 20);
    let mut cache = ThreadCache::new(ThreadId(1));
    let size = 300_000;
    let large: [Addr; 2] =
        core::array::from_fn(|_| heap.allocate(&mut cache, &fake, &request(size, 0)).unwrap().addr);
    large.iter().for_each(|made| fake.write(Addr(made.0 + size), 1, 9));
    let mut told = Vec::new();
    // What the first ends with, and what was never committed behind the second.
    let end = |made: Addr| (made.0 + size).next_multiple_of(4096);
    let unreadable = [bytes(Addr(end(large[0]) - 4096), 4096), bytes(Addr(end(large[1]) + 4096), 4096)];
    heap.sweep(&fake, &unreadable, &mut |each: &Late| told.push((each.chunk.start, each.damage.first)));
    assert_eq!(told, [(large[1], size as i64)]);
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
            heap.sweep(&fake, &[], &mut |each: &Late| seen.push(*each));
            assert_eq!(seen.len(), 1);
            let damage = seen[0].damage;
            assert_eq!((damage.first, damage.last), (first as i64, last as i64));
            assert_eq!(damage.changed.0, last - first + 1);
            assert_eq!(u64::from(damage.content_len), (last - first + 1).min(16));
        }
    }
}
