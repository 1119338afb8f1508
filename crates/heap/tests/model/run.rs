//! A list of what is live and what was freed, against which a heap is held step by step.

use std::cell::RefCell;

use memcheck_heap::{Backend, ChunkState, FreeError, Heap, Late, ThreadCache, Wishes};
use memcheck_model::{Addr, StackId, ThreadId};

use super::fake::{FREEING, Fake, OwnTables, request};

/// A step.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    Allocate { size: u64, align_shift: u32 },
    Free { which: usize },
    FreeAgain { which: usize },
    Resize { which: usize, size: u64 },
    Overrun { which: usize, before: bool },
    WriteAfterFree { which: usize },
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

/// Takes the steps with a new heap and checks each.
pub fn run(ops: &[Op], wishes: Wishes) {
    let tables = OwnTables::new();
    let (heap, fake) = tables.heap(wishes);
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
                assert!(made.addr.is_aligned(1 << align_shift.max(4)));
                let known = Known { addr: made.addr, size, tag: step as u8 | 1, overrun: false };
                assert!(!live.iter().any(|other| other.overlaps(&known)));
                if made.zeroed && size > 0 {
                    let mut ends = [[1u8]; 2];
                    fake.read(made.addr, &mut ends[0]);
                    fake.read(Addr(made.addr.0 + size - 1), &mut ends[1]);
                    assert_eq!(ends, [[0u8]; 2]);
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
                assert!(done.is_ok(), "{done:?} {known:?} {:?}", heap.describe(known.addr));
                let done = done.unwrap();
                assert_eq!(done.size, known.size);
                if known.overrun {
                    // Unless the damage was seen through a neighbour already.
                    expected_late += found.borrow().len() - before;
                }
                assert!(!fake.is_addressable(known.addr.0));
                if wishes.keeps_freed && known.size > 0 {
                    let mut first = [0];
                    fake.read(known.addr, &mut first);
                    assert_eq!(first, [known.tag], "{known:?} lost its content");
                }
                freed.push(known);
                counts.1 += 1;
            }
            Op::FreeAgain { which } if !freed.is_empty() => {
                let known = freed[which % freed.len()];
                let again = heap.free(cache, &fake, known.addr, &FREEING, &mut late);
                assert!(
                    matches!(again, Err(FreeError::AlreadyFreed(chunk)) if chunk.start == known.addr
                        && chunk.size.0 == known.size && chunk.free_stack == StackId(2)),
                    "{:?} {:?}",
                    again,
                    known
                );
                if known.size > 8 {
                    let inside = heap.free(cache, &fake, Addr(known.addr.0 + 8), &FREEING, &mut late);
                    assert_eq!(inside, Err(FreeError::NoChunk));
                }
            }
            Op::Resize { which, size } if !live.is_empty() => {
                let index = which % live.len();
                let known = &mut live[index];
                if known.overrun {
                    continue;
                }
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
                let quarantined =
                    heap.describe(known.addr).is_some_and(|chunk| chunk.state == ChunkState::Quarantined);
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
    assert_eq!(seen, live.len());
    // Whatever was found was there: overruns belong to overrun chunks, late writes to freed ones.
    let uaf = found.borrow().iter().filter(|late| late.after_free).count();
    assert!(uaf <= expected_uaf);
    assert!(found.borrow().len() - uaf <= expected_late + live.len() + freed.len());
    for cache in &mut caches {
        heap.retire(cache, &fake, &mut late);
    }
    let sums = heap.retired_statistics();
    assert_eq!((sums.allocs, sums.frees), counts);
}
