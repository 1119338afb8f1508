//! Runs copies: a C library is compiled, each of its functions translated, and what the copies compute compared
//! with what the originals do; bad accesses must be reported, each once, and no good one.
//!
//! The oracle is the processor. Stress mode is on in half of the runs, so that a register or flag that is wrongly
//! called dead shows in the results.

use std::{
    arch::{asm, global_asm},
    cell::UnsafeCell,
    collections::BTreeMap,
    ffi::{CString, c_char, c_int, c_void},
    fs,
    path::PathBuf,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use memcheck_model::{Addr, Pc};
use memcheck_rewrite::{
    CallTarget, Callees, Cell, Checks, CodeBlob, Config, Extent, Module, PRELUDE_BYTES, Place, Processor,
    RANGE_SLOT, Resolver, SPILL_SLOTS, Segment, Stress, Syscalls, describe_report, prelude, translate,
};

unsafe extern "C" {
    fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn mmap(at: *mut c_void, len: usize, prot: c_int, flags: c_int, fd: c_int, offset: i64) -> *mut c_void;
}

const SHADOW: u64 = 0x7fff_8000;
const HEAP: u64 = 0x2000_0000_0000;
const HEAP_BYTES: u64 = 1 << 20;
const ANONYMOUS_FIXED: c_int = 0x2 | 0x20 | 0x4000 | 0x10_0000;

static REPORTS: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];

// Notes each report as (return address, address) and goes on behind it.
global_asm!(
    ".globl test_report_entry",
    "test_report_entry:",
    "pushfq",
    "push rax",
    "push rcx",
    "push rdx",
    "lea rax, [rip + {reports}]",
    "mov rcx, [rax]",
    "add qword ptr [rax], 1",
    "cmp rcx, 30",
    "ja 2f",
    "add rcx, rcx",
    "mov rdx, [rsp + 32]",
    "mov [rax + rcx*8 + 8], rdx",
    "mov rdx, [rsp + 40]",
    "mov [rax + rcx*8 + 16], rdx",
    "2: mov rdx, [rsp + 32]",
    "add rdx, 10",
    "mov [rsp + 40], rdx",
    "pop rdx",
    "pop rcx",
    "pop rax",
    "popfq",
    "lea rsp, [rsp + 8]",
    "ret 128",
    reports = sym REPORTS,
);

unsafe extern "C" {
    fn test_report_entry();
}

thread_local! {
    static SPILL: UnsafeCell<[u64; SPILL_SLOTS]> = const { UnsafeCell::new([0; SPILL_SLOTS]) };
}

fn spill_offset() -> i32 {
    let thread: u64;
    // SAFETY: fs:0 holds the thread pointer (psABI 3.4.2).
    unsafe { asm!("mov {}, fs:0", out(reg) thread, options(nostack, readonly, pure)) };
    let offset = SPILL.with(|slots| slots.get() as u64).wrapping_sub(thread).cast_signed();
    i32::try_from(offset).expect("a test binary's thread-locals are near the thread pointer")
}

fn map_at(at: u64, bytes: u64, prot: c_int) {
    // SAFETY: a new mapping where nothing is (MAP_FIXED_NOREPLACE).
    let got = unsafe { mmap(at as *mut c_void, bytes as usize, prot, ANONYMOUS_FIXED, -1, 0) };
    assert_eq!(got as u64, at, "the address is free");
}

fn write(at: u64, bytes: &[u8]) {
    // SAFETY: callers write to mappings of `map_at` only.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), at as *mut u8, bytes.len()) };
}

fn poison(from: u64, to: u64) {
    for granule in from / 8..to / 8 {
        write(SHADOW + granule, &[0xf1]);
    }
}

/// A block of `size` bytes whose surroundings are poisoned; its address is `align` above a multiple of 64.
fn block(size: u64) -> u64 {
    let start = HEAP + 4096;
    poison(HEAP, HEAP + 16384);
    for granule in 0..size / 8 {
        write(SHADOW + start / 8 + granule, &[0]);
    }
    if !size.is_multiple_of(8) {
        write(SHADOW + (start + size) / 8, &[(size % 8) as u8]);
    }
    start
}

struct Slots(BTreeMap<u64, u64>);

impl Resolver for Slots {
    fn call_target(&self, entry: Pc) -> CallTarget {
        self.0.get(&entry.0).map_or(CallTarget::Original, |&slot| CallTarget::Slot(Addr(slot)))
    }
}

/// A compiled library and the copies of its functions.
struct Library {
    originals: BTreeMap<String, u64>,
    copies: BTreeMap<String, u64>,
    blobs: Vec<(u64, CodeBlob)>,
}

impl Library {
    fn build(name: &str, source: &str, flags: &[&str], stress: Stress) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let (c, so) = (folder.join(format!("{name}.c")), folder.join(format!("{name}.so")));
        fs::write(&c, source).unwrap();
        let status = Command::new("gcc")
            .args(["-shared", "-fPIC", "-fno-builtin", "-w", "-o"])
            .arg(&so)
            .args(flags)
            .arg(&c)
            .status();
        assert!(status.expect("gcc runs").success());
        let path = CString::new(so.to_str().unwrap()).unwrap();
        // SAFETY: the library was just made and has no constructors of its own.
        let handle = unsafe { dlopen(path.as_ptr(), 2) };
        assert!(!handle.is_null());
        let file = fs::read(&so).unwrap();
        let elf = goblin::elf::Elf::parse(&file).unwrap();
        let functions: Vec<_> =
            elf.syms.iter().filter(|symbol| symbol.is_function() && symbol.st_size > 0).collect();
        let named = |symbol: &goblin::elf::Sym| elf.strtab.get_at(symbol.st_name).unwrap().to_owned();
        let dynamic = elf.dynsyms.iter().find(|symbol| symbol.is_function() && symbol.st_size > 0).unwrap();
        let first = CString::new(elf.dynstrtab.get_at(dynamic.st_name).unwrap()).unwrap();
        // SAFETY: the handle is open.
        let actual = unsafe { dlsym(handle, first.as_ptr()) } as u64;
        let bias = actual - dynamic.st_value;
        let segments = |executable: bool| -> Vec<Segment<'_>> {
            elf.program_headers
                .iter()
                .filter(|header| {
                    header.p_type == 1 && header.is_executable() == executable && !header.is_write()
                })
                .map(|header| Segment { start: Pc(bias + header.p_vaddr), bytes: &file[header.file_range()] })
                .collect()
        };
        let mut extents: Vec<Extent> = functions
            .iter()
            .map(|symbol| bias + symbol.st_value)
            .zip(functions.iter().map(|symbol| symbol.st_size))
            .map(|(start, size)| Extent { start: Pc(start), end: Pc(start + size) })
            .collect();
        extents.sort_unstable();
        extents.dedup_by_key(|extent| extent.start);
        let text = segments(true);
        let (text_start, text_bytes) = (text[0].start.0, text[0].bytes.len() as u64);
        let module = Module { text, constants: segments(false), extents, callees: Callees::default() };
        // The arena: prelude, slots, code; somewhere free below the library.
        let mut arena = (bias & !0xffff) - 0x1000_0000;
        arena -= arena % 0x10_0000;
        // SAFETY: a hint only; the kernel chooses a free place, which is checked to be in reach.
        let arena = unsafe { mmap(arena as *mut c_void, 16 << 20, 7, 0x4022, -1, 0) } as u64;
        assert!(bias.abs_diff(arena) < 1 << 30, "the arena is within reach");
        let map = arena + (8 << 20);
        let config = Config {
            shadow_base: SHADOW as u32,
            spill_offset: spill_offset(),
            checks: Checks::On,
            stress,
            syscalls: Syscalls::Native,
            processor: if std::is_x86_feature_detected!("bmi2") && stress == Stress::Off {
                Processor::Bmi2
            } else {
                Processor::Baseline
            },
        };
        let mut cells = [0; 8];
        cells[Cell::Report as usize] = test_report_entry as *const () as u64;
        cells[Cell::TextStart as usize] = text_start;
        cells[Cell::TextBytes as usize] = text_bytes;
        cells[Cell::JumpMap as usize] = map;
        cells[Cell::Base as usize] = arena;
        write(arena, &prelude(&config, cells));
        let mut next_slot = arena + PRELUDE_BYTES as u64;
        let mut slots = Slots(BTreeMap::new());
        for extent in &module.extents {
            slots.0.insert(extent.start.0, next_slot);
            write(next_slot, &extent.start.0.to_le_bytes());
            next_slot += 8;
        }
        let mut code = (next_slot + 4095) & !4095;
        let mut library = Self { originals: BTreeMap::new(), copies: BTreeMap::new(), blobs: Vec::new() };
        let mut copies = BTreeMap::new();
        for entry in 0..module.extents.len() {
            if copies.contains_key(&module.extents[entry].start.0) {
                continue;
            }
            let place = Place { code: Addr(code), prelude: Addr(arena) };
            let blob = translate(&config, &module, entry, &slots, place)
                .copy
                .expect("compiled code is translatable");
            write(code, &blob.bytes);
            for &(original, offset) in &blob.entries {
                copies.insert(original.0, code + u64::from(offset));
                write(slots.0[&original.0], &(code + u64::from(offset)).to_le_bytes());
            }
            for &(original, offset) in &blob.jump_targets {
                let value = (code - arena) as u32 + offset;
                write(map + 4 * (original.0 - text_start), &value.to_le_bytes());
            }
            let len = blob.bytes.len() as u64;
            library.blobs.push((code, blob));
            code += (len + 31) & !15;
        }
        for symbol in &functions {
            library.originals.insert(named(symbol), bias + symbol.st_value);
            library.copies.insert(named(symbol), copies[&(bias + symbol.st_value)]);
        }
        library
    }

    fn call(&self, copy: bool, name: &str, args: [u64; 3]) -> u64 {
        let at = if copy { self.copies[name] } else { self.originals[name] };
        // SAFETY: the fixtures' functions take up to three words and return one.
        let function: extern "C" fn(u64, u64, u64) -> u64 = unsafe { core::mem::transmute(at) };
        REPORTS[0].store(0, Ordering::SeqCst);
        function(args[0], args[1], args[2])
    }

    /// The reports of the last call: original PC, address, size (of ranges, the last one's).
    fn reports(&self) -> Vec<(Pc, u64, u64)> {
        let count = REPORTS[0].load(Ordering::SeqCst) as usize;
        (0..count.min(30))
            .map(|index| {
                let [ret, addr] = [1, 2].map(|word| REPORTS[2 * index + word].load(Ordering::SeqCst));
                let (start, blob) = self
                    .blobs
                    .iter()
                    .find(|(at, blob)| ret > *at && ret - at < blob.bytes.len() as u64)
                    .unwrap();
                let offset = (ret - start) as usize;
                let after: [u8; 10] = blob.bytes[offset..offset + 10].try_into().unwrap();
                let report = describe_report(&after);
                let origin = blob.pc_map.find_origin(offset as u32).unwrap();
                // SAFETY: copies run in calls only, and none runs now.
                let in_slot = || SPILL.with(|slots| unsafe { (*slots.get())[RANGE_SLOT] });
                (origin.pc, addr, report.size_bytes.unwrap_or_else(in_slot))
            })
            .collect()
    }
}

/// One test at a time: shadow, heap and reports are shared. Maps both the first time.
fn exclusive() -> std::sync::MutexGuard<'static, bool> {
    static LOCK: Mutex<bool> = Mutex::new(false);
    let mut mapped = LOCK.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !*mapped {
        map_at(SHADOW & !4095, (1 << 44) + 4096, 3);
        map_at(HEAP, HEAP_BYTES, 3);
        *mapped = true;
    }
    mapped
}

const PROGRAM: &str = include_str!("execute/program.c");

#[test]
fn copies_compute_what_originals_do() {
    let _guard = exclusive();
    for (number, flags) in [
        &["-O0"][..],
        &["-O1"],
        &["-O2"],
        &["-O3", "-march=native"],
        &["-Os", "-fcf-protection"],
        &["-O2", "-fno-jump-tables"],
    ]
    .into_iter()
    .enumerate()
    {
        for stress in [Stress::Off, Stress::On] {
            let name = format!("program{number}{}", u8::from(stress == Stress::On));
            let library = Library::build(&name, PROGRAM, flags, stress);
            for test in library.originals.keys().filter(|name| name.starts_with("test_")) {
                for seed in 0..20 {
                    library.call(false, "reset", [seed + 1, 0, 0]);
                    let native = library.call(false, test, [seed, seed * 77 + 3, 5]);
                    library.call(false, "reset", [seed + 1, 0, 0]);
                    let copied = library.call(true, test, [seed, seed * 77 + 3, 5]);
                    assert_eq!(native, copied, "{test}({seed}) at {flags:?} {stress:?}");
                    let reports = library.reports();
                    assert!(reports.is_empty(), "{test}({seed}) at {flags:?}: {reports:?}");
                }
            }
        }
    }
}

#[test]
fn each_bad_access_is_reported_once_and_no_good_one() {
    let _guard = exclusive();
    for (number, flags) in [&["-O0"][..], &["-O2"], &["-O3", "-march=native"]].into_iter().enumerate() {
        for stress in [Stress::Off, Stress::On] {
            let name = format!("matrix{number}{}", u8::from(stress == Stress::On));
            let library = Library::build(&name, include_str!("execute/access.c"), flags, stress);
            for size in 1..=64 {
                let start = block(size);
                for (width, form) in [
                    (1, ""),
                    (2, ""),
                    (4, ""),
                    (8, ""),
                    (10, ""),
                    (16, ""),
                    (32, ""),
                    (108, ""),
                    (1, "i"),
                    (4, "i"),
                    (8, "i"),
                ] {
                    for offset in -16..=size as i64 + 16 {
                        for function in [format!("load{form}{width}"), format!("store{form}{width}")] {
                            if !library.copies.contains_key(&function) {
                                continue;
                            }
                            let args = if form.is_empty() {
                                [start.wrapping_add_signed(offset), 7, 0]
                            } else {
                                [start, 7, offset as u64]
                            };
                            library.call(true, &function, args);
                            let bad = offset < 0 || offset + i64::from(width) > size as i64;
                            let reports = library.reports();
                            let what = format!(
                                "{function} at {offset} of {size}, {flags:?} {stress:?}: {reports:?}"
                            );
                            assert_eq!(!reports.is_empty(), bad, "{what}");
                            let is_in_parts =
                                width == 16 && flags[0] == "-O0" || width == 32 && flags.len() == 1;
                            if bad && !is_in_parts {
                                assert_eq!(reports.len(), 1, "{what}");
                                assert_eq!(reports[0].1, start.wrapping_add_signed(offset), "{what}");
                                assert_eq!(reports[0].2, u64::from(width as u32), "{what}");
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn loops_that_walk_off_an_array_are_told_of_each_element_outside() {
    let _guard = exclusive();
    let levels = [&["-O1"][..], &["-O2", "-fno-tree-vectorize"]];
    for (number, flags) in levels.into_iter().enumerate() {
        for stress in [Stress::Off, Stress::On] {
            let name = format!("walks{number}{}", u8::from(stress == Stress::On));
            let library = Library::build(&name, include_str!("execute/walks.c"), flags, stress);
            // What the limit becomes where the counter is very large.
            let least = i64::MIN.to_le_bytes();
            let walks = |(_, blob): &&(u64, CodeBlob)| blob.bytes.windows(8).any(|bytes| bytes == least);
            assert!(library.blobs.iter().filter(walks).count() >= 8, "{flags:?}");
            for size in (1..=40).chain([56, 64, 100, 256, 511, 1000, 4096, 4400, 8000]) {
                let start = block(size);
                for width in [1, 2, 4, 8] {
                    let fits = size / width;
                    for (form, step, counts) in [
                        ("sum", 1, [0, 1, fits / 2, fits.saturating_sub(1), fits, fits + 1, fits + 3]),
                        ("end", 1, [0, 1, fits / 2, fits.saturating_sub(1), fits, fits + 1, fits + 3]),
                        ("odd", 2, [0, 1, fits / 4, fits / 2, fits.div_ceil(2), fits / 2 + 1, fits / 2 + 3]),
                        ("two", 1, [0, 1, fits / 4, fits / 2, fits.div_ceil(2), fits / 2 + 1, fits / 2 + 3]),
                    ] {
                        for (count, shift) in counts.into_iter().flat_map(|count| [(count, 0), (count, 3)]) {
                            let at = start + shift;
                            library.call(true, &format!("{form}_uint{}_t", width * 8), [at, count, 0]);
                            let elements = if form == "two" { 2 * count } else { count };
                            let bad = (0..elements)
                                .map(|element| at + element * step * width)
                                .filter(|at| at + width > start + size);
                            let told = REPORTS[0].load(Ordering::SeqCst);
                            let mut reports: Vec<u64> =
                                library.reports().iter().map(|report| report.1).collect();
                            reports.sort_unstable();
                            let what = format!(
                                "{form} of {count} x {width} at {shift} in {size}, {flags:?} {stress:?}"
                            );
                            assert_eq!(told, bad.clone().count() as u64, "{what}: {reports:x?}");
                            if told <= 30 {
                                assert_eq!(reports, bad.collect::<Vec<u64>>(), "{what}");
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What `fields` of `access.c` reads: offsets and sizes.
const FIELDS: [(i64, u64); 5] = [(0, 4), (4, 8), (13, 2), (17, 1), (24, 8)];

#[test]
fn each_access_of_a_group_is_settled_on_its_own() {
    let _guard = exclusive();
    for (number, flags) in [&["-O0"][..], &["-O2"], &["-Os"]].into_iter().enumerate() {
        for stress in [Stress::Off, Stress::On] {
            let name = format!("fields{number}{}", u8::from(stress == Stress::On));
            let library = Library::build(&name, include_str!("execute/access.c"), flags, stress);
            for size in 1..=48 {
                let start = block(size);
                for offset in -40..=size as i64 + 8 {
                    library.call(true, "fields", [start.wrapping_add_signed(offset), 0, 0]);
                    let mut bad: Vec<(u64, u64)> = FIELDS
                        .iter()
                        .map(|&(at, width)| (offset + at, width))
                        .filter(|&(at, width)| at < 0 || at + width as i64 > size as i64)
                        .map(|(at, width)| (start.wrapping_add_signed(at), width))
                        .collect();
                    let mut told: Vec<(u64, u64)> =
                        library.reports().iter().map(|&(_, at, width)| (at, width)).collect();
                    told.sort_unstable();
                    bad.sort_unstable();
                    assert_eq!(told, bad, "{offset} in {size}, {flags:?} {stress:?}");
                }
            }
        }
    }
}

/// Builds the functions of `spans.c`, in and out of stress mode, for as much of the processor as there is.
fn spans() -> [Library; 2] {
    let flags: &[&str] =
        if std::is_x86_feature_detected!("avx512bw") && std::is_x86_feature_detected!("avx512vl") {
            &["-O2", "-mavx2", "-mavx512f", "-mavx512bw", "-mavx512vl"]
        } else if std::is_x86_feature_detected!("avx2") {
            &["-O2", "-mavx2"]
        } else {
            &["-O2"]
        };
    [(Stress::Off, "spans0"), (Stress::On, "spans1")]
        .map(|(stress, name)| Library::build(name, include_str!("execute/spans.c"), flags, stress))
}

#[test]
fn repeated_string_instructions_are_checked_as_far_as_they_go() {
    let _guard = exclusive();
    for library in spans() {
        let start = block(40);
        let repeated = [
            ("fill1", 1, true),
            ("fill2", 2, true),
            ("fill4", 4, true),
            ("fill8", 8, true),
            ("from1", 1, true),
            ("to4", 4, true),
            ("load8", 8, true),
            ("down1", 1, false),
            ("down8", 8, false),
        ];
        for (function, width, up) in repeated {
            for offset in -16..=56i64 {
                for count in 0..=60 / width {
                    let at = start.wrapping_add_signed(offset);
                    library.call(true, function, [at, count as u64, 0]);
                    let first = if up { offset } else { offset - width * (count - 1) };
                    let bad = count != 0 && (first < 0 || first + width * count > 40);
                    let reports = library.reports();
                    let what = format!("{function} of {count} at {offset}: {reports:?}");
                    assert_eq!(reports.len(), usize::from(bad), "{what}");
                    if bad {
                        assert_eq!(reports[0].1, start.wrapping_add_signed(first), "{what}");
                    }
                }
            }
        }
        // Searches read up to what they find.
        for wanted in 0..48u64 {
            for from in 0..8u64.min(wanted + 1) {
                library.call(false, "clear", [start - 16, 80, 0]);
                library.call(false, "put", [start + wanted, 0, 0]);
                library.call(true, "find1", [start + from, u64::MAX >> 20, 0]);
                assert_eq!(library.reports().len(), usize::from(wanted >= 40), "find {wanted} from {from}");
                library.call(true, "same1", [start + from, 60, 0]);
                assert_eq!(library.reports().len(), usize::from(wanted >= 40), "same {wanted} from {from}");
            }
            library.call(false, "clear", [start - 16, 80, 0]);
            library.call(false, "put", [start + wanted - 8, 0, 0]);
            library.call(true, "findback1", [start + 39, 1000, 0]);
            assert_eq!(library.reports().len(), usize::from(wanted < 8), "back to {wanted}");
        }
    }
}

#[test]
fn what_no_mask_spares_is_checked_whole() {
    let _guard = exclusive();
    for library in spans().iter().filter(|library| library.copies.contains_key("k4all")) {
        let start = block(100);
        for (mask, offset) in [0, 1, 0xffff].into_iter().flat_map(|mask| (0..100).map(move |at| (mask, at))) {
            library.call(true, "k4all", [start + offset, mask, 0]);
            let told: Vec<_> = library.reports().iter().map(|report| (report.1, report.2)).collect();
            let bad = (offset > 100 - 64).then_some((start + offset, 64));
            assert_eq!(told, Vec::from_iter(bad), "{mask:#x} at {offset}");
        }
    }
}

#[test]
fn bytes_that_al_numbers_are_checked_whatever_the_rest_of_rax_holds() {
    let _guard = exclusive();
    for library in spans() {
        let start = block(40);
        for number in 0..256u64 {
            for rest in [0, 0x100, 0xffff_ff00, 0x2000_0000_0000_0000] {
                let loaded = library.call(true, "byal", [start, number | rest, 0]);
                let native = library.call(false, "byal", [start, number | rest, 0]);
                assert_eq!(loaded, native, "{number} with {rest:#x}");
                library.call(true, "byal", [start, number | rest, 0]);
                let addresses: Vec<u64> = library.reports().iter().map(|report| report.1).collect();
                let bad = (number >= 40).then_some(start + number);
                assert_eq!(addresses, Vec::from_iter(bad), "{number} with {rest:#x}");
            }
        }
    }
}

/// Where an element of a masked access lies.
#[derive(Clone, Copy, Debug)]
enum Lies {
    Apart,
    Together,
    Every(i64),
}

#[test]
fn masked_accesses_touch_what_their_mask_selects() {
    let _guard = exclusive();
    let functions = [
        ("sign4load", 4, 8, Lies::Apart),
        ("sign4store", 4, 8, Lies::Apart),
        ("sign8load", 8, 4, Lies::Apart),
        ("sign8store", 8, 4, Lies::Apart),
        ("bytes1store", 1, 16, Lies::Apart),
        ("gather4", 4, 8, Lies::Every(8)),
        ("gather8", 8, 4, Lies::Every(16)),
        ("k1load", 1, 64, Lies::Apart),
        ("k1store", 1, 64, Lies::Apart),
        ("k2load", 2, 32, Lies::Apart),
        ("k4load", 4, 16, Lies::Apart),
        ("k4store", 4, 16, Lies::Apart),
        ("k4add", 4, 16, Lies::Apart),
        ("k8store", 8, 4, Lies::Apart),
        ("k4max", 4, 16, Lies::Apart),
        ("k1blend", 1, 64, Lies::Apart),
        ("k8fma", 8, 4, Lies::Apart),
        ("k4same", 4, 16, Lies::Every(0)),
        ("pack4load", 4, 16, Lies::Together),
        ("pack8store", 8, 8, Lies::Together),
        ("kgather4", 4, 16, Lies::Every(8)),
        ("kscatter8", 8, 8, Lies::Every(16)),
    ];
    for library in spans() {
        let start = block(45);
        for (function, width, count, lies) in functions {
            if !library.copies.contains_key(function) {
                continue;
            }
            let all = if count == 64 { u64::MAX } else { (1 << count) - 1 };
            let mut mask = 0x9e37_79b9_7f4a_7c15u64;
            for round in 0..600 {
                mask = mask.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                let offset = (mask >> 40) as i64 % 64 - 16;
                let selected = match round % 4 {
                    0 => mask >> 13,
                    1 => 1 << (mask >> 50 & (count - 1)),
                    2 => mask & mask >> 17 & mask >> 31,
                    _ => 0,
                } & all;
                let element = |number: u64, rank: i64| match lies {
                    Lies::Apart => number as i64 * width,
                    Lies::Together => rank * width,
                    Lies::Every(step) => number as i64 * step,
                };
                let first_bad = (0..count)
                    .filter(|number| selected >> number & 1 != 0)
                    .zip(0..)
                    .map(|(number, rank)| offset + element(number, rank))
                    .find(|&at| at < 0 || at + width > 45);
                library.call(true, function, [start.wrapping_add_signed(offset), selected, 0]);
                let reports: Vec<_> = library.reports().iter().map(|report| (report.1, report.2)).collect();
                let expected: Vec<_> =
                    first_bad.map(|at| (start.wrapping_add_signed(at), width as u64)).into_iter().collect();
                assert_eq!(reports, expected, "{function} at {offset} of {selected:#x}");
            }
        }
    }
}
