//! The nine cases of the theory, and everything else that the search promises, on fake memory.

use alloc::{vec, vec::Vec};

use memcheck_model::LeakKind::{self, Definite, Indirect, Possible, Reachable};
use memcheck_model::{Addr, AddrRange, PATH_STEPS, Pc, Size, StackId, Step};
use proptest::prelude::*;

use crate::fake::{CODE, FILE, Fake, OPTIONS, kinds, sum};
use crate::{ChunkIndex, Heuristics, Resolution, SearchOptions};

/// How a pointer leads to its block.
#[derive(Clone, Copy)]
enum Link {
    None,
    Start,
    Interior,
}

/// `R link A link B`: the kinds of A and B.
fn chain(root_to_a: Link, a_to_b: Link) -> [Option<LeakKind>; 2] {
    let mut memory = Fake::new();
    let (a, b) = (memory.chunk(64), memory.chunk(64));
    let aim = |memory: &Fake, link, chunk| match link {
        Link::None => 0,
        Link::Start => memory.addr(chunk),
        Link::Interior => memory.addr(chunk) + 63,
    };
    let (to_a, to_b) = (aim(&memory, root_to_a, a), aim(&memory, a_to_b, b));
    memory.root(to_a);
    memory.store(a, 3, to_b);
    let found = kinds(&memory.search(), 2);
    [found[0], found[1]]
}

#[test]
fn the_nine_cases_of_the_table() {
    use Link::{Interior, None as Nothing, Start};
    assert_eq!(chain(Start, Nothing)[0], Some(Reachable), "1: R → B");
    assert_eq!(chain(Start, Start), [Some(Reachable), Some(Reachable)], "2: R → A → B");
    assert_eq!(chain(Nothing, Nothing)[0], Some(Definite), "3: R   B");
    assert_eq!(chain(Nothing, Start), [Some(Definite), Some(Indirect)], "4: R   A → B");
    assert_eq!(chain(Interior, Nothing)[0], Some(Possible), "5: R ⇢ B");
    assert_eq!(chain(Start, Interior), [Some(Reachable), Some(Possible)], "6: R → A ⇢ B");
    assert_eq!(chain(Interior, Start), [Some(Possible), Some(Possible)], "7: R ⇢ A → B");
    assert_eq!(chain(Interior, Interior), [Some(Possible), Some(Possible)], "8: R ⇢ A ⇢ B");
    assert_eq!(chain(Nothing, Interior), [Some(Definite), Some(Indirect)], "9: R   A ⇢ B");
}

#[test]
fn a_start_pointer_found_after_an_interior_one_wins_with_all_that_follows() {
    let mut memory = Fake::new();
    let (a, b) = (memory.chunk(32), memory.chunk(32));
    let (to_a, to_b) = (memory.addr(a), memory.addr(b));
    memory.store(a, 0, to_b);
    memory.root(to_a + 8);
    memory.root(to_a);
    assert_eq!(kinds(&memory.search(), 2), [Some(Reachable); 2]);
}

#[test]
fn pointers_to_the_end_before_the_start_and_to_freed_blocks_hold_nothing() {
    let mut memory = Fake::new();
    let (a, b, freed) = (memory.chunk(32), memory.chunk(32), memory.chunk(32));
    let (past_a, before_b, to_freed) = (memory.addr(a) + 32, memory.addr(b) - 8, memory.addr(freed));
    memory.free(freed);
    let _ = [past_a, before_b, to_freed].map(|value| memory.root(value));
    let to_b = memory.addr(b);
    memory.store(freed, 0, to_b);
    assert_eq!(kinds(&memory.search(), 3), [Some(Definite), Some(Definite), None]);
}

#[test]
fn an_empty_block_is_held_by_its_address() {
    let mut memory = Fake::new();
    let (held, _lost) = (memory.chunk(0), memory.chunk(0));
    let to_held = memory.addr(held);
    memory.root(to_held);
    assert_eq!(kinds(&memory.search(), 2), [Some(Reachable), Some(Definite)]);
}

#[test]
fn a_pointer_in_the_bytes_after_the_last_whole_word_is_not_seen() {
    let mut memory = Fake::new();
    let (a, b) = (memory.chunk(12), memory.chunk(8));
    let (to_a, to_b) = (memory.addr(a), memory.addr(b));
    memory.root(to_a);
    memory.store(a, 1, to_b);
    assert_eq!(kinds(&memory.search(), 2), [Some(Reachable), Some(Definite)]);
}

#[test]
fn a_tree_lost_at_its_root_is_one_definite_block_with_all_others_indirect() {
    let mut memory = Fake::new();
    let nodes: Vec<u32> = (0..1000).map(|_| memory.chunk(24)).collect();
    for parent in 0..500 {
        for (word, child) in [2 * parent + 1, 2 * parent + 2].into_iter().enumerate() {
            if let Some(&child) = nodes.get(child) {
                let to_child = memory.addr(child);
                memory.store(nodes[parent], word, to_child);
            }
        }
    }
    let outcome = memory.search();
    assert_eq!(outcome.total(Definite), sum(1, 24));
    assert_eq!(outcome.total(Indirect), sum(999, 999 * 24));
    assert_eq!(outcome.records[0].indirect, sum(999, 999 * 24));
    assert_eq!(outcome.records[0].sample, ChunkIndex(nodes[0]));
}

#[test]
fn a_lost_ring_is_led_by_the_block_that_was_allocated_from_first() {
    let mut memory = Fake::new();
    let nodes: Vec<u32> = (0..10).map(|_| memory.chunk(16)).collect();
    for (place, &node) in nodes.iter().enumerate() {
        let to_next = memory.addr(nodes[(place + 1) % 10]);
        memory.store(node, 0, to_next);
    }
    let outcome = memory.search();
    assert_eq!((outcome.total(Definite), outcome.total(Indirect)), (sum(1, 16), sum(9, 144)));
    assert_eq!(outcome.records[0].sample, ChunkIndex(nodes[0]));
}

#[test]
fn a_clique_found_before_its_holder_is_taken_over_with_its_sum() {
    let mut memory = Fake::new();
    let (leaf, inner, outer) = (memory.chunk(8), memory.chunk(8), memory.chunk(8));
    let (to_leaf, to_inner) = (memory.addr(leaf), memory.addr(inner));
    memory.store(inner, 0, to_leaf);
    memory.store(outer, 0, to_inner);
    let outcome = memory.search();
    assert_eq!(kinds(&outcome, 3), [Some(Indirect), Some(Indirect), Some(Definite)]);
    assert_eq!(outcome.records[0].indirect, sum(2, 16));
}

#[test]
fn a_block_that_two_cliques_reach_is_counted_once() {
    let mut memory = Fake::new();
    let (one, two, shared) = (memory.chunk(8), memory.chunk(8), memory.chunk(40));
    let to_shared = memory.addr(shared);
    memory.store(one, 0, to_shared);
    memory.store(two, 0, to_shared);
    let outcome = memory.search();
    let indirect: u64 = outcome.records.iter().map(|record| record.indirect.bytes).sum();
    assert_eq!((outcome.total(Definite), outcome.total(Indirect), indirect), (sum(2, 16), sum(1, 40), 40));
}

#[test]
fn blocks_that_are_not_reported_still_hold_others_and_are_counted_nowhere() {
    let mut memory = Fake::new();
    let (inherited, held, lost, lost_inherited) =
        (memory.chunk(8), memory.chunk(8), memory.chunk(8), memory.chunk(8));
    memory.hide(inherited);
    memory.hide(lost_inherited);
    let (to_inherited, to_held, to_lost) = (memory.addr(inherited), memory.addr(held), memory.addr(lost));
    memory.root(to_inherited);
    memory.store(inherited, 0, to_held);
    memory.store(lost_inherited, 0, to_lost);
    let outcome = memory.search();
    assert_eq!(kinds(&outcome, 4), [None, Some(Reachable), Some(Definite), None]);
    assert_eq!(outcome.total(Definite), sum(1, 8));
}

fn heuristic(set: Heuristics, size: u64, words: &[u64], offset: u64) -> LeakKind {
    let mut memory = Fake::new();
    let chunk = memory.chunk(size);
    for (place, &word) in words.iter().enumerate() {
        memory.store(chunk, place, word);
    }
    let pointer = memory.addr(chunk) + offset;
    memory.root(pointer);
    kinds(&memory.search_with(SearchOptions { heuristics: set, ..OPTIONS }), 1)[0].unwrap()
}

#[test]
fn stdstring_needs_length_capacity_and_size_to_agree() {
    let set = Heuristics::STDSTRING;
    assert_eq!(heuristic(set, 24 + 10 + 1, &[5, 10, 0], 24), Reachable);
    assert_eq!(heuristic(set, 24 + 10 + 1, &[11, 10, 0], 24), Possible, "longer than its capacity");
    assert_eq!(heuristic(set, 24 + 10, &[5, 10, 0], 24), Possible, "another size");
    assert_eq!(heuristic(set, 24 + 10 + 1, &[5, 10, 0], 25), Possible, "another offset");
    assert_eq!(heuristic(Heuristics::LENGTH64, 24 + 10 + 1, &[5, 10, 0], 24), Possible, "another heuristic");
}

#[test]
fn length64_needs_the_size_of_the_rest() {
    assert_eq!(heuristic(Heuristics::LENGTH64, 40, &[32], 8), Reachable);
    assert_eq!(heuristic(Heuristics::LENGTH64, 40, &[40], 8), Possible);
    assert_eq!(heuristic(Heuristics::LENGTH64, 8, &[0], 4), Possible);
}

#[test]
fn newarray_needs_a_count_that_divides_the_rest() {
    assert_eq!(heuristic(Heuristics::NEWARRAY, 8 + 48, &[4], 8), Reachable);
    assert_eq!(heuristic(Heuristics::NEWARRAY, 8 + 48, &[5], 8), Possible);
    assert_eq!(heuristic(Heuristics::NEWARRAY, 8 + 48, &[0], 8), Possible);
    // No elements: the pointer is to the end of the count.
    assert_eq!(heuristic(Heuristics::NEWARRAY, 8, &[0], 8), Reachable);
    assert_eq!(heuristic(Heuristics::NEWARRAY, 8, &[1], 8), Definite);
    assert_eq!(heuristic(Heuristics::NEWARRAY, 16, &[0, 0], 16), Definite);
    assert_eq!(heuristic(Heuristics::STDSTRING, 8, &[0], 8), Definite);
}

#[test]
fn multipleinheritance_needs_virtual_tables_at_both_ends() {
    let set = Heuristics::MULTIPLE_INHERITANCE;
    let (table, other) = (FILE + 8, FILE + 32);
    assert_eq!(heuristic(set, 64, &[table, 0, other], 16), Reachable);
    assert_eq!(heuristic(set, 64, &[0, 0, other], 16), Possible);
    assert_eq!(heuristic(set, 64, &[table, 0, CODE], 16), Possible);
    assert_eq!(heuristic(set, 64, &[table, 0, FILE + 16], 16), Reachable, "a null word between");
    assert_eq!(heuristic(set, 20, &[table, 0, other], 16), Possible, "the object ends before the table");
}

/// The kinds of a chunk that holds pointers to `elements` of a pool, of the pool, and of what its first word points
/// to.
fn pool(set: Heuristics, elements: &[u64]) -> Vec<LeakKind> {
    let mut memory = Fake::new();
    let (table, pool, held) = (memory.chunk(64), memory.chunk(256), memory.chunk(8));
    let [to_table, to_pool, to_held] = [table, pool, held].map(|chunk| memory.addr(chunk));
    memory.root(to_table);
    for (word, element) in elements.iter().enumerate() {
        memory.store(table, word, to_pool + element * 32);
    }
    memory.store(pool, 0, to_held);
    let outcome = memory.search_with(SearchOptions { heuristics: set, ..OPTIONS });
    kinds(&outcome, 3).into_iter().flatten().collect()
}

#[test]
fn a_pool_is_in_use_when_chunks_point_to_several_of_its_elements() {
    assert_eq!(pool(Heuristics::POOL, &[5, 2, 7]), [Reachable; 3]);
    assert_eq!(pool(Heuristics::POOL, &[5, 2, 2]), [Reachable, Possible, Possible]);
    assert_eq!(pool(Heuristics::MULTIPLE_INHERITANCE, &[5, 2, 7]), [Reachable, Possible, Possible]);
}

#[test]
fn what_leads_to_a_pool_may_itself_be_possibly_lost() {
    let mut memory = Fake::new();
    let chunks = [memory.chunk(256), memory.chunk(256), memory.chunk(8)];
    let [to_a, to_b, to_c] = chunks.map(|chunk| memory.addr(chunk));
    let [a, b, _] = chunks;
    memory.root(to_a + 32);
    for element in 1..4 {
        memory.store(a, 4 * element as usize, to_b + element * 64);
    }
    memory.store(b, 0, to_c);
    let options = SearchOptions { heuristics: Heuristics::POOL, ..OPTIONS };
    let outcome = memory.search_with(options);
    assert_eq!(kinds(&outcome, 3), [Possible, Reachable, Reachable].map(Some));
    assert_eq!(outcome.path(&memory, ChunkIndex(2)).unwrap().steps.len(), 3);
    // A free list that goes to and fro between two pools.
    for element in 1..4 {
        memory.store(b, 8 * element as usize, to_a + element * 32);
    }
    assert_eq!(kinds(&memory.search_with(options), 3), [Some(Reachable); 3]);
}

#[test]
fn what_points_to_itself_is_no_pool() {
    let mut memory = Fake::new();
    let ring = memory.chunk(256);
    let to_ring = memory.addr(ring);
    memory.root(to_ring + 32);
    for element in 1..8 {
        memory.store(ring, 4 * element as usize, to_ring + element * 32);
    }
    let outcome = memory.search_with(SearchOptions { heuristics: Heuristics::ALL, ..OPTIONS });
    assert_eq!(kinds(&outcome, 1), [Some(Possible)]);
}

#[test]
fn roots_that_point_to_elements_show_no_pool() {
    let mut memory = Fake::new();
    let pool = memory.chunk(256);
    let to_pool = memory.addr(pool);
    for element in 1..8 {
        memory.root(to_pool + element * 32);
    }
    let outcome = memory.search_with(SearchOptions { heuristics: Heuristics::ALL, ..OPTIONS });
    assert_eq!(kinds(&outcome, 1), [Some(Possible)]);
}

#[test]
fn a_conventional_interior_pointer_counts_as_start() {
    assert_eq!(heuristic(Heuristics::NONE, 224, &[], 16), Reachable);
    assert_eq!(heuristic(Heuristics::NONE, 224, &[], 24), Possible);
}

#[test]
fn tagged_pointers_are_looked_through_only_when_asked() {
    let mut memory = Fake::new();
    let chunk = memory.chunk(2);
    let tagged = memory.addr(chunk) + 5;
    memory.root(tagged);
    assert_eq!(kinds(&memory.search(), 1), [Some(Definite)]);
    assert_eq!(kinds(&memory.search_with(SearchOptions { tag_bits: 3, ..OPTIONS }), 1), [Some(Reachable)]);
}

#[test]
fn chunks_share_a_record_by_stack_kind_and_resolution() {
    let mut memory = Fake::new();
    memory.stacks.extend([
        vec![Pc(1), Pc(2), Pc(3), Pc(4)],
        vec![Pc(1), Pc(2), Pc(3), Pc(5)],
        vec![Pc(1), Pc(2), Pc(6), Pc(4)],
        vec![Pc(1)],
    ]);
    for stack in [1, 1, 2, 3, 4] {
        memory.chunk_from(16, StackId(stack));
    }
    let records = |resolution| memory.search_with(SearchOptions { resolution, ..OPTIONS }).records.len();
    assert_eq!(records(Resolution::High), 4);
    assert_eq!(records(Resolution::Medium), 3);
    assert_eq!(records(Resolution::Low), 1);
}

#[test]
fn many_stacks_keep_their_own_records() {
    let mut memory = Fake::new();
    let chunks: Vec<u32> = (0..5000).map(|_| memory.chunk(8)).collect();
    let outcome = memory.search();
    assert_eq!(outcome.records.len(), chunks.len());
    assert_eq!(outcome.total(Definite), sum(5000, 40_000));
}

#[test]
fn the_path_names_each_word_on_the_way() {
    let mut memory = Fake::new();
    let (a, b, c) = (memory.chunk(64), memory.chunk(64), memory.chunk(64));
    let [to_a, to_b, to_c] = [a, b, c].map(|chunk| memory.addr(chunk));
    let root = memory.root(to_a);
    memory.store(a, 2, to_b);
    memory.store(b, 1, to_c + 24);
    let path = memory.search().path(&memory, ChunkIndex(c)).unwrap();
    assert_eq!(path.root, root);
    assert_eq!(path.steps, [(0, 16), (0, 8), (24, 0)].map(|(into, at)| Step { into, at }));
    assert_eq!(path.left_out, 0);
}

#[test]
fn the_middle_of_a_long_path_is_left_out() {
    let mut memory = Fake::new();
    let chunks: Vec<u32> = (0..100).map(|_| memory.chunk(64)).collect();
    let first = memory.addr(chunks[0]);
    let root = memory.root(first);
    for (index, pair) in chunks.windows(2).enumerate() {
        let next = memory.addr(pair[1]);
        memory.store(pair[0], index % 8, next);
    }
    let path = memory.search().path(&memory, ChunkIndex(chunks[99])).unwrap();
    assert_eq!((path.root, path.left_out), (root, 100 - PATH_STEPS as u64));
    let at: Vec<u64> = path.steps.iter().map(|step| step.at / 8).collect();
    assert_eq!(at, [0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7, 0, 1, 2, 0]);
}

/// Valgrind's own procedure, literally: marks are raised until nothing changes, then each clique in turn.
fn reference(edges: &[(usize, usize, bool)], roots: &[(usize, bool)], chunks: usize) -> [u64; 4] {
    let mut rank = vec![0u8; chunks]; // 0 unreached, 1 possible, 2 reachable
    for &(target, start) in roots {
        rank[target] = rank[target].max(if start { 2 } else { 1 });
    }
    loop {
        let before = rank.clone();
        for &(from, to, start) in edges {
            let reached = match rank[from] {
                2 if start => 2,
                0 => 0,
                _ => 1,
            };
            rank[to] = rank[to].max(reached);
        }
        if before == rank {
            break;
        }
    }
    let mut leader: Vec<Option<usize>> =
        (0..chunks).map(|chunk| (rank[chunk] == 0).then_some(chunk)).collect();
    for chunk in 0..chunks {
        if leader[chunk] != Some(chunk) {
            continue;
        }
        let mut work = vec![chunk];
        while let Some(from) = work.pop() {
            for &(_, to, _) in edges.iter().filter(|edge| edge.0 == from) {
                if leader[to] == Some(to) && to != chunk {
                    leader[to] = Some(chunk);
                    work.push(to);
                }
            }
        }
    }
    let count = |wanted: &dyn Fn(usize) -> bool| (0..chunks).filter(|&chunk| wanted(chunk)).count() as u64;
    [
        count(&|chunk| leader[chunk] == Some(chunk)),
        count(&|chunk| rank[chunk] == 0 && leader[chunk] != Some(chunk)),
        count(&|chunk| rank[chunk] == 1),
        count(&|chunk| rank[chunk] == 2),
    ]
}

proptest! {
    #[test]
    fn arbitrary_graphs_are_split_as_the_reference_splits_them(
        edges in proptest::collection::vec((0usize..24, 0usize..24, any::<bool>()), 0..60),
        roots in proptest::collection::vec((0usize..24, any::<bool>()), 0..4),
    ) {
        let mut memory = Fake::new();
        let chunks: Vec<u32> = (0..24).map(|_| memory.chunk(256)).collect();
        let mut used = [0; 24];
        let mut kept = Vec::new();
        let aim = |memory: &Fake, to: usize, start: bool| memory.addr(chunks[to]) + if start { 0 } else { 40 };
        for &(from, to, start) in &edges {
            if used[from] < 32 {
                let value = aim(&memory, to, start);
                memory.store(chunks[from], used[from], value);
                used[from] += 1;
                kept.push((from, to, start));
            }
        }
        for &(to, start) in &roots {
            let value = aim(&memory, to, start);
            memory.root(value);
        }
        let outcome = memory.search();
        let found = LeakKind::ALL.map(|kind| outcome.total(kind).blocks);
        prop_assert_eq!(found, reference(&kept, &roots, 24));
        let indirect: u64 = outcome.records.iter().map(|record| record.indirect.blocks).sum();
        prop_assert_eq!(indirect, found[1]);
    }
}

#[test]
fn what_a_library_allocated_and_alone_holds_is_counted_apart() {
    let mut memory = Fake::new();
    let (own, program) = (memory.chunk(10), memory.chunk(20));
    memory.library_stack = StackId(1);
    memory.library_root(memory.addr(own));
    // The library also holds what the program gave it: that stays the program's.
    memory.store(own, 0, memory.addr(program));
    let outcome = memory.search();
    assert_eq!(outcome.library, sum(1, 10));
    assert_eq!(kinds(&outcome, 2), [None, Some(Reachable)]);
    memory.root(memory.addr(own));
    assert_eq!(kinds(&memory.search(), 2), [Some(Reachable); 2]);
}

#[test]
fn what_stands_around_memory_that_cannot_be_read_is_seen() {
    let mut memory = Fake::new();
    let [holder, before, within, after] = [64; 4].map(|size| memory.chunk(size));
    memory.root(memory.addr(holder));
    for (word, chunk) in [(0, before), (2, within), (7, after)] {
        memory.store(holder, word, memory.addr(chunk));
    }
    memory.unreadable = vec![AddrRange::new(Addr(memory.addr(holder) + 8), Size(48)).unwrap()];
    assert_eq!(kinds(&memory.search(), 4), [Reachable, Reachable, Definite, Reachable].map(Some));
}
