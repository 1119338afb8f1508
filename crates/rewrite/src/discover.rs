//! Where the functions of a module are: unwind entries first, then symbols, then what is called directly.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, Register};
use memcheck_model::Pc;

use crate::{Extent, Module, Segment, flow::ENTRY_JUMP_BYTES};

/// Compilers align functions so.
const FUNCTION_ALIGN: u64 = 16;

/// In more text than this, functions are not sought where nothing names them: it takes long, and large programs hold
/// code that is not as compilers of C make it (the generated functions of JavaScript engines).
const MOST_SOUGHT_BYTES: u64 = 16 << 20;

/// Of a segment that holds code and tables, less than one part in so many is never code alone.
const MOST_TABLES: u64 = 8;

/// The functions of a module.
#[derive(Clone, Debug, Default)]
pub struct Functions {
    /// Sorted and without overlap.
    pub extents: Vec<Extent>,
    /// Whether most code belongs to one of them, or was looked through for more.
    pub are_all: bool,
}

/// Finds the module's functions.
///
/// `unwind` are the ranges of the FDEs; `symbols` function symbols with their sizes (zero where unknown), the entry
/// point among them. Where those cover less than half of the text, as in code that was built without unwind tables,
/// what known functions call and whose address they take is added, until nothing new is found; such a function ends
/// where its code seems to, because what follows may be another that nothing known calls, and must not be overwritten.
///
/// Only code that is known to be code is decoded: executable segments may hold tables too (linkers before
/// `-z separate-code`, post-link optimisers), and tables read as code name targets that are none. In a segment that
/// begins with the ELF header, an address that is taken may be a table's; what is called is code there too.
#[must_use]
pub fn discover(text: &[Segment<'_>], unwind: &[Extent], symbols: &[Extent]) -> Functions {
    let mut found: Vec<Extent> = unwind.to_vec();
    sort(&mut found);
    fill(&mut found, symbols, text);
    let (mixed, pure): (Vec<_>, Vec<_>) =
        text.iter().copied().partition(|segment: &Segment<'_>| segment.bytes.starts_with(b"\x7fELF"));
    let bytes = |segments: &[Segment<'_>]| segments.iter().map(|segment| segment.bytes.len() as u64).sum();
    let (total, total_mixed): (u64, u64) = (bytes(&pure), bytes(&mixed));
    let covered: u64 = unwind.iter().map(|extent| extent.end.0.saturating_sub(extent.start.0)).sum();
    let is_mixed = pure.is_empty() && covered < total_mixed / MOST_TABLES;
    let are_all = covered >= total / 2;
    if are_all && !is_mixed || total.max(total_mixed) > MOST_SOUGHT_BYTES {
        return Functions { extents: found, are_all };
    }
    let text = if is_mixed { &mixed[..] } else { &pure[..] };
    let known = found.clone();
    let (mut ends, mut targets) = (BTreeMap::new(), BTreeSet::new());
    loop {
        let new: Vec<Extent> =
            found.iter().filter(|extent| !ends.contains_key(&extent.start)).copied().collect();
        if new.is_empty() {
            break;
        }
        for extent in new {
            let scan = scan(extent, text, is_mixed);
            ends.insert(extent.start, scan.end);
            targets.extend(scan.targets);
        }
        // Each new start may cut what was taken for one function before.
        found.clone_from(&known);
        fill(&mut found, &Vec::from_iter(targets.iter().copied()), text);
    }
    let is_known = |start: Pc| known.binary_search_by_key(&start, |extent| extent.start).is_ok();
    for extent in found.iter_mut().filter(|extent| !is_known(extent.start)) {
        extent.end = extent.end.min(ends[&extent.start]);
    }
    Functions { extents: found, are_all: !targets.is_empty() || !is_mixed }
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

/// Adds those of `more` that start outside of `found`, cut at the next known start.
fn fill(found: &mut Vec<Extent>, more: &[Extent], text: &[Segment<'_>]) {
    let known = &*found;
    let free = |pc: Pc| {
        let after = known.partition_point(|extent| extent.start <= pc);
        after == 0 || !known[after - 1].contains(pc)
    };
    // Few, in most modules.
    let mut starts: Vec<Extent> = more.iter().copied().filter(|extent| free(extent.start)).collect();
    starts.sort_unstable();
    let mut added = Vec::with_capacity(starts.len());
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
        added.push(Extent { start: extent.start, end: Pc(end) });
    }
    found.reserve_exact(added.len());
    found.append(&mut added);
    sort(found);
}

/// What reading a function tells.
struct Scan {
    /// What it calls directly, and aligned places of the text whose address it takes.
    targets: Vec<Extent>,
    /// Where it ends at the latest.
    end: Pc,
}

/// Reads a function. What is called counts up to where its code ends: behind a return or jump that no branch seen so
/// far leads over. The function itself goes on to where, besides, padding or alignment says that another may begin,
/// because cases of a switch may follow that only its table leads to.
fn scan(extent: Extent, text: &[Segment<'_>], is_mixed: bool) -> Scan {
    let mut targets = Vec::new();
    let Some(bytes) = text.iter().find_map(|segment| segment.find_from(extent.start)) else {
        return Scan { targets: Vec::new(), end: extent.end };
    };
    let len = bytes.len().min(extent.bytes() as usize);
    let mut decoder = Decoder::with_ip(64, &bytes[..len], extent.start.0, DecoderOptions::NONE);
    let mut furthest = 0;
    let mut taken = Vec::new();
    // The last place that nothing known goes on behind.
    let mut over_at = None;
    let mut end = extent.end;
    let is_text = |pc: u64| text.iter().any(|segment| segment.find_from(Pc(pc)).is_some());
    let mut last = Instruction::default();
    while decoder.can_decode() {
        let instruction = decoder.decode();
        let branch = instruction.near_branch_target();
        match instruction.flow_control() {
            FlowControl::Call if over_at.is_some() => {}
            FlowControl::Call if branch != instruction.next_ip() => targets.push(branch),
            FlowControl::Next if over_at.is_some() => {}
            FlowControl::Next if instruction.mnemonic() == Mnemonic::Lea => {
                taken.push(instruction.ip_rel_memory_address());
            }
            // `mov $main, %rdi` in code at fixed addresses.
            FlowControl::Next if instruction.mnemonic() == Mnemonic::Mov && instruction.op_count() == 2 => {
                if let Ok(immediate) = instruction.try_immediate(1) {
                    taken.push(immediate);
                }
            }
            FlowControl::ConditionalBranch => furthest = furthest.max(branch),
            FlowControl::UnconditionalBranch if extent.contains(Pc(branch)) => {
                furthest = furthest.max(branch)
            }
            FlowControl::UnconditionalBranch if over_at.is_none() => targets.push(branch),
            _ => {}
        }
        if let (Mnemonic::INVALID, Some(over)) = (instruction.mnemonic(), over_at) {
            // What leads here is no code: the gap before another section, or data.
            end = Pc(over);
            break;
        }
        if ends_code(&instruction) && instruction.next_ip() > furthest {
            // Only the entry point ends in `hlt` (psABI 3.4.1): the address it takes is main's.
            let is_entry = instruction.mnemonic() == Mnemonic::Hlt;
            if over_at.is_none() {
                targets
                    .extend(taken.drain(..).filter(|at| is_entry || !is_mixed && at % FUNCTION_ALIGN == 0));
            }
            let over = instruction.next_ip();
            over_at = Some(over);
            // No jump at the entry may reach into what follows, no case of a switch that soon.
            let is_short = over - extent.start.0 < ENTRY_JUMP_BYTES;
            if is_short || !is_switch(&last, &instruction) && may_begin(&bytes[..len], extent.start, over) {
                end = Pc(over);
                break;
            }
        }
        last = instruction;
    }
    let targets = targets
        .into_iter()
        .filter(|&at| is_text(at))
        .map(|at| Extent { start: Pc(at), end: Pc(at) })
        .collect();
    Scan { targets, end }
}

/// Whether an indirect jump looks as if it went through a table: `jmp *table(,%rax,8)`, or `add %rdx, %rax` before.
fn is_switch(before: &Instruction, jump: &Instruction) -> bool {
    jump.flow_control() == FlowControl::IndirectBranch
        && (jump.memory_index() != Register::None
            || before.mnemonic() == Mnemonic::Add && before.op0_register() == jump.op0_register())
}

/// Whether a function may begin behind `at`, in code that starts at `start`: at an aligned address, with nothing but
/// padding before it.
fn may_begin(bytes: &[u8], start: Pc, at: u64) -> bool {
    let padding = bytes.get((at - start.0) as usize..).map_or(0, padding_len);
    (at + padding).is_multiple_of(FUNCTION_ALIGN)
}

/// How many bytes may be overwritten at the entry of the function `index`: its own, and the padding behind it.
#[must_use]
pub fn entry_room(module: &Module<'_>, index: usize) -> u64 {
    let extent = module.extents[index];
    let own = extent.bytes();
    let limit = module.extents.get(index + 1).map_or(u64::MAX, |next| next.start.0 - extent.end.0);
    let Some(bytes) = module.find_text(extent.end) else { return own };
    let len = bytes.len().min(limit.min(FUNCTION_ALIGN) as usize);
    own + padding_len(&bytes[..len])
}

/// Whether what follows is not run after it.
fn ends_code(instruction: &Instruction) -> bool {
    matches!(
        instruction.flow_control(),
        FlowControl::Return | FlowControl::UnconditionalBranch | FlowControl::IndirectBranch
    ) || matches!(instruction.mnemonic(), Mnemonic::Hlt | Mnemonic::Ud2 | Mnemonic::INVALID)
}

/// How many of these bytes, which follow a function, are padding.
#[must_use]
pub fn padding_len(bytes: &[u8]) -> u64 {
    Decoder::new(64, bytes, DecoderOptions::NONE)
        .into_iter()
        .take_while(|instruction| matches!(instruction.mnemonic(), Mnemonic::Nop | Mnemonic::Int3))
        .map(|instruction| instruction.len() as u64)
        .sum()
}

/// Whether the function that holds `pc` calls none, as far as is known. Compilers let only such a function keep
/// variables below the stack pointer (psABI 3.2.2).
#[must_use]
pub fn is_leaf(module: &Module<'_>, pc: Pc) -> bool {
    let after = module.extents.partition_point(|extent| extent.start <= pc);
    let Some(extent) = module.extents[..after].last().filter(|extent| extent.contains(pc)) else {
        return true;
    };
    let Some(bytes) = module.find_text(extent.start) else { return true };
    let len = bytes.len().min(extent.bytes() as usize);
    !Decoder::with_ip(64, &bytes[..len], extent.start.0, DecoderOptions::NONE).into_iter().any(
        |instruction| matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall),
    )
}

/// Whether the code at `at` only leads on to another module (a PLT entry): it is best left native.
#[must_use]
pub fn is_linkage_stub(module: &Module<'_>, at: Pc) -> bool {
    find_linkage_cell(module, at).is_some()
        || module.find_text(at).is_some_and(|bytes| bytes.starts_with(&[0xff, 0x35]))
}

/// The GOT cell that the PLT entry at `at` jumps through: `[endbr64] [bnd] jmp *cell(%rip)`. Asked of every function,
/// so it looks at the bytes themselves.
#[must_use]
pub fn find_linkage_cell(module: &Module<'_>, at: Pc) -> Option<u64> {
    let bytes = module.find_text(at)?;
    let jump = bytes.strip_prefix(&[0xf3, 0x0f, 0x1e, 0xfa]).unwrap_or(bytes);
    let jump = jump.strip_prefix(&[0xf2]).unwrap_or(jump);
    let distance = i32::from_le_bytes(jump.strip_prefix(&[0xff, 0x25])?.get(..4)?.try_into().ok()?);
    let after = at.0 + (bytes.len() - jump.len()) as u64 + 6;
    Some(after.wrapping_add_signed(distance.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_ends_where_code_begins() {
        let long = [0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0];
        assert_eq!(padding_len(&long), 11);
        assert_eq!(padding_len(&[&long[..], &[0x0f, 0x1f]].concat()), 11);
        assert_eq!(padding_len(&[0xcc, 0x90, 0xc3, 0x90]), 2);
        assert_eq!(padding_len(&[0x55]), 0);
    }
}
