//! From a function's entry to the copy of its group: finds the group, runs the stages.

use alloc::vec::Vec;

use iced_x86::{Decoder, DecoderOptions, FlowControl};
use memcheck_model::Pc;

use crate::{
    Checks, CodeBlob, Config, Extent, Module, Place, Resolver, Skip, SkipReason,
    decode::{Decoded, Flow, Insn, decode},
    emit, flow, is_linkage_stub,
    live::{self, Live},
    plan,
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

/// What became of a function.
#[derive(Debug)]
pub struct Translation {
    /// The functions that must be translated together, as indices of extents, sorted: those that jumps into their middle
    /// join, as with the parts that compilers split off. Not all of them where they are too many to be translated.
    pub functions: Vec<usize>,
    /// Their copy, or what stands in its way; they then stay native.
    pub copy: Result<CodeBlob, Skip>,
}

/// The instrumented copy of the function `entry` of `module`, with those that it is joined with, for `place`.
#[must_use]
pub fn translate(
    config: &Config,
    module: &Module<'_>,
    entry: usize,
    resolver: &dyn Resolver,
    place: Place,
) -> Translation {
    let mut functions = alloc::vec![entry];
    let mut parts = Vec::new();
    let mut bytes = 0;
    while let Some(&index) = functions.get(parts.len()) {
        let extent = module.extents[index];
        bytes += extent.bytes();
        if is_too_large(parts.len() + 1, bytes) {
            break;
        }
        let part = decode(module, extent, config.checks == Checks::On);
        let targets = match &part {
            Ok(part) => jumps_of(part, extent),
            Err(_) => jumps_out(module, extent),
        };
        for target in targets {
            let Some(other) = module.find_extent(target) else { continue };
            // A tail call through the PLT, whose entries may share one extent.
            if functions.contains(&other) || is_linkage_stub(module, target) {
                continue;
            }
            let jumps_back = |back: Pc| extent.contains(back) && back != extent.start;
            let of_other = module.extents[other];
            let joined = target != of_other.start
                || of_other.bytes() <= PART_BYTES
                    && may_jump(module, of_other, jumps_back)
                    && jumps_out(module, of_other).into_iter().any(jumps_back);
            if joined {
                functions.push(other);
            }
        }
        parts.push((index, part));
    }
    functions.sort_unstable();
    parts.sort_unstable_by_key(|part| part.0);
    let extents: Vec<Extent> = functions.iter().map(|&index| module.extents[index]).collect();
    let (start, end) = (extents[0].start, extents[extents.len() - 1].end);
    let copy = if is_too_large(extents.len(), bytes) || end.0 - start.0 > u64::from(u32::MAX) {
        Err(Skip { pc: start, reason: SkipReason::Unsuitable })
    } else {
        let code = parts.into_iter().map(|(_, part)| part).reduce(|code, part| Ok(code?.joined(part?)));
        code.unwrap_or_else(|| Ok(Decoded::default()))
            .and_then(|code| copy(config, module, &extents, code, resolver, place))
    };
    Translation { functions, copy }
}

/// Whether some bytes of a function look like a direct jump out of it to where `leads` says: `jmp`, `jcc`, `loop` or
/// `jrcxz` with a distance of one or four bytes (SDM vol. 2, appendix A). Most functions have none, and looking is faster
/// than decoding.
fn may_jump(module: &Module<'_>, extent: Extent, leads: impl Fn(Pc) -> bool) -> bool {
    let Some(bytes) = text_of(module, extent) else { return false };
    let leads = |after: usize, distance: i64| {
        let target = Pc((extent.start.0 + after as u64).wrapping_add_signed(distance));
        !extent.contains(target) && leads(target)
    };
    bytes.iter().enumerate().any(|(at, &opcode)| match opcode {
        0x70..=0x7f | 0xe0..=0xe3 | 0xeb => {
            bytes.get(at + 1).is_some_and(|&distance| leads(at + 2, distance.cast_signed().into()))
        }
        0x80..=0x8f if at == 0 || bytes[at - 1] != 0x0f => false,
        0x80..=0x8f | 0xe9 => bytes
            .get(at + 1..at + 5)
            .and_then(|distance| distance.try_into().ok())
            .is_some_and(|distance| leads(at + 5, i32::from_le_bytes(distance).into())),
        _ => false,
    })
}

fn text_of<'a>(module: &'a Module<'_>, extent: Extent) -> Option<&'a [u8]> {
    module.find_text(extent.start)?.get(..extent.bytes() as usize)
}

/// Where direct jumps lead out of an extent that was decoded.
fn jumps_of(code: &Decoded, extent: Extent) -> Vec<Pc> {
    let target = |insn: &Insn| match insn.flow {
        Flow::Jump(target) | Flow::Branch(target, _) | Flow::Loop(target) => Some(Pc(target)),
        _ => None,
    };
    code.insns.iter().filter_map(target).filter(|&target| !extent.contains(target)).collect()
}

/// Where direct jumps lead out of an extent: to its other parts, and to what it calls last.
#[must_use]
pub fn jumps_out(module: &Module<'_>, extent: Extent) -> Vec<Pc> {
    let Some(bytes) = text_of(module, extent) else { return Vec::new() };
    if !may_jump(module, extent, |target| module.find_text(target).is_some()) {
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

/// The copy of functions that were decoded.
fn copy(
    config: &Config,
    module: &Module<'_>,
    extents: &[Extent],
    mut code: Decoded,
    resolver: &dyn Resolver,
    place: Place,
) -> Result<CodeBlob, Skip> {
    let pads: Option<Vec<Vec<Pc>>> = extents.iter().map(|&extent| resolver.landing_pads(extent)).collect();
    let unknown = Skip { pc: extents[0].start, reason: SkipReason::Unsuitable };
    let pads = pads.ok_or(unknown)?.concat();
    let graph = flow::build(&code, module, extents, &pads, resolver)?;
    // A table that the copy replaces is constant.
    let sites = code.sites.len();
    code.sites.retain(|site| graph.tables.iter().all(|table| table.load != site.insn));
    code.exempt += (sites - code.sites.len()) as u32;
    live::refine_calls(&mut code, module);
    let Live { before: mut live, unread } = live::analyse(&code, &graph);
    let landed = live::landed_registers(&graph, &live, pads.len());
    // Those that are read behind a landing pad live everywhere.
    if live::hand_over(&mut code, unread & !landed) {
        live = live::analyse(&code, &graph).before;
    }
    let held = live::held_registers(&code, &graph);
    for (live, held) in live.iter_mut().zip(&held) {
        *live |= held.unsaved() | landed;
    }
    let plan = plan::plan(&code, &graph, &mut live, &held);
    code.exempt += plan.exempt;
    emit::Emitter::new(config, module, resolver, place, extents, &code, &graph).run(&plan)
}
