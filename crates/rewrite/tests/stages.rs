//! Bytes in, disassembly of the copy out: golden files, and one test for each thing that must be refused or handled
//! with care. `BLESS=1` writes the golden files anew.

use std::{fs, path::Path, process::Command};

use memcheck_model::{Addr, Pc};
use memcheck_rewrite::{
    CallTarget, Callees, Checks, CodeBlob, Config, Extent, Module, Place, Processor, Resolver, Segment, Skip,
    SkipReason, Stress, Syscalls, discover, entry_room, translate,
};

const TEXT: u64 = 0x1000;
const PLACE: Place = Place { code: Addr(0x10_1000), prelude: Addr(0x10_0000) };

struct NoSlots;
impl Resolver for NoSlots {
    fn call_target(&self, _: Pc) -> CallTarget {
        CallTarget::Original
    }
}

fn config() -> Config {
    Config {
        shadow_base: 0x7fff_8000,
        spill_offset: -64,
        checks: Checks::On,
        stress: Stress::Off,
        syscalls: Syscalls::Native,
        processor: Processor::Bmi2,
    }
}

fn module<'a>(bytes: &'a [u8], cuts: &[u64]) -> Module<'a> {
    let mut starts = vec![0];
    starts.extend(cuts);
    let ends = cuts.iter().copied().chain([bytes.len() as u64]);
    let extent = |(start, end): (&u64, u64)| Extent { start: Pc(TEXT + start), end: Pc(TEXT + end) };
    let extents = starts.iter().zip(ends).map(extent).collect();
    Module {
        text: vec![Segment { start: Pc(TEXT), bytes }],
        constants: Vec::new(),
        extents,
        callees: Callees::default(),
    }
}

fn copy_of(bytes: &[u8], cuts: &[u64]) -> Result<CodeBlob, Skip> {
    let module = module(bytes, cuts);
    translate(&config(), &module, 0, &NoSlots, PLACE).copy
}

fn reason(bytes: &[u8], cuts: &[u64]) -> Option<SkipReason> {
    copy_of(bytes, cuts).err().map(|skip| skip.reason)
}

fn disassemble(bytes: &[u8], at: u64, name: &str) -> String {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.{at:x}.bin"));
    fs::write(&file, bytes).unwrap();
    let output = Command::new("objdump")
        .args(["-D", "-b", "binary", "-m", "i386:x86-64", "-M", "intel", "--no-show-raw-insn"])
        .arg(format!("--adjust-vma={at:#x}"))
        .arg(&file)
        .output()
        .expect("objdump runs");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("  ") && line.contains(":\t"));
    lines.map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn check_golden(name: &str, bytes: &[u8]) {
    check_golden_of(name, bytes, &[]);
}

/// As `check_golden`, for the first of several functions.
fn check_golden_of(name: &str, bytes: &[u8], cuts: &[u64]) -> CodeBlob {
    let blob = copy_of(bytes, cuts).expect("translatable");
    let text = format!(
        "original\n{}copy\n{}{:?}\n",
        disassemble(bytes, TEXT, name),
        disassemble(&blob.bytes, PLACE.code.0, name),
        blob.stats
    );
    assert!(!cuts.is_empty() || !text.contains("(bad)"), "{text}");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.txt"));
    if std::env::var_os("BLESS").is_some() {
        fs::write(&golden, &text).unwrap();
    }
    assert_eq!(text, fs::read_to_string(&golden).unwrap_or_default(), "{}", golden.display());
    blob
}

#[test]
fn golden_group_of_fields() {
    // mov rax,[rdi+8]; mov rcx,[rdi+16]; add rax,rcx; mov [rdi+24],rax; ret
    check_golden(
        "group_of_fields",
        &[0x48, 0x8b, 0x47, 8, 0x48, 0x8b, 0x4f, 16, 0x48, 1, 0xc8, 0x48, 0x89, 0x47, 24, 0xc3],
    );
}

#[test]
fn golden_check_moves_above_a_compare() {
    // cmp esi,edx; mov rcx,[rdi]; jl +1; nop; xor eax,eax; ret
    check_golden(
        "check_moves_above_a_compare",
        &[0x39, 0xf2, 0x48, 0x8b, 0x0f, 0x7c, 1, 0x90, 0x31, 0xc0, 0xc3],
    );
}

#[test]
fn golden_loop_along_an_array() {
    // mov rax,[rdi]; add rdi,8; cmp rdi,rsi; jne -12; ret
    check_golden(
        "loop_along_an_array",
        &[0x48, 0x8b, 7, 0x48, 0x83, 0xc7, 8, 0x48, 0x39, 0xf7, 0x75, 0xf4, 0xc3],
    );
}

#[test]
fn golden_loop_along_two_arrays() {
    // mov rax,[rdi+rcx*8]; add [rsi+rcx*8],rax; inc rcx; cmp rcx,rdx; jne -16; xor r8d,r8d; ret
    check_golden(
        "loop_along_two_arrays",
        b"\x48\x8b\x04\xcf\x48\x01\x04\xce\x48\xff\xc1\x48\x39\xd1\x75\xf0\x45\x31\xc0\xc3",
    );
}

#[test]
fn golden_loop_along_a_list() {
    // mov rdi,[rdi]; test rdi,rdi; jne -8; ret
    check_golden("loop_along_a_list", &[0x48, 0x8b, 0x3f, 0x48, 0x85, 0xff, 0x75, 0xf8, 0xc3]);
}

#[test]
fn golden_live_flags_are_saved() {
    // mov [rdi],rsi; ret: everything is live
    check_golden("live_flags_are_saved", &[0x48, 0x89, 0x37, 0xc3]);
}

#[test]
fn golden_frame_is_exempt() {
    // push rbp; mov rbp,rsp; mov [rbp-8],rdi; mov rax,[rbp-8]; leave; ret
    check_golden(
        "frame_is_exempt",
        &[0x55, 0x48, 0x89, 0xe5, 0x48, 0x89, 0x7d, 0xf8, 0x48, 0x8b, 0x45, 0xf8, 0xc9, 0xc3],
    );
}

#[test]
fn golden_string_instruction() {
    check_golden("string_instruction", &[0xf3, 0x48, 0xab, 0xc3]); // rep stosq; ret
}

#[test]
fn golden_indirect_jump() {
    check_golden("indirect_jump", &[0xff, 0xe0]); // jmp rax
}

#[test]
fn client_requests_are_hooked_and_end_what_is_known_of_memory() {
    // mov rax,[rdi]; rol rdi,3; rol rdi,13; rol rdi,61; rol rdi,51; xchg rbx,rbx; mov rcx,[rdi]; ret
    let request = b"\x48\xc1\xc7\x03\x48\xc1\xc7\x0d\x48\xc1\xc7\x3d\x48\xc1\xc7\x33\x48\x87\xdb";
    let bytes = [&[0x48, 0x8b, 7], &request[..], &[0x48, 0x8b, 0x0f, 0xc3]].concat();
    let calls = |bytes: &[u8]| {
        let (config, module) = (Config { syscalls: Syscalls::Hooked, ..config() }, module(bytes, &[]));
        let blob = translate(&config, &module, 0, &NoSlots, PLACE).copy.expect("translatable");
        let text = disassemble(&blob.bytes, PLACE.code.0, "client_request");
        text.lines().filter(|line| line.contains("call") && line.contains("QWORD PTR [rip")).count()
    };
    assert_eq!(calls(&bytes), 1);
    // Of other rotations by 128 bits in all nothing is made, nor of the last instruction alone.
    let mut other = bytes.clone();
    other.swap(6, 10);
    assert_eq!((calls(&other), calls(&[0x48, 0x87, 0xdb, 0xc3])), (0, 0));
}

#[test]
fn golden_jump_table() {
    // cmp edi,1; ja 28; lea rdx,[rip+30]; movsxd rax,[rdx+rdi*4]; add rax,rdx; jmp rax; mov eax,1; ret; mov eax,2;
    // 28: ret │ 41: the table
    let mut bytes = vec![0x83, 0xff, 1, 0x77, 0x17, 0x48, 0x8d, 0x15, 29, 0, 0, 0];
    bytes.extend([0x48, 0x63, 0x04, 0xba, 0x48, 1, 0xd0, 0xff, 0xe0]);
    bytes.extend([0xb8, 1, 0, 0, 0, 0xc3, 0xc3, 0xb8, 2, 0, 0, 0, 0xc3]);
    bytes.resize(41, 0xcc);
    bytes.extend((21i32 - 41).to_le_bytes());
    bytes.extend((28i32 - 41).to_le_bytes());
    let copy = check_golden_of("jump_table", &bytes, &[34]);
    assert_eq!((copy.stats.indirect_jumps, copy.stats.tables), (1, 1));
}

#[test]
fn a_bound_of_another_register_is_none_for_a_table() {
    // As in the jump table above, with `cmp REGISTER,1` and then maybe `mov edi,esi`.
    let tables = |compare: [u8; 3], copy: &[u8]| {
        let mut bytes = [&compare[..], &[0x77, 0x17 + copy.len() as u8], copy].concat();
        bytes.extend([0x48, 0x8d, 0x15, 29, 0, 0, 0, 0x48, 0x63, 0x04, 0xba, 0x48, 1, 0xd0, 0xff, 0xe0]);
        let start = bytes.len() as i32;
        bytes.extend([0xb8, 1, 0, 0, 0, 0xc3, 0xc3, 0xb8, 2, 0, 0, 0, 0xc3]);
        let end = bytes.len() as u64;
        let table = copy.len() + 41;
        bytes.resize(table, 0xcc);
        bytes.extend((start - table as i32).to_le_bytes());
        bytes.extend((start + 7 - table as i32).to_le_bytes());
        copy_of(&bytes, &[end]).expect("translatable").stats.tables
    };
    assert_eq!(tables([0x83, 0xff, 1], &[]), 1, "cmp edi,1");
    assert_eq!(tables([0x83, 0xfe, 1], &[]), 0, "cmp esi,1");
    assert_eq!(tables([0x83, 0xfe, 1], &[0x89, 0xf7]), 1, "cmp esi,1; mov edi,esi");
    assert_eq!(tables([0x83, 0xff, 1], &[0x89, 0xf7]), 0, "cmp edi,1; mov edi,esi");
    // movzx edi,sil
    assert_eq!(tables([0x83, 0xfe, 1], &[0x40, 0x0f, 0xb6, 0xfe]), 1);
    // add edi,edi
    assert_eq!(tables([0x83, 0xff, 1], &[0x01, 0xff]), 0);
}

#[test]
fn golden_unbounded_table() {
    // lea rdx,[rip+12]; movsxd rax,[rdx+rdi*4]; add rax,rdx; jmp rax; 16: ret; 17: ret │ 19: the table
    let mut bytes = vec![0x48, 0x8d, 0x15, 12, 0, 0, 0, 0x48, 0x63, 0x04, 0xba, 0x48, 1, 0xd0, 0xff, 0xe0];
    bytes.extend([0xc3, 0xc3, 0xcc]);
    bytes.extend((16i32 - 19).to_le_bytes());
    bytes.extend((17i32 - 19).to_le_bytes());
    let stats = check_golden_of("unbounded_table", &bytes, &[18]).stats;
    assert_eq!((stats.indirect_jumps, stats.tables), (1, 0));
}

#[test]
fn labels_that_code_at_fixed_addresses_names_are_jumped_to_in_the_copy() {
    let label = (TEXT + 12) as u32;
    // mov eax,LABEL; movabs rax,LABEL; mov qword [rsi],LABEL
    let names = [&[0xb8][..], &[0x48, 0xb8], &[0x48, 0xc7, 0x06]];
    for (name, wide) in names.into_iter().zip([false, true, false]) {
        let mut bytes = [name, &label.to_le_bytes(), if wide { &[0; 4] } else { &[] }].concat();
        bytes.extend([0xff, 0x27]); // jmp [rdi]
        bytes.resize(12, 0x90);
        bytes.extend([0x8b, 0x07, 0xc3]); // LABEL: mov eax,[rdi]; ret
        let targets = copy_of(&bytes, &[]).expect("translatable").jump_targets;
        assert!(targets.iter().any(|(original, _)| original.0 == u64::from(label)), "{name:x?}");
    }
}

/// Variables with addresses of text.
struct Labels(u64, Vec<u64>);
impl Resolver for Labels {
    fn call_target(&self, _: Pc) -> CallTarget {
        CallTarget::Original
    }

    fn variable(&self, at: Pc) -> Option<u64> {
        let offset = at.0.checked_sub(self.0).filter(|offset| offset % 8 == 0)?;
        self.1.get(offset as usize / 8).copied()
    }
}

#[test]
fn labels_in_a_table_that_may_change_are_jumped_to_in_the_copy() {
    // lea rax,[TABLE]; jmp [rax+rdi*8]; 10: mov eax,[rsi]; ret; 13: mov eax,[rdx]; ret
    let mut bytes = vec![0x48, 0x8d, 0x05, 0, 0x10, 0, 0, 0xff, 0x24, 0xf8];
    bytes.extend([0x8b, 0x06, 0xc3, 0x8b, 0x02, 0xc3]);
    let variables = Labels(TEXT + 0x1007, vec![TEXT + 10, TEXT + 13, 7, TEXT + 12]);
    let module = module(&bytes, &[]);
    let copy = translate(&config(), &module, 0, &variables, PLACE).copy.expect("translatable");
    let is_target = |offset| copy.jump_targets.iter().any(|(original, _)| original.0 == TEXT + offset);
    assert_eq!([10, 12, 13].map(is_target), [true, false, true]);
}

/// Checks in: mov rax,[rdi]; MIDDLE; je +3; LATER (three bytes); xor eax,eax; ret
fn checks_around_a_branch(middle: &[u8], later: [u8; 3]) -> u32 {
    let bytes = [&[0x48, 0x8b, 7], middle, &[0x74, 3], &later, &[0x31, 0xc0, 0xc3]].concat();
    copy_of(&bytes, &[]).expect("translatable").stats.checks
}

const TEST_RAX: &[u8] = &[0x48, 0x85, 0xc0];
const LOAD_RDI: [u8; 3] = [0x48, 0x8b, 0x0f];

#[test]
fn what_every_path_checked_is_not_checked_again() {
    assert_eq!(checks_around_a_branch(TEST_RAX, LOAD_RDI), 1);
    // mov cl,[rdi+1]: a part of it
    assert_eq!(checks_around_a_branch(TEST_RAX, [0x8a, 0x4f, 1]), 1);
}

#[test]
fn another_address_is_checked_again() {
    // add rdi,8
    assert_eq!(checks_around_a_branch(&[0x48, 0x83, 0xc7, 8], LOAD_RDI), 2);
    // mov rcx,[rsi]
    assert_eq!(checks_around_a_branch(TEST_RAX, [0x48, 0x8b, 0x0e]), 2);
}

#[test]
fn a_write_is_checked_after_a_read() {
    assert_eq!(checks_around_a_branch(TEST_RAX, [0x48, 0x89, 0x0f]), 2);
}

#[test]
fn what_was_checked_before_a_call_is_checked_again() {
    // call 0x2000; test rax,rax
    assert_eq!(checks_around_a_branch(&[0xe8, 0xf8, 0x0f, 0, 0, 0x48, 0x85, 0xc0], LOAD_RDI), 2);
}

#[test]
fn what_one_of_two_paths_checked_is_checked_again() {
    // test rsi,rsi; je +3; mov rax,[rdi]; mov rax,[rdi]; ret
    let bytes = [0x48, 0x85, 0xf6, 0x74, 3, 0x48, 0x8b, 7, 0x48, 0x8b, 7, 0xc3];
    assert_eq!(copy_of(&bytes, &[]).expect("translatable").stats.checks, 2);
}

#[test]
fn golden_short_loops_reach_far() {
    // xor eax,eax; add eax,[rdi]; loop -4; jrcxz +1; nop; ret
    check_golden("short_loops_reach_far", &[0x31, 0xc0, 3, 7, 0xe2, 0xfc, 0xe3, 1, 0x90, 0xc3]);
}

#[test]
fn the_furthest_displacement_is_no_near_one() {
    // mov rax,[rdi-0x80000000]; ret
    assert_eq!(copy_of(&[0x48, 0x8b, 0x87, 0, 0, 0, 0x80, 0xc3], &[]).expect("translatable").stats.checks, 1);
}

#[test]
fn undecodable_bytes_are_refused() {
    assert_eq!(reason(&[0x90, 6, 0xc3], &[]), Some(SkipReason::Undecodable));
}

#[test]
fn transactions_are_refused() {
    assert_eq!(reason(&[0xc7, 0xf8, 0, 0, 0, 0, 0xc3], &[]), Some(SkipReason::Transaction));
}

#[test]
fn call_of_the_next_instruction_is_refused() {
    assert_eq!(reason(&[0xe8, 0, 0, 0, 0, 0x58, 0xc3], &[]), Some(SkipReason::CallNext));
}

#[test]
fn call_of_the_adjacent_function_is_a_call() {
    assert_eq!(reason(&[0xe8, 0, 0, 0, 0, 0x58, 0xc3], &[5]), None);
}

#[test]
fn jump_into_an_instruction_is_refused() {
    assert_eq!(reason(&[0x75, 1, 0xb8, 0, 0, 0, 0, 0xc3], &[]), Some(SkipReason::JumpIntoInstruction));
}

#[test]
fn jump_behind_a_lock_prefix_reaches_the_locked_instruction() {
    // je +1; lock cmpxchg [rdi],ecx; ret
    let blob = copy_of(&[0x74, 1, 0xf0, 0x0f, 0xb1, 0x0f, 0xc3], &[]).expect("translatable");
    assert!(blob.jump_targets.iter().any(|(pc, _)| *pc == Pc(TEXT + 2)));
}

#[test]
fn parts_that_jump_back_into_a_function_join_it() {
    // 0: jne 5 (the part); nop; ret; nop │ 5: jmp 2
    let bytes = [0x75, 3, 0x90, 0xc3, 0x90, 0xeb, 0xfb];
    let module = module(&bytes, &[5]);
    assert_eq!(translate(&config(), &module, 1, &NoSlots, PLACE).functions, [0, 1]);
    assert_eq!(copy_of(&bytes, &[5]).expect("translatable").entries.len(), 2);
}

#[test]
fn return_addresses_map_back_exactly() {
    // call 0x2000; mov rax,[rax]; ret: what follows the call in the copy is a check
    let blob = copy_of(&[0xe8, 0xfb, 0x0f, 0, 0, 0x48, 0x8b, 0, 0xc3], &[]).expect("translatable");
    let call = blob.pc_map.find_copy(Pc(TEXT)).expect("the call has a copy");
    assert_eq!(blob.pc_map.find_return(call + 5), Some(Pc(TEXT + 5)));
    assert_eq!(blob.pc_map.find_origin(call + 5).map(|origin| origin.pc), Some(Pc(TEXT + 5)));
}

#[test]
fn functions_without_unwind_entries_are_found_by_their_callers() {
    // 0: call 8; ret; nops │ 8: ret; nops
    let mut bytes = [0x90; 64];
    bytes[..6].copy_from_slice(&[0xe8, 3, 0, 0, 0, 0xc3]);
    bytes[8] = 0xc3;
    let text = [Segment { start: Pc(TEXT), bytes: &bytes }];
    let first = Extent { start: Pc(TEXT), end: Pc(TEXT + 6) };
    let found = discover(&text, &[first], &[]).extents;
    assert_eq!(found, [first, Extent { start: Pc(TEXT + 8), end: Pc(TEXT + 9) }]);
}

#[test]
fn functions_that_were_sought_end_before_what_may_be_another() {
    // 0: call 16; call 48; ret │ 16: jmp *0(,%rax,8); ret; nops │ 32: ret; nops │ 48: jmp 16
    let mut bytes = [0x90; 64];
    bytes[..11].copy_from_slice(&[0xe8, 11, 0, 0, 0, 0xe8, 38, 0, 0, 0, 0xc3]);
    bytes[16..24].copy_from_slice(&[0xff, 0x24, 0xc5, 0, 0, 0, 0, 0xc3]);
    bytes[32] = 0xc3;
    bytes[48..50].copy_from_slice(&[0xeb, 0xde]);
    let text = [Segment { start: Pc(TEXT), bytes: &bytes }];
    let extent = |start, end| Extent { start: Pc(TEXT + start), end: Pc(TEXT + end) };
    let found = discover(&text, &[extent(0, 11)], &[]);
    // A case follows the jump through the table; what begins at 32 is nobody's.
    assert_eq!(found.extents, [extent(0, 11), extent(16, 24), extent(48, 50)]);
}

#[test]
fn functions_that_were_sought_end_before_what_is_no_code() {
    // 0: call 18; ret │ 18: ret; zeros, and an instruction that is none
    let mut bytes = [0x90; 32];
    bytes[..6].copy_from_slice(&[0xe8, 13, 0, 0, 0, 0xc3]);
    bytes[18..25].copy_from_slice(&[0xc3, 0, 0, 0, 0xc0, 0x06, 0x06]);
    let text = [Segment { start: Pc(TEXT), bytes: &bytes }];
    let extent = |start, end| Extent { start: Pc(TEXT + start), end: Pc(TEXT + end) };
    assert_eq!(discover(&text, &[extent(0, 6)], &[]).extents, [extent(0, 6), extent(18, 19)]);
}

#[test]
fn functions_that_were_sought_end_early_where_no_jump_has_room() {
    // 0: call 17; call 24; ret │ 17: ret │ 18: mov (%rdi),%eax; ret │ 24: je 27; ret; 27: inc; inc; ret
    let mut bytes = [0x90; 48];
    bytes[..11].copy_from_slice(&[0xe8, 12, 0, 0, 0, 0xe8, 14, 0, 0, 0, 0xc3]);
    bytes[17..21].copy_from_slice(&[0xc3, 0x8b, 0x07, 0xc3]);
    bytes[24..32].copy_from_slice(&[0x74, 0x01, 0xc3, 0xff, 0xc0, 0xff, 0xc0, 0xc3]);
    let text = [Segment { start: Pc(TEXT), bytes: &bytes }];
    let extent = |start, end| Extent { start: Pc(TEXT + start), end: Pc(TEXT + end) };
    let found = discover(&text, &[extent(0, 11)], &[]).extents;
    assert_eq!(found, [extent(0, 11), extent(17, 18), extent(24, 32)]);
}

#[test]
fn no_function_is_sought_in_a_very_large_text() {
    let mut bytes = vec![0x90; (16 << 20) + 16];
    bytes[..6].copy_from_slice(&[0xe8, 3, 0, 0, 0, 0xc3]);
    let text = [Segment { start: Pc(TEXT), bytes: &bytes }];
    let first = Extent { start: Pc(TEXT), end: Pc(TEXT + 6) };
    let found = discover(&text, &[first], &[]);
    assert_eq!((found.extents.as_slice(), found.are_all), (&[first][..], false));
}

#[test]
fn groups_of_many_parts_and_much_code_are_refused() {
    // Each function jumps into the middle of the next.
    let part = 1 << 16;
    let cut = |parts: usize| -> (Vec<u8>, Vec<u64>) {
        let mut bytes = vec![0x90; parts * part];
        for start in (0..parts - 1).map(|number| number * part) {
            bytes[start..start + 5].copy_from_slice(&[0xe9, 16, 0, 1, 0]);
        }
        (bytes, (1..parts as u64).map(|number| number * part as u64).collect())
    };
    let (bytes, cuts) = cut(20);
    assert_eq!(reason(&bytes, &cuts), Some(SkipReason::Unsuitable));
    let (bytes, cuts) = cut(16);
    assert_eq!(reason(&bytes, &cuts), None);
}

#[test]
fn a_short_function_has_the_padding_behind_it() {
    // 0: mov (%rdi),%eax; ret; nops │ 16: ret, cut off by the next function │ 18: ret
    let mut bytes = [0x90; 32];
    bytes[..3].copy_from_slice(&[0x8b, 0x07, 0xc3]);
    (bytes[16], bytes[18]) = (0xc3, 0xc3);
    let extent = |start, end| Extent { start: Pc(TEXT + start), end: Pc(TEXT + end) };
    let module = Module {
        text: vec![Segment { start: Pc(TEXT), bytes: &bytes }],
        constants: Vec::new(),
        extents: vec![extent(0, 3), extent(16, 17), extent(18, 19)],
        callees: Callees::default(),
    };
    assert_eq!([0, 1, 2].map(|index| entry_room(&module, index)), [16, 2, 14]);
}

#[test]
fn tables_in_the_text_are_not_taken_for_calls() {
    // 0: jmp *%rcx │ 16: a table whose bytes read `call 8` │ 40: ret
    let mut bytes = [0x90; 64];
    bytes[..2].copy_from_slice(&[0xff, 0xe1]);
    bytes[16..21].copy_from_slice(&[0xe8, 0xf3, 0xff, 0xff, 0xff]);
    bytes[40] = 0xc3;
    let text = [Segment { start: Pc(TEXT), bytes: &bytes }];
    let first = Extent { start: Pc(TEXT), end: Pc(TEXT + 2) };
    let last = Extent { start: Pc(TEXT + 40), end: Pc(TEXT + 41) };
    assert_eq!(discover(&text, &[first, last], &[]).extents, [first, last]);
}

/// Every function has this landing pad, or it is not known where they are.
struct Landing(Option<Pc>);
impl Resolver for Landing {
    fn call_target(&self, _: Pc) -> CallTarget {
        CallTarget::Original
    }

    fn landing_pads(&self, _: Extent) -> Option<Vec<Pc>> {
        self.0.map(|pad| vec![pad])
    }
}

#[test]
fn what_a_landing_pad_reads_lives_up_to_the_throw() {
    // push rbx; mov rbx,rdi; mov rdi,rbx; mov rax,[rsi]; call [rax]; pop rbx; ret; 14: mov rdi,rbx; 17: ud2
    let mut bytes = vec![0x53, 0x48, 0x89, 0xfb, 0x48, 0x89, 0xdf, 0x48, 0x8b, 0x06, 0xff, 0x10, 0x5b, 0xc3];
    bytes.extend([0x48, 0x89, 0xdf, 0x0f, 0x0b]);
    bytes.resize(0x40, 0xcc);
    let module = module(&bytes, &[0x20]);
    let config = Config { stress: Stress::On, ..config() };
    let copy = |pad: Option<u64>| {
        translate(&config, &module, 0, &Landing(pad.map(|pad| Pc(TEXT + pad))), PLACE)
            .copy
            .map(|blob| disassemble(&blob.bytes, PLACE.code.0, "landing"))
            .map_err(|skip| skip.reason)
    };
    let spoils_rbx = |text: &str| text.lines().any(|line| line.contains("rbx,0x") || line.contains("ebx,0x"));
    assert!(!spoils_rbx(&copy(Some(0x0e)).expect("translatable")));
    // In another function, which may read anything.
    assert!(!spoils_rbx(&copy(Some(0x30)).expect("translatable")));
    // At the end of the function, which reads nothing.
    let unread = copy(Some(0x0c)).expect("translatable");
    assert!(spoils_rbx(&unread), "{unread}");
    assert_eq!(copy(Some(0x0f)), Err(SkipReason::JumpIntoInstruction));
    assert_eq!(copy(None), Err(SkipReason::Unsuitable));
}
