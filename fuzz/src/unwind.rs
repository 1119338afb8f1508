//! Any bytes as a module's `.eh_frame_hdr` and `.eh_frame`, and any words as the stack.
//!
//! Oracle: gimli with all the memory it wants reads the same entry, and the rule says what its row says: no more, and of
//! what compilers emit no less. A walk by these rules ends, and goes only where it may read.

use gimli::{BaseAddresses, CfaRule, EhFrame, EhFrameHdr, LittleEndian, RegisterRule, UnwindContext, X86_64};
use gimli::{UnwindSection as _, UnwindTableRow};
use goblin::elf::Elf;
use memcheck_model::Pc;
use memcheck_stack::{CfaBase, PcKind, Process, Registers, Rule, UnwindInfo, find_frames, walk_in};

use crate::input::Input;

/// Frames of up to 4 MiB have rules.
const LARGEST_FRAME: i64 = 4 << 20;

/// Two addresses, the header's length, the header, the frames.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let (header_addr, frames_addr) = (input.u32().into(), input.u32().into());
    let len = input.u16();
    let header = input.take(len.into());
    let info = UnwindInfo { header, header_addr, frames: input.0, frames_addr };
    let _ = find_frames(header, header_addr);
    let text = [0, 8, 0x1000].map(|near| header_addr.wrapping_sub(near));
    let first = (0..200).map(|at| at * 3);
    for pc in text.into_iter().chain(first).chain([0x1000, 0x1020, u64::MAX, i64::MAX as u64]) {
        let rule = info.rule_at(pc);
        let _ = info.for_each_landing_pad(pc, |at| data.get(at as usize & 0xff..), |_| ());
        assert_eq!(Rule::decode(rule.encode()), rule);
        compare(&info, pc, rule);
    }
    walk(&info, data);
}

fn compare(info: &UnwindInfo<'_>, pc: u64, rule: Rule) {
    let bases = BaseAddresses::default().set_eh_frame_hdr(info.header_addr).set_eh_frame(info.frames_addr);
    let frames = EhFrame::new(info.frames, LittleEndian);
    let header = EhFrameHdr::new(info.header, LittleEndian).parse(&bases, 8);
    let table = header.as_ref().ok().and_then(|header| header.table());
    let fde =
        table.and_then(|table| table.fde_for_address(&frames, &bases, pc, EhFrame::cie_from_offset).ok());
    let Some(fde) = fde else {
        return assert_eq!(rule, Rule::Unknown);
    };
    assert!(fde.contains(pc) && rule != Rule::Unknown, "{rule:?}");
    let mut context = UnwindContext::new();
    let Ok(row) = fde.unwind_info_for_address(&frames, &bases, &mut context, pc) else {
        return assert_eq!(rule, Rule::Refused);
    };
    if fde.cie().is_signal_trampoline() {
        return assert!(matches!(rule, Rule::Signal | Rule::Refused), "{rule:?}");
    }
    check_row(row, rule);
}

fn check_row(row: &UnwindTableRow<usize>, rule: Rule) {
    let (ra, rbp) = (row.register(X86_64::RA), row.register(X86_64::RBP));
    let is_kept = matches!(rbp, None | Some(RegisterRule::SameValue | RegisterRule::Undefined));
    match rule {
        Rule::Frame { base, cfa_words, rbp_words } => {
            assert_eq!(ra, Some(RegisterRule::Offset(-8)));
            let offset = i64::from(cfa_words) * 8;
            match (base, row.cfa()) {
                (CfaBase::Rsp, CfaRule::RegisterAndOffset { register: X86_64::RSP, offset: of }) => {
                    assert_eq!(offset, *of);
                }
                (CfaBase::Rbp, CfaRule::RegisterAndOffset { register: X86_64::RBP, offset: of }) => {
                    assert_eq!(offset, *of);
                }
                (CfaBase::Rsp | CfaBase::SavedRsp | CfaBase::Realigned, CfaRule::Expression(_)) => {}
                (_, cfa) => panic!("{rule:?} of {cfa:?}"),
            }
            match rbp {
                Some(RegisterRule::Offset(of)) => assert_eq!(of, i64::from(rbp_words) * -8),
                Some(RegisterRule::Expression(_)) => assert_eq!(base, CfaBase::Realigned),
                _ => assert!(is_kept && rbp_words == 0, "{rule:?} {rbp:?}"),
            }
        }
        Rule::Outermost => assert_eq!(ra, Some(RegisterRule::Undefined)),
        Rule::Refused => {
            // Frames of compilers are not refused, as long as they describe no more registers than there are.
            let usual = matches!(row.cfa(), CfaRule::RegisterAndOffset { register: X86_64::RSP | X86_64::RBP, offset }
                if offset % 8 == 0 && (0..LARGEST_FRAME).contains(offset));
            let is_small = row.registers().count() <= 17;
            assert!(!(usual && is_small && is_kept && ra == Some(RegisterRule::Offset(-8))), "{row:?}");
        }
        Rule::Signal | Rule::Unknown => panic!("{rule:?} of {row:?}"),
    }
}

/// A stack that is the input, at any address that its first words say.
struct Stack<'a> {
    info: UnwindInfo<'a>,
    words: &'a [[u8; 8]],
    start: u64,
}

impl Process for Stack<'_> {
    fn read(&self, addr: u64) -> Option<u64> {
        let offset = addr.checked_sub(self.start)?;
        let word = self.words.get(usize::try_from(offset / 8).ok()?)?;
        Some(u64::from_le_bytes(*word))
    }

    fn read_again(&self, addr: u64) -> u64 {
        self.read(addr).expect("it was read before")
    }

    fn stack_end(&self) -> u64 {
        self.start.saturating_add(8 * self.words.len() as u64)
    }

    fn rule(&self, pc: u64, kind: PcKind) -> Rule {
        self.info.rule_at(if kind == PcKind::Return { pc.wrapping_sub(1) } else { pc })
    }

    fn is_code(&self, pc: u64) -> bool {
        pc < 1 << 16
    }
}

fn walk(info: &UnwindInfo<'_>, data: &[u8]) {
    let words = data.as_chunks::<8>().0;
    let word = |at: usize| words.get(at).map_or(0, |word| u64::from_le_bytes(*word));
    for (start, sp, bp) in
        [(0, 0, word(1)), (0, 8, 64), (word(2), word(2), word(3)), (u64::MAX - 63, u64::MAX - 63, 0)]
    {
        let stack = Stack { info: *info, words, start };
        let mut out = [Pc(0); 64];
        for pc in [0, 0x20, 0x1000, word(0) & 0xff] {
            let found = walk_in(Registers { pc, sp, bp }, PcKind::Exact, &stack, &mut out);
            assert!((1..=64).contains(&found) && out[0] == Pc(pc));
        }
    }
}

/// The sections of a library, and those of an entry that is made of bytes.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let options: [&[&str]; 3] = [&["-O2"], &["-O0"], &["-O2", "-fno-omit-frame-pointer"]];
    let mut seeds: Vec<Vec<u8>> = options.iter().filter_map(|options| real(options)).collect();
    let instructions: [&[u8]; 4] = [
        &[0x0e, 16, 0x86, 2, 0x41, 0x0d, 6, 0x50, 0x0c, 7, 8],
        &[0x0f, 3, 0x76, 0x78, 0x06, 0x10, 6, 2, 0x76, 0],
        &[0x0a, 0x41, 0x0e, 32, 0x42, 0x0b],
        &[0x0f, 11, 0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22],
    ];
    for code in instructions {
        // A CIE and an FDE of [0, 64) with these instructions, and the table that leads to it.
        let mut frames: Vec<u8> = Vec::new();
        frames.extend([
            20, 0, 0, 0, 0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 16, 1, 0x03, 0x0c, 7, 8, 0x90, 1, 0, 0,
        ]);
        frames.extend((4 + 8 + 1 + code.len() as u32).to_le_bytes());
        frames.extend(28u32.to_le_bytes());
        frames.extend([0, 0, 0, 0, 64, 0, 0, 0, 0]);
        frames.extend(code);
        let mut header = vec![1u8, 0x03, 0x03, 0x03];
        for word in [0x200u32, 1, 0, 0x200 + 24] {
            header.extend(word.to_le_bytes());
        }
        seeds.push(sections(0x100, &header, 0x200, &frames));
    }
    seeds
}

fn real(options: &[&str]) -> Option<Vec<u8>> {
    let library = crate::fixture::library(options);
    let elf = Elf::parse(&library).ok()?;
    let section = |name: &str| {
        let found =
            elf.section_headers.iter().find(|header| elf.shdr_strtab.get_at(header.sh_name) == Some(name))?;
        Some((found.sh_addr as u32, library.get(found.file_range()?)?))
    };
    let ((header_addr, header), (frames_addr, frames)) = (section(".eh_frame_hdr")?, section(".eh_frame")?);
    Some(sections(header_addr, header, frames_addr, frames))
}

fn sections(header_addr: u32, header: &[u8], frames_addr: u32, frames: &[u8]) -> Vec<u8> {
    let len = (header.len() as u16).to_le_bytes();
    [&header_addr.to_le_bytes()[..], &frames_addr.to_le_bytes(), &len, header, frames].concat()
}
