//! From a function's entry to the copy of its group: finds the group, runs the stages.

use alloc::vec::Vec;
use core::ops::Range;

use iced_x86::{Decoder, DecoderOptions, FlowControl};
use memcheck_model::Pc;

use crate::{
    Checks, CodeBlob, Config, Extent, Module, Place, Resolver, Segment, Skip, SkipReason,
    decode::{Decoded, decode_in},
    emit, flow, is_linkage_stub, live, plan,
};

/// A target that is larger is taken for a function of its own without looking whether it jumps back.
const PART_BYTES: u64 = 4096;

/// A function has a few parts, and those of assembly that share their ends are short.
const MOST_PARTS: usize = 16;
const MOST_BYTES_OF_MANY: u64 = 1 << 20;

/// Whether a group is so large that functions that were not made out must have joined others.
fn is_too_large(parts: usize, bytes: u64) -> bool {
    parts > MOST_PARTS && bytes > MOST_BYTES_OF_MANY
}

/// The functions that must be translated with the one at `entry`, as indices of extents, sorted: those that jumps
/// into their middle join, as with the parts that compilers split off. The search ends with a group that is too large
/// for [`translate`].
#[must_use]
pub fn find_group(module: &Module<'_>, entry: usize) -> Vec<usize> {
    let mut group = alloc::vec![entry];
    let mut bytes = 0;
    let mut next = 0;
    while let Some(&index) = group.get(next) {
        next += 1;
        bytes += module.extents[index].bytes();
        if is_too_large(next, bytes) {
            break;
        }
        for target in jumps_out(module, module.extents[index]) {
            let Some(other) = module.find_extent(target) else { continue };
            // A tail call through the PLT, whose entries may share one extent.
            if group.contains(&other) || is_linkage_stub(module, target) {
                continue;
            }
            let extent = module.extents[other];
            let joined = target != extent.start
                || extent.bytes() <= PART_BYTES
                    && jumps_out(module, extent).iter().any(|&back| {
                        module.extents[index].contains(back) && back != module.extents[index].start
                    });
            if joined {
                group.push(other);
            }
        }
    }
    group.sort_unstable();
    group
}

/// Whether some bytes look like a direct jump out of the function that they are: `jmp`, `jcc`, `loop` or `jrcxz`
/// with a distance of one or four bytes (SDM vol. 2, appendix A), to somewhere in the text, whose bounds count from the
/// function's start. Most functions have none, and looking is faster than decoding.
fn may_jump_out(bytes: &[u8], text: &Range<i64>) -> bool {
    let len = bytes.len() as i64;
    let leaves = |after: usize, distance: i64| {
        let target = after as i64 + distance;
        !(0..len).contains(&target) && text.contains(&target)
    };
    bytes.iter().enumerate().any(|(at, &opcode)| match opcode {
        0x70..=0x7f | 0xe0..=0xe3 | 0xeb => {
            bytes.get(at + 1).is_some_and(|&distance| leaves(at + 2, distance.cast_signed().into()))
        }
        0x80..=0x8f if at == 0 || bytes[at - 1] != 0x0f => false,
        0x80..=0x8f | 0xe9 => bytes
            .get(at + 1..at + 5)
            .and_then(|distance| distance.try_into().ok())
            .is_some_and(|distance| leaves(at + 5, i32::from_le_bytes(distance).into())),
        _ => false,
    })
}

/// Where direct jumps lead out of an extent: to its other parts, and to what it calls last.
#[must_use]
pub fn jumps_out(module: &Module<'_>, extent: Extent) -> Vec<Pc> {
    let len = extent.bytes() as usize;
    let Some(bytes) = module.find_text(extent.start).and_then(|text| text.get(..len)) else {
        return Vec::new();
    };
    let from_here = |at: u64| at.wrapping_sub(extent.start.0).cast_signed();
    let first = module.text.iter().map(|segment| from_here(segment.start.0)).min().unwrap_or(0);
    let end = |segment: &Segment<'_>| from_here(segment.start.0 + segment.bytes.len() as u64);
    let text = first..module.text.iter().map(end).max().unwrap_or(0);
    if !may_jump_out(bytes, &text) {
        return Vec::new();
    }
    let mut decoder = Decoder::with_ip(64, bytes, extent.start.0, DecoderOptions::NONE);
    let mut instruction = iced_x86::Instruction::default();
    let mut out = Vec::new();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        let jumps = matches!(
            instruction.flow_control(),
            FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch
        );
        let target = Pc(instruction.near_branch_target());
        if jumps && !extent.contains(target) && out.last() != Some(&target) {
            out.push(target);
        }
    }
    out
}

/// The instrumented copy of the functions `group` of `module`, for `place`.
///
/// # Errors
/// When an instruction stands in the way; the functions then stay native.
pub fn translate(
    config: &Config,
    module: &Module<'_>,
    group: &[usize],
    resolver: &dyn Resolver,
    place: Place,
) -> Result<CodeBlob, Skip> {
    let extents: Vec<Extent> = group.iter().filter_map(|&index| module.extents.get(index).copied()).collect();
    let Some(first) = extents.first() else {
        return Err(Skip { pc: Pc(0), reason: SkipReason::Unsuitable });
    };
    let last = extents[extents.len() - 1].end;
    let bytes: u64 = extents.iter().map(|extent| extent.bytes()).sum();
    if is_too_large(extents.len(), bytes) || last.0 - first.start.0 > u64::from(u32::MAX) {
        return Err(Skip { pc: first.start, reason: SkipReason::Unsuitable });
    }
    let mut code = Decoded::default();
    for extent in &extents {
        decode_in(&mut code, module, extent.start, extent.end, config.checks == Checks::On)?;
    }
    let pads: Option<Vec<Vec<Pc>>> = extents.iter().map(|&extent| resolver.landing_pads(extent)).collect();
    let unknown = Skip { pc: first.start, reason: SkipReason::Unsuitable };
    let pads = pads.ok_or(unknown)?.concat();
    let graph = flow::build(&code, module, &extents, &pads)?;
    // A table that the copy replaces is constant.
    let sites = code.sites.len();
    code.sites.retain(|site| graph.tables.iter().all(|table| table.load != site.insn));
    code.exempt += (sites - code.sites.len()) as u32;
    live::refine_calls(&mut code, module);
    let mut live = live::analyse(&code, &graph);
    let landed = live::landed_registers(&graph, &live, pads.len());
    if live::hand_over(&mut code, &graph, &live, landed) {
        live = live::analyse(&code, &graph);
    }
    for (live, unsaved) in live.iter_mut().zip(live::unsaved_registers(&code, &graph)) {
        *live |= unsaved | landed;
    }
    let frame = live::frame_registers(&code, &graph);
    let plan = plan::plan(&code, &graph, &mut live, &frame);
    code.exempt += plan.exempt;
    emit::Emitter::new(config, module, resolver, place, &extents, &code, &graph).run(&plan)
}
