//! From call frame information to a [`Rule`]: one module's `.eh_frame_hdr` and `.eh_frame`, read with gimli
//! (DWARF 5, 6.4; LSB Core 5.0, 10.6). Nothing is allocated; a few kilobytes of stack are used.

use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, LittleEndian, Register, RegisterRule, UnwindContext,
    UnwindContextStorage, UnwindSection, UnwindTableRow, X86_64,
};

use crate::{CfaBase, Rule};

/// Room for the registers that x86-64 code can describe, with some to spare; more is refused by gimli.
const RULES: usize = 24;
/// DW_CFA_remember_state nests once in compilers' output.
const ROWS: usize = 3;

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

    fn try_rule_at(&self, pc: u64) -> Option<Rule> {
        let bases =
            BaseAddresses::default().set_eh_frame_hdr(self.header_addr).set_eh_frame(self.frames_addr);
        let header = EhFrameHdr::new(self.header, LittleEndian).parse(&bases, 8).ok()?;
        let frames = EhFrame::new(self.frames, LittleEndian);
        let fde = header.table()?.fde_for_address(&frames, &bases, pc, EhFrame::cie_from_offset).ok()?;
        if fde.cie().is_signal_trampoline() {
            return Some(Rule::Signal);
        }
        let mut context = UnwindContext::<usize, InPlace>::new_in();
        // Something covers the address: from here on what cannot be said is refused, not unknown.
        Some(match fde.unwind_info_for_address(&frames, &bases, &mut context, pc) {
            Ok(row) => rule_of(row),
            Err(_) => Rule::Refused,
        })
    }
}

fn rule_of(row: &UnwindTableRow<usize, InPlace>) -> Rule {
    match row.register(X86_64::RA) {
        Some(RegisterRule::Undefined) => return Rule::Outermost,
        Some(RegisterRule::Offset(-8)) => {}
        _ => return Rule::Refused,
    }
    let rbp = match row.register(X86_64::RBP) {
        None | Some(RegisterRule::SameValue | RegisterRule::Undefined) => None,
        Some(RegisterRule::Offset(offset)) => Some(offset),
        Some(_) => return Rule::Refused,
    };
    match row.cfa() {
        CfaRule::RegisterAndOffset { register: X86_64::RSP, offset } => {
            Rule::frame(CfaBase::Rsp, *offset, rbp)
        }
        CfaRule::RegisterAndOffset { register: X86_64::RBP, offset } => {
            Rule::frame(CfaBase::Rbp, *offset, rbp)
        }
        _ => Rule::Refused,
    }
}
