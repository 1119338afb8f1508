//! Accesses that touch only what a mask selects: masked moves and arithmetic, compressing and expanding moves, gathers
//! and scatters.
//!
//! In: an instruction with such an operand. Out: what to look at to learn which elements it touches. Where the mask
//! does not tell that exactly (it counts other elements than the operand's, or the processor looks at more than it
//! selects), there is no answer, and the access stays unchecked.
//!
//! Source: Intel SDM vol. 1, 15.6 (opmasks, fault suppression); vol. 2, VMASKMOV, VPMASKMOV, MASKMOVDQU, VPGATHER,
//! VPSCATTER, VPCOMPRESS, VPEXPAND.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use crate::{
    asm::{Gpr, Mem},
    decode::based,
};

/// Where the mask stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mask {
    /// In an opmask register: one bit an element.
    Opmask(u8),
    /// In the signs of a vector register's elements of four or eight bytes; `wide` when it is a ymm register.
    Signs { register: u8, wide: bool, element: u8 },
    /// In the signs of an xmm register's bytes.
    Bytes(u8),
    /// In the signs of an mm register's bytes.
    ShortBytes(u8),
}

/// Where the elements lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Element `i` of the mask `i` elements from the address.
    Apart,
    /// The selected ones next to each other, from the address.
    Together,
    /// One for all that are selected.
    Same,
    /// Element `i` where entry `i` of an index vector says.
    Indexed(Index),
}

/// The index vector of a gather or scatter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Index {
    pub register: u8,
    /// How many bytes the register has: 16, 32, 64.
    pub bytes: u8,
    /// How many bytes an entry has: 4, 8.
    pub entry: u8,
    pub scale: u8,
    /// Whether the instruction is encoded with EVEX, so that the processor knows it.
    pub evex: bool,
}

/// What a masked access touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Masked {
    pub mask: Mask,
    /// Bytes of an element.
    pub element: u8,
    /// How many elements there are at most.
    pub count: u8,
    pub layout: Layout,
}

/// Whether which bytes are touched depends on a mask.
pub(crate) fn is_masked(instruction: &Instruction) -> bool {
    instruction.op_mask() != Register::None && !touches_all(instruction)
        || instruction.is_vsib()
        || sign_mask(instruction).is_some()
}

/// What a masked instruction touches, and from which address, if its mask tells.
pub(crate) fn find(instruction: &Instruction) -> Option<(Mem, Masked)> {
    if instruction.is_vsib() {
        return find_indexed(instruction);
    }
    let memory = instruction.memory_size();
    let (element, size) = (memory.element_size(), memory.size());
    let opmask = instruction.op_mask();
    let (mask, layout) = match sign_mask(instruction) {
        Some(mask) => (mask, Layout::Apart),
        None if is_packing(instruction) => (Mask::Opmask(opmask.number() as u8), Layout::Together),
        None if counts_elements(instruction) => {
            let layout = if memory.is_broadcast() { Layout::Same } else { Layout::Apart };
            (Mask::Opmask(opmask.number() as u8), layout)
        }
        None => return None,
    };
    let (element, count) = match mask {
        Mask::Bytes(_) => (1, 16),
        Mask::ShortBytes(_) => (1, 8),
        _ if layout == Layout::Same => (element, vector_bytes(instruction)?.checked_div(element)?),
        _ => (element, size.checked_div(element)?),
    };
    let mem = match mask {
        Mask::Bytes(_) | Mask::ShortBytes(_) if instruction.memory_segment() == Register::DS => {
            Mem::at(Gpr(Register::RDI.number() as u8), 0)
        }
        Mask::Bytes(_) | Mask::ShortBytes(_) => return None,
        _ => crate::decode::operand(instruction)?,
    };
    Some((mem, Masked { mask, element: element as u8, count: count as u8, layout }))
}

/// How long the vectors are that an instruction works on.
fn vector_bytes(instruction: &Instruction) -> Option<usize> {
    let registers = (0..instruction.op_count()).map(|op| instruction.op_register(op));
    registers.filter(|register| register.is_vector_register()).map(Register::size).next()
}

fn find_indexed(instruction: &Instruction) -> Option<(Mem, Masked)> {
    let (base, index) = (instruction.memory_base(), instruction.memory_index());
    if base.is_gpr32() {
        return None;
    }
    let element = instruction.memory_size().element_size() as u8;
    let entry = if instruction.is_vsib64() { 8 } else { 4 };
    let evex = instruction.op_mask() != Register::None;
    let data = (0..instruction.op_count())
        .find(|&op| instruction.op_kind(op) == OpKind::Register)
        .map(|op| instruction.op_register(op))?;
    let mask = if evex {
        Mask::Opmask(instruction.op_mask().number() as u8)
    } else {
        signs(instruction.op2_register(), element)
    };
    let count = (index.size() as u8 / entry).min(data.size() as u8 / element);
    let index = Index {
        register: index.number() as u8,
        bytes: index.size() as u8,
        entry,
        scale: instruction.memory_index_scale() as u8,
        evex,
    };
    let disp = instruction.memory_displacement64() as i32;
    Some((based(base, disp), Masked { mask, element, count, layout: Layout::Indexed(index) }))
}

fn signs(register: Register, element: u8) -> Mask {
    Mask::Signs { register: register.number() as u8, wide: register.is_ymm(), element }
}

/// The mask of an instruction of AVX or SSE that has one.
fn sign_mask(instruction: &Instruction) -> Option<Mask> {
    use Mnemonic as M;
    match instruction.mnemonic() {
        M::Maskmovdqu | M::Vmaskmovdqu => Some(Mask::Bytes(instruction.op2_register().number() as u8)),
        M::Maskmovq => Some(Mask::ShortBytes(instruction.op2_register().number() as u8)),
        // A load has it between the other operands, a store too.
        M::Vmaskmovps | M::Vpmaskmovd => Some(signs(instruction.op1_register(), 4)),
        M::Vmaskmovpd | M::Vpmaskmovq => Some(signs(instruction.op1_register(), 8)),
        _ => None,
    }
}

/// Whether the selected elements lie next to each other in memory.
fn is_packing(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(
        instruction.mnemonic(),
        M::Vcompressps
            | M::Vcompresspd
            | M::Vpcompressb
            | M::Vpcompressw
            | M::Vpcompressd
            | M::Vpcompressq
            | M::Vexpandps
            | M::Vexpandpd
            | M::Vpexpandb
            | M::Vpexpandw
            | M::Vpexpandd
            | M::Vpexpandq
    )
}

/// Whether the mask has one bit for each element of the operand, and what it does not select is not touched (or, where
/// the operand is one element for all, that is not touched when nothing is selected).
fn counts_elements(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(
        instruction.mnemonic(),
        M::Vmovdqu8
            | M::Vmovdqu16
            | M::Vmovdqu32
            | M::Vmovdqu64
            | M::Vmovdqa32
            | M::Vmovdqa64
            | M::Vmovups
            | M::Vmovupd
            | M::Vmovaps
            | M::Vmovapd
            | M::Vmovss
            | M::Vmovsd
            | M::Vpmovqb
            | M::Vpmovqw
            | M::Vpmovqd
            | M::Vpmovdb
            | M::Vpmovdw
            | M::Vpmovwb
            | M::Vpmovzxbw
            | M::Vpmovzxbd
            | M::Vpmovzxbq
            | M::Vpmovzxwd
            | M::Vpmovzxwq
            | M::Vpmovzxdq
            | M::Vpmovsxbw
            | M::Vpmovsxbd
            | M::Vpmovsxbq
            | M::Vpmovsxwd
            | M::Vpmovsxwq
            | M::Vpmovsxdq
            | M::Vaddps
            | M::Vaddpd
            | M::Vsubps
            | M::Vsubpd
            | M::Vmulps
            | M::Vmulpd
            | M::Vdivps
            | M::Vdivpd
            | M::Vsqrtps
            | M::Vsqrtpd
            | M::Vmaxps
            | M::Vmaxpd
            | M::Vminps
            | M::Vminpd
            | M::Vandps
            | M::Vandpd
            | M::Vandnps
            | M::Vandnpd
            | M::Vorps
            | M::Vorpd
            | M::Vxorps
            | M::Vxorpd
            | M::Vblendmps
            | M::Vblendmpd
            | M::Vfmadd132ps
            | M::Vfmadd213ps
            | M::Vfmadd231ps
            | M::Vfmadd132pd
            | M::Vfmadd213pd
            | M::Vfmadd231pd
            | M::Vfmsub132ps
            | M::Vfmsub213ps
            | M::Vfmsub231ps
            | M::Vfmsub132pd
            | M::Vfmsub213pd
            | M::Vfmsub231pd
            | M::Vfnmadd132ps
            | M::Vfnmadd213ps
            | M::Vfnmadd231ps
            | M::Vfnmadd132pd
            | M::Vfnmadd213pd
            | M::Vfnmadd231pd
            | M::Vfnmsub132ps
            | M::Vfnmsub213ps
            | M::Vfnmsub231ps
            | M::Vfnmsub132pd
            | M::Vfnmsub213pd
            | M::Vfnmsub231pd
            | M::Vpaddb
            | M::Vpaddw
            | M::Vpaddd
            | M::Vpaddq
            | M::Vpsubb
            | M::Vpsubw
            | M::Vpsubd
            | M::Vpsubq
            | M::Vpmullw
            | M::Vpmulld
            | M::Vpmullq
            | M::Vpmulhw
            | M::Vpmulhuw
            | M::Vpaddsb
            | M::Vpaddsw
            | M::Vpaddusb
            | M::Vpaddusw
            | M::Vpsubsb
            | M::Vpsubsw
            | M::Vpsubusb
            | M::Vpsubusw
            | M::Vpavgb
            | M::Vpavgw
            | M::Vpmaxsb
            | M::Vpmaxsw
            | M::Vpmaxsd
            | M::Vpmaxsq
            | M::Vpmaxub
            | M::Vpmaxuw
            | M::Vpmaxud
            | M::Vpmaxuq
            | M::Vpminsb
            | M::Vpminsw
            | M::Vpminsd
            | M::Vpminsq
            | M::Vpminub
            | M::Vpminuw
            | M::Vpminud
            | M::Vpminuq
            | M::Vpabsb
            | M::Vpabsw
            | M::Vpabsd
            | M::Vpabsq
            | M::Vpandd
            | M::Vpandq
            | M::Vpandnd
            | M::Vpandnq
            | M::Vpord
            | M::Vporq
            | M::Vpxord
            | M::Vpxorq
            | M::Vpternlogd
            | M::Vpternlogq
            | M::Vpsllvw
            | M::Vpsllvd
            | M::Vpsllvq
            | M::Vpsrlvw
            | M::Vpsrlvd
            | M::Vpsrlvq
            | M::Vpsravw
            | M::Vpsravd
            | M::Vpsravq
            | M::Vprolvd
            | M::Vprolvq
            | M::Vprorvd
            | M::Vprorvq
            | M::Vpblendmb
            | M::Vpblendmw
            | M::Vpblendmd
            | M::Vpblendmq
            | M::Vcvtdq2ps
            | M::Vcvtps2dq
            | M::Vcvttps2dq
            | M::Vcvtudq2ps
            | M::Vpcmpb
            | M::Vpcmpub
            | M::Vpcmpw
            | M::Vpcmpuw
            | M::Vpcmpd
            | M::Vpcmpud
            | M::Vpcmpq
            | M::Vpcmpuq
            | M::Vpcmpeqb
            | M::Vpcmpeqw
            | M::Vpcmpeqd
            | M::Vpcmpeqq
            | M::Vpcmpgtb
            | M::Vpcmpgtw
            | M::Vpcmpgtd
            | M::Vpcmpgtq
            | M::Vcmpps
            | M::Vcmppd
            | M::Vptestmb
            | M::Vptestmw
            | M::Vptestmd
            | M::Vptestmq
            | M::Vptestnmb
            | M::Vptestnmw
            | M::Vptestnmd
            | M::Vptestnmq
    )
}

/// Whether the whole operand is touched in spite of a mask: SDM vol. 2, exceptions of class E4NF and E5NF.
fn touches_all(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(
        instruction.mnemonic(),
        M::Vpermd
            | M::Vpermq
            | M::Vpermps
            | M::Vpermpd
            | M::Vpermw
            | M::Vpermi2d
            | M::Vpermi2q
            | M::Vpermi2ps
            | M::Vpermi2pd
            | M::Vpermi2w
            | M::Vpermt2d
            | M::Vpermt2q
            | M::Vpermt2ps
            | M::Vpermt2pd
            | M::Vpermt2w
            | M::Vpermilps
            | M::Vpermilpd
            | M::Vshufps
            | M::Vshufpd
            | M::Vpshufb
            | M::Vpshufd
            | M::Vunpcklps
            | M::Vunpcklpd
            | M::Vunpckhps
            | M::Vunpckhpd
            | M::Vpunpcklbw
            | M::Vpunpcklwd
            | M::Vpunpckldq
            | M::Vpunpcklqdq
            | M::Vpunpckhbw
            | M::Vpunpckhwd
            | M::Vpunpckhdq
            | M::Vpunpckhqdq
            | M::Vpacksswb
            | M::Vpackssdw
            | M::Vpackuswb
            | M::Vpackusdw
            | M::Valignd
            | M::Valignq
            | M::Vpalignr
            | M::Vpmaddwd
            | M::Vpmaddubsw
            | M::Vmovddup
            | M::Vmovshdup
            | M::Vmovsldup
    )
}
