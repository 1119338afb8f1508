//! From call frame information to a [`Rule`]: one module's `.eh_frame_hdr` and `.eh_frame`, read with gimli
//! (DWARF 5, 6.4; LSB Core 5.0, 10.6). Nothing is allocated; a few kilobytes of stack are used.

use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, EhHdrTable, EndianSlice, FrameDescriptionEntry,
    LittleEndian, Register, RegisterRule, UnwindContext, UnwindContextStorage, UnwindExpression,
    UnwindSection, UnwindTableRow, X86_64,
};

use crate::{CfaBase, Rule};

/// Room for the registers that x86-64 code can describe, with some to spare; more is refused by gimli.
const RULES: usize = 24;
/// DW_CFA_remember_state nests once in compilers' output.
const ROWS: usize = 3;

const BREG_RBP: u8 = 0x76;
const BREG_RSP: u8 = 0x77;
const BREG_RIP: u8 = 0x80;
const DEREF: u8 = 0x06;
const AND: u8 = 0x1a;
const PLUS: u8 = 0x22;
const PLUS_UCONST: u8 = 0x23;
const SHL: u8 = 0x24;
const GE: u8 = 0x2a;
const LIT0: u8 = 0x30;
const LIT3: u8 = 0x33;
const LIT15: u8 = 0x3f;
/// `[rsp + 160]`: where the kernel's frame holds the interrupted stack pointer, in the words of every libc.
const SIGNAL_CFA: [u8; 4] = [BREG_RSP, 0xa0, 0x01, DEREF];

/// What the tables have for one function.
pub(crate) type Entry<'a> = FrameDescriptionEntry<EndianSlice<'a, LittleEndian>>;

type Row = UnwindTableRow<usize, InPlace>;

struct InPlace;

impl UnwindContextStorage<usize> for InPlace {
    type Rules = [(Register, RegisterRule<usize>); RULES];
    type Stack = [UnwindTableRow<usize, Self>; ROWS];
}

/// One module's unwind information.
#[derive(Clone, Copy, Debug)]
pub struct UnwindInfo<'a> {
    /// `.eh_frame_hdr`.
    pub header: &'a [u8],
    /// Where that is mapped.
    pub header_addr: u64,
    /// `.eh_frame`; may run on past its end.
    pub frames: &'a [u8],
    /// Where that is mapped.
    pub frames_addr: u64,
}

/// Where `.eh_frame` is mapped, as `.eh_frame_hdr` (mapped at `header_addr`) says.
#[must_use]
pub fn find_frames(header: &[u8], header_addr: u64) -> Option<u64> {
    let bases = BaseAddresses::default().set_eh_frame_hdr(header_addr);
    let parsed = EhFrameHdr::new(header, LittleEndian).parse(&bases, 8).ok()?;
    match parsed.eh_frame_ptr() {
        gimli::Pointer::Direct(addr) => Some(addr),
        gimli::Pointer::Indirect(_) => None,
    }
}

impl UnwindInfo<'_> {
    /// The rule at the instruction at `pc`; [`Rule::Unknown`] where nothing covers it.
    #[must_use]
    pub fn rule_at(&self, pc: u64) -> Rule {
        self.try_rule_at(pc).unwrap_or(Rule::Unknown)
    }

    fn bases(&self) -> BaseAddresses {
        BaseAddresses::default().set_eh_frame_hdr(self.header_addr).set_eh_frame(self.frames_addr)
    }

    /// The entry that covers `pc`, or an inner `None` where none does; `None` when the tables cannot be read.
    pub(crate) fn find_entry(&self, pc: u64) -> Option<Option<Entry<'_>>> {
        let bases = self.bases();
        let header = EhFrameHdr::new(self.header, LittleEndian).parse(&bases, 8).ok()?;
        let frames = EhFrame::new(self.frames, LittleEndian);
        let covering = |table: EhHdrTable<'_, _>| {
            table.fde_for_address(&frames, &bases, pc, EhFrame::cie_from_offset).ok()
        };
        Some(header.table().and_then(covering))
    }

    fn try_rule_at(&self, pc: u64) -> Option<Rule> {
        let fde = self.find_entry(pc)??;
        let (bases, frames) = (self.bases(), EhFrame::new(self.frames, LittleEndian));
        let mut context = UnwindContext::<usize, InPlace>::new_in();
        // Something covers the address: from here on what cannot be said is refused, not unknown.
        let Ok(row) = fde.unwind_info_for_address(&frames, &bases, &mut context, pc) else {
            return Some(Rule::Refused);
        };
        let bytes = |expression: &UnwindExpression<usize>| {
            expression.get(&frames).ok().map_or(&[][..], |expression| expression.0.slice())
        };
        if fde.cie().is_signal_trampoline() {
            let is_kernels = matches!(row.cfa(), CfaRule::Expression(cfa) if bytes(cfa) == SIGNAL_CFA);
            return Some(if is_kernels { Rule::Signal } else { Rule::Refused });
        }
        Some(rule_of(row, pc, bytes))
    }
}

fn rule_of<'a>(row: &Row, pc: u64, bytes: impl Fn(&UnwindExpression<usize>) -> &'a [u8]) -> Rule {
    match row.register(X86_64::RA) {
        Some(RegisterRule::Undefined) => return Rule::Outermost,
        Some(RegisterRule::Offset(-8)) => {}
        _ => return Rule::Refused,
    }
    let (rbp, rbp_is_at_rbp) = match row.register(X86_64::RBP) {
        None | Some(RegisterRule::SameValue | RegisterRule::Undefined) => (None, false),
        Some(RegisterRule::Offset(offset)) => (Some(offset), false),
        Some(RegisterRule::Expression(at)) if bytes(&at) == [BREG_RBP, 0] => (None, true),
        Some(_) => return Rule::Refused,
    };
    let (base, offset) = match row.cfa() {
        CfaRule::RegisterAndOffset { register: X86_64::RSP, offset } => (CfaBase::Rsp, *offset),
        CfaRule::RegisterAndOffset { register: X86_64::RBP, offset } => (CfaBase::Rbp, *offset),
        CfaRule::RegisterAndOffset { .. } => return Rule::Refused,
        CfaRule::Expression(expression) => match find_shape(bytes(expression), pc) {
            Some(shape) => shape,
            None => return Rule::Refused,
        },
    };
    match (base, rbp_is_at_rbp) {
        (CfaBase::Realigned, true) => Rule::frame(base, -offset, None),
        (CfaBase::Realigned, false) | (_, true) => Rule::Refused,
        _ => Rule::frame(base, offset, rbp),
    }
}

/// The known shapes of a CFA's expression at `pc`: its base, and the offset from it.
fn find_shape(expression: &[u8], pc: u64) -> Option<(CfaBase, i64)> {
    match expression {
        [BREG_RBP, offset @ .., DEREF] => Some((CfaBase::Realigned, signed(offset)?)),
        [BREG_RSP, offset @ .., DEREF, PLUS_UCONST, 8] => Some((CfaBase::SavedRsp, signed(offset)?)),
        // The linker's stubs push once, at this offset in each sixteen bytes: `rsp + 8 + ((rip & 15) >= n) * 8`.
        [BREG_RSP, 8, BREG_RIP, 0, LIT15, AND, lit, GE, LIT3, SHL, PLUS] => {
            let has_pushed = pc & 15 >= u64::from(lit.checked_sub(LIT0)?);
            Some((CfaBase::Rsp, if has_pushed { 16 } else { 8 }))
        }
        _ => None,
    }
}

/// A SLEB128 number of up to four bytes, all of `bytes`.
fn signed(bytes: &[u8]) -> Option<i64> {
    let (&last, rest) = bytes.split_last()?;
    if rest.len() > 3 || last & 0x80 != 0 || rest.iter().any(|byte| byte & 0x80 == 0) {
        return None;
    }
    let value = bytes.iter().rev().fold(0i64, |value, byte| value << 7 | i64::from(byte & 0x7f));
    Some(if last & 0x40 != 0 { value - (1 << (7 * bytes.len())) } else { value })
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn expressions_of_known_shape_are_understood() {
        assert_eq!(find_shape(&[BREG_RBP, 0x78, DEREF], 0), Some((CfaBase::Realigned, -8)));
        assert_eq!(
            find_shape(&[BREG_RSP, 0x98, 0x01, DEREF, PLUS_UCONST, 8], 0),
            Some((CfaBase::SavedRsp, 152))
        );
        let stub = [0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22];
        assert_eq!(find_shape(&stub, 0x102a), Some((CfaBase::Rsp, 8)));
        assert_eq!(find_shape(&stub, 0x102b), Some((CfaBase::Rsp, 16)));
        assert_eq!(find_shape(&stub[..10], 0x102b), None);
        assert_eq!(find_shape(&[BREG_RBP, DEREF], 0), None);
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_rule(header in prop::collection::vec(any::<u8>(), 0..64),
                                 frames in prop::collection::vec(any::<u8>(), 0..256), pc in 0u64..512) {
            let mut header = header;
            if header.len() > 4 {
                header[..4].copy_from_slice(&[1, 0x1b, 3, 0x3b]);
            }
            let info = UnwindInfo { header: &header, header_addr: 0x100, frames: &frames, frames_addr: 0x200 };
            let _ = (info.rule_at(pc), find_frames(&header, 0x100));
        }

        #[test]
        fn any_instructions_give_a_rule(code in prop::collection::vec(any::<u8>(), 0..64), pc in 0u64..64) {
            // A CIE and an FDE of [0, 64) with these instructions, and the table that leads to it.
            let mut frames: std::vec::Vec<u8> = std::vec::Vec::new();
            frames.extend([20, 0, 0, 0, 0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 16, 1, 0x03, 0x0c, 7, 8, 0x90, 1, 0, 0]);
            frames.extend((4 + 8 + 1 + code.len() as u32).to_le_bytes());
            frames.extend(28u32.to_le_bytes());
            frames.extend([0, 0, 0, 0, 64, 0, 0, 0, 0]);
            frames.extend(&code);
            let mut header = std::vec![1u8, 0x03, 0x03, 0x03];
            for word in [0x200u32, 1, 0, 0x200 + 24] {
                header.extend(word.to_le_bytes());
            }
            let info = UnwindInfo { header: &header, header_addr: 0x100, frames: &frames, frames_addr: 0x200 };
            let rule = info.rule_at(pc);
            prop_assert!(rule != Rule::Unknown, "the table leads to the entry");
            prop_assert_eq!(info.rule_at(64), Rule::Unknown);
        }
    }
}
