//! Any sequence of allocations, frees, resizes and damage, against a list of what is live and what was freed.
//!
//! Oracle: the model that the heap's own property test has (`crates/heap/tests/model`): alignment, no overlap, content
//! kept, poison on both sides, every double free told as such, the damage that is found was done, statistics.

#[path = "../../crates/heap/tests/model/fake.rs"]
mod fake;
#[path = "../../crates/heap/tests/model/run.rs"]
mod model;

use crate::input::Input;
use memcheck_heap::Wishes;
use model::Op;

/// More would only be slow.
const MOST_STEPS: usize = 3000;

/// Steps are three to five bytes each, behind what the heap is to be like.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let first = input.u16();
    let wishes = Wishes {
        quarantine_bytes: Some(u64::from(first) * 4),
        keeps_freed: first % 2 == 1,
        ..Wishes::default()
    };
    let mut ops = Vec::new();
    while !input.is_empty() && ops.len() < MOST_STEPS {
        ops.push(step(&mut input));
    }
    model::run(&ops, wishes);
}

fn step(input: &mut Input<'_>) -> Op {
    let kind = input.u8();
    match kind % 16 {
        0..=5 => Op::Allocate { size: size(input), align_shift: 0 },
        6 => Op::Allocate { size: size(input), align_shift: u32::from(input.u8() % 15) },
        7..=10 => Op::Free { which: input.u16().into() },
        11 => Op::FreeAgain { which: input.u16().into() },
        12 | 13 => Op::Resize { which: input.u16().into(), size: size(input) },
        14 => Op::Overrun { which: input.u16().into(), before: kind & 16 != 0 },
        _ => Op::WriteAfterFree { which: input.u16().into() },
    }
}

/// Mostly small.
fn size(input: &mut Input<'_>) -> u64 {
    let number = u64::from(input.u16());
    match number % 8 {
        0..=5 => number / 8 % 600,
        6 => number / 8,
        _ => number / 8 * 96,
    }
}

/// Steps made of a simple sequence of numbers.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let steps =
        |count: u32, factor: u32| (0..count).map(|at| (at.wrapping_mul(factor) >> 13) as u8).collect();
    vec![steps(400, 2_654_435_761), steps(3000, 2_246_822_519), steps(3000, 40_503_000), vec![0; 300]]
}
