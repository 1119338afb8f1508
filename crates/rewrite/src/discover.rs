//! Where the functions of a module are: unwind entries first, then symbols, then what is called directly.

use alloc::vec::Vec;

use iced_x86::{Decoder, DecoderOptions, Mnemonic};
use memcheck_model::Pc;

use crate::{Extent, Module, Segment};

/// The module's functions, sorted and without overlap.
///
/// `unwind` are the ranges of the FDEs; `symbols` function symbols with their sizes (zero where unknown). Where
/// those leave much of the text uncovered, the targets of direct calls found by decoding fill the gaps.
#[must_use]
pub fn discover(text: &[Segment<'_>], unwind: &[Extent], symbols: &[Extent]) -> Vec<Extent> {
    let mut found: Vec<Extent> = unwind.to_vec();
    sort(&mut found);
    let mut sized = symbols.to_vec();
    sized.sort_unstable();
    fill(&mut found, &sized, text);
    let total: u64 = text.iter().map(|segment| segment.bytes.len() as u64).sum();
    let covered: u64 = found.iter().map(|extent| extent.end.0 - extent.start.0).sum();
    // Padding and linkage stubs are a few percent; more than that is code.
    if covered < total - total / 16 {
        let mut targets: Vec<Extent> = text.iter().flat_map(|segment| call_targets(segment, text)).collect();
        targets.sort_unstable();
        targets.dedup();
        fill(&mut found, &targets, text);
    }
    found
}

/// Sorts and drops what is empty or overlaps its predecessor.
fn sort(extents: &mut Vec<Extent>) {
    extents.sort_unstable();
    let mut end = Pc(0);
    extents.retain(|extent| {
        let keep = extent.start < extent.end && extent.start >= end;
        if keep {
            end = extent.end;
        }
        keep
    });
}

/// Adds those of `more` (sorted) that start outside of `found`, cut at the next known start.
fn fill(found: &mut Vec<Extent>, more: &[Extent], text: &[Segment<'_>]) {
    let known = found.clone();
    let free = |pc: Pc| {
        let after = known.partition_point(|extent| extent.start <= pc);
        after == 0 || !known[after - 1].contains(pc)
    };
    let starts: Vec<Extent> = more.iter().copied().filter(|extent| free(extent.start)).collect();
    for (index, extent) in starts.iter().enumerate() {
        let Some(segment) = text.iter().find(|segment| segment.find_from(extent.start).is_some()) else {
            continue;
        };
        if index > 0 && starts[index - 1].start == extent.start {
            continue;
        }
        let limit = segment.start.0 + segment.bytes.len() as u64;
        let next = known.partition_point(|known| known.start <= extent.start);
        let next = known.get(next).map_or(limit, |known| known.start.0).min(limit);
        let later = starts[index..].iter().find(|other| other.start > extent.start);
        let cut = later.map_or(next, |other| other.start.0.min(next));
        let end = if extent.end > extent.start { extent.end.0.min(cut) } else { cut };
        found.push(Extent { start: extent.start, end: Pc(end) });
    }
    sort(found);
}

/// Where the direct calls of a segment go.
fn call_targets(segment: &Segment<'_>, text: &[Segment<'_>]) -> Vec<Extent> {
    let mut decoder = Decoder::with_ip(64, segment.bytes, segment.start.0, DecoderOptions::NONE);
    let mut targets = Vec::new();
    while decoder.can_decode() {
        let instruction = decoder.decode();
        let target = Pc(instruction.near_branch_target());
        if instruction.is_call_near()
            && target.0 != instruction.next_ip()
            && text.iter().any(|segment| segment.find_from(target).is_some())
        {
            targets.push(Extent { start: target, end: target });
        }
    }
    targets
}

/// Whether the code at `at` only leads on to another module (a PLT entry): it is best left native.
#[must_use]
pub fn is_linkage_stub(module: &Module<'_>, at: Pc) -> bool {
    find_linkage_cell(module, at).is_some()
        || module.find_text(at).is_some_and(|bytes| bytes.starts_with(&[0xff, 0x35]))
}

/// The GOT cell that the PLT entry at `at` jumps through.
pub(crate) fn find_linkage_cell(module: &Module<'_>, at: Pc) -> Option<u64> {
    let bytes = module.find_text(at)?;
    let mut decoder = Decoder::with_ip(64, bytes, at.0, DecoderOptions::NONE);
    let mut instruction = decoder.decode();
    if instruction.mnemonic() == Mnemonic::Endbr64 {
        instruction = decoder.decode();
    }
    (instruction.is_jmp_near_indirect() && instruction.is_ip_rel_memory_operand())
        .then(|| instruction.ip_rel_memory_address())
}
