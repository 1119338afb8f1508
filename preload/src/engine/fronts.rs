//! Checked fronts for libc's string and memory functions.
//!
//! Most of these read whole vectors beyond what they were given, on purpose, so their copies have no checks (see
//! `native`). A front stands before each: the function's slot leads to it, whoever calls the function (through the
//! PLT, from inside libc, or by pointer). It has the function's own copy do the work, and checks the bytes that the
//! function's definition has it touch: what is read after the call, when the result tells how far that went; what is
//! written before.
//!
//! ```text
//!  slot ─▶ entry (hands its caller's frame on) ─▶ body ─▶ original: the function's thunk, later its unchecked copy
//!                                                  └────▶ shadow; only for an error: the report gate
//! ```
//! Strings and areas of up to 16 bytes, which most are, a front looks at, compares or copies itself.
//!
//! A string that ends nowhere in its block is reported at the first byte outside. What a comparison reads ends with
//! the first difference. Source and destination that overlap are reported where the C standard forbids it, under the
//! name that the program called.
//!
//! May run in any thread and in signal handlers, on small stacks; no lock, no allocation, no system call and no
//! thread-local storage but for an error, which is handled on the report gate's stack. `errno` is not touched.

pub mod called_name;
mod chk;
mod comparing;
mod mem;
mod reading;
mod scan;
mod text;
mod writing;

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use memcheck_model::{
    Access, AccessKind, Addr, AddrRange, Detail, ErrorEvent, ErrorKind, Function, MAX_FRAMES, Pc, Size,
    ThreadId,
};
use memcheck_rewrite::Module;
use memcheck_shadow::SHORT_BYTES;

use super::{gate, image::Image, shadow_map, slow_path};
use crate::{
    channel, heap,
    lifecycle::parts,
    stacks::{self, Caller},
    sys::process,
};

/// More than any block: where a size is larger (it was negative), its first bytes say what is wrong.
const MOST_BYTES: u64 = 1 << 40;
const HEAD_BYTES: u64 = 1 << 20;

/// A function of libc and what stands before it.
pub struct Front {
    /// Its names in libc's symbol table.
    names: &'static [&'static [u8]],
    /// Where its slot leads.
    entry: unsafe extern "C" fn(),
    /// Its thunk, later its unchecked copy.
    original: AtomicU64,
}

impl Front {
    /// Where calls of the function go.
    pub fn entry(&self) -> Addr {
        Addr(self.entry as *const () as u64)
    }

    /// Where the front goes on.
    pub fn original(&self) -> &AtomicU64 {
        &self.original
    }

    /// Calls the function itself.
    #[inline]
    fn call1(&self, a: u64) -> u64 {
        let address = self.original.load(Ordering::Acquire);
        // SAFETY: `install` set the address, before any slot led to a front, to the thunk of libc's function of that name;
        // all of them take and give words. What the arguments point to is the target's to answer for.
        let function: extern "C" fn(u64) -> u64 = unsafe { core::mem::transmute(address) };
        function(a)
    }

    #[inline]
    fn call2(&self, a: u64, b: u64) -> u64 {
        let address = self.original.load(Ordering::Acquire);
        // SAFETY: as in `call1`.
        let function: extern "C" fn(u64, u64) -> u64 = unsafe { core::mem::transmute(address) };
        function(a, b)
    }

    #[inline]
    fn call3(&self, a: u64, b: u64, c: u64) -> u64 {
        let address = self.original.load(Ordering::Acquire);
        // SAFETY: as in `call1`.
        let function: extern "C" fn(u64, u64, u64) -> u64 = unsafe { core::mem::transmute(address) };
        function(a, b, c)
    }

    #[inline]
    fn call4(&self, a: u64, b: u64, c: u64, d: u64) -> u64 {
        let address = self.original.load(Ordering::Acquire);
        // SAFETY: as in `call1`.
        let function: extern "C" fn(u64, u64, u64, u64) -> u64 = unsafe { core::mem::transmute(address) };
        function(a, b, c, d)
    }
}

/// The registers after those of the arguments, for the caller's stack and frame pointer.
macro_rules! sp_register {
    (one) => {
        "rsi"
    };
    (two) => {
        "rdx"
    };
    (three) => {
        "rcx"
    };
    (four) => {
        "r8"
    };
}
macro_rules! bp_register {
    (one) => {
        "rdx"
    };
    (two) => {
        "rcx"
    };
    (three) => {
        "r8"
    };
    (four) => {
        "r9"
    };
}

/// `NAME arguments body = "symbol" …`: the body takes as many words, then the caller's stack pointer at the entry and
/// its frame pointer.
macro_rules! fronts {
    ($($id:ident $arguments:ident $body:path = $($name:literal)+;)*) => {
        $(static $id: Front = Front {
            names: &[$($name),+],
            entry: {
                #[unsafe(naked)]
                unsafe extern "C" fn entry() {
                    core::arch::naked_asm!(
                        concat!("mov ", sp_register!($arguments), ", rsp"),
                        concat!("mov ", bp_register!($arguments), ", rbp"),
                        "jmp {body}",
                        body = sym $body,
                    )
                }
                entry
            },
            original: AtomicU64::new(0),
        };)*
        /// All fronts.
        static ALL: &[&Front] = &[$(&$id),*];
    };
}

fronts! {
    STRLEN one reading::strlen = b"strlen";
    STRNLEN two reading::strnlen = b"strnlen" b"__strnlen";
    WCSLEN one reading::wcslen = b"wcslen";
    WCSNLEN two reading::wcsnlen = b"wcsnlen";
    STRCHR two reading::strchr = b"strchr" b"index";
    STRCHRNUL two reading::strchrnul = b"strchrnul";
    STRRCHR two reading::strrchr = b"strrchr" b"rindex";
    WCSCHR two reading::wcschr = b"wcschr";
    WCSRCHR two reading::wcsrchr = b"wcsrchr";
    MEMCHR three reading::memchr = b"memchr";
    WMEMCHR three reading::wmemchr = b"wmemchr";
    MEMRCHR three reading::memrchr = b"memrchr";
    RAWMEMCHR two reading::rawmemchr = b"rawmemchr" b"__rawmemchr";
    STRSPN two reading::strspn = b"strspn";
    STRCSPN two reading::strcspn = b"strcspn";
    STRPBRK two reading::strpbrk = b"strpbrk";
    STRSTR two reading::strstr = b"strstr";
    STRCASESTR two reading::strcasestr = b"strcasestr" b"__strcasestr";
    STRDUP one reading::strdup = b"strdup" b"__strdup";
    STRNDUP two reading::strndup = b"strndup" b"__strndup";
    STRCMP two comparing::strcmp = b"strcmp";
    STRNCMP three comparing::strncmp = b"strncmp";
    STRCASECMP two comparing::strcasecmp = b"strcasecmp" b"__strcasecmp";
    STRNCASECMP three comparing::strncasecmp = b"strncasecmp";
    STRCASECMP_L three comparing::strcasecmp_l = b"strcasecmp_l" b"__strcasecmp_l";
    STRNCASECMP_L four comparing::strncasecmp_l = b"strncasecmp_l" b"__strncasecmp_l";
    WCSCMP two comparing::wcscmp = b"wcscmp";
    WCSNCMP three comparing::wcsncmp = b"wcsncmp";
    MEMCMP three comparing::memcmp = b"memcmp" b"bcmp";
    MEMCMPEQ three comparing::memcmpeq = b"__memcmpeq";
    WMEMCMP three comparing::wmemcmp = b"wmemcmp";
    MEMMOVE three mem::memmove = b"memmove" b"memcpy";
    MEMPCPY three mem::mempcpy = b"mempcpy" b"__mempcpy";
    MEMSET three mem::memset = b"memset";
    BZERO two mem::bzero = b"bzero" b"__bzero";
    BCOPY three mem::bcopy = b"bcopy";
    MEMCCPY four mem::memccpy = b"memccpy" b"__memccpy";
    WMEMSET three mem::wmemset = b"wmemset";
    WMEMCPY three mem::wmemcpy = b"wmemcpy";
    WMEMMOVE three mem::wmemmove = b"wmemmove";
    WMEMPCPY three mem::wmempcpy = b"wmempcpy";
    STRCPY two writing::strcpy = b"strcpy";
    STPCPY two writing::stpcpy = b"stpcpy" b"__stpcpy";
    STRNCPY three writing::strncpy = b"strncpy";
    STPNCPY three writing::stpncpy = b"stpncpy" b"__stpncpy";
    STRCAT two writing::strcat = b"strcat";
    STRNCAT three writing::strncat = b"strncat";
    WCSCPY two writing::wcscpy = b"wcscpy";
    WCPCPY two writing::wcpcpy = b"wcpcpy";
    WCSNCPY three writing::wcsncpy = b"wcsncpy";
    WCPNCPY three writing::wcpncpy = b"wcpncpy";
    WCSCAT two writing::wcscat = b"wcscat";
    WCSNCAT three writing::wcsncat = b"wcsncat";
    MEMMOVE_CHK four chk::memmove = b"__memmove_chk" b"__memcpy_chk";
    MEMPCPY_CHK four chk::mempcpy = b"__mempcpy_chk";
    MEMSET_CHK four chk::memset = b"__memset_chk";
    WMEMSET_CHK four chk::wmemset = b"__wmemset_chk";
    WMEMCPY_CHK four chk::wmemcpy = b"__wmemcpy_chk";
    WMEMMOVE_CHK four chk::wmemmove = b"__wmemmove_chk";
    WMEMPCPY_CHK four chk::wmempcpy = b"__wmempcpy_chk";
    STRCPY_CHK three chk::strcpy = b"__strcpy_chk";
    STPCPY_CHK three chk::stpcpy = b"__stpcpy_chk";
    STRNCPY_CHK four chk::strncpy = b"__strncpy_chk";
    STPNCPY_CHK four chk::stpncpy = b"__stpncpy_chk";
    STRCAT_CHK three chk::strcat = b"__strcat_chk";
    STRNCAT_CHK four chk::strncat = b"__strncat_chk";
    WCSCPY_CHK three chk::wcscpy = b"__wcscpy_chk";
    WCPCPY_CHK three chk::wcpcpy = b"__wcpcpy_chk";
    WCSNCPY_CHK four chk::wcsncpy = b"__wcsncpy_chk";
    WCPNCPY_CHK four chk::wcpncpy = b"__wcpncpy_chk";
    WCSCAT_CHK three chk::wcscat = b"__wcscat_chk";
    WCSNCAT_CHK four chk::wcsncat = b"__wcsncat_chk";
}

/// What the bodies of others call.
static NEEDED: &[&Front] =
    &[&STRLEN, &STRNLEN, &WCSLEN, &WCSNLEN, &MEMCHR, &MEMMOVE, &MEMSET, &STRNCASECMP, &STRNCASECMP_L];

/// Whether a libc has its fronts: what they go on to is one libc's.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// A function of libc that has a front.
#[derive(Clone, Copy)]
pub struct Fronted {
    /// The index of its extent.
    pub function: usize,
    /// Its front.
    pub front: &'static Front,
}

/// Which functions have fronts.
#[derive(Default)]
pub struct Fronts {
    /// The functions that fronts go on to, each front once: sorted by function.
    pub originals: Vec<Fronted>,
    /// Other versions of these (an old `memcpy` that allows overlaps), which only lead to the front.
    pub versions: Vec<Fronted>,
}

/// The functions of libc that have fronts. None for a second libc or for one that lacks what fronts need. Before
/// entries are overwritten: calls resolvers.
pub fn find(image: &Image, module: &Module<'_>) -> Fronts {
    let Some(symbols) = image.symbols() else { return Fronts::default() };
    let mut found = Vec::new();
    for (place, front) in ALL.iter().enumerate() {
        for symbol in front.names.iter().flat_map(|name| symbols.find(name)) {
            let entry = if symbol.is_ifunc() {
                super::native::resolve(image, symbol)
            } else if symbol.is_function() {
                image.actual(symbol)
            } else {
                continue;
            };
            if let Some(function) = module.find_function(entry) {
                found.push((place, !symbol.is_ifunc(), function));
            }
        }
    }
    // Indirect functions first: they are what programs are linked with today.
    found.sort_unstable();
    let mut fronts = Fronts::default();
    for (place, _, function) in found {
        let fronted = Fronted { function, front: ALL[place] };
        match fronts.originals.last() {
            Some(last) if core::ptr::eq(last.front, fronted.front) => fronts.versions.push(fronted),
            _ => fronts.originals.push(fronted),
        }
    }
    let is_original = |function| fronts.originals.iter().any(|original| original.function == function);
    let versions = fronts.versions.iter().filter(|version| !is_original(version.function)).copied().collect();
    fronts.versions = versions;
    let is_found = |needed: &&Front| fronts.originals.iter().any(|found| core::ptr::eq(found.front, *needed));
    if !NEEDED.iter().all(is_found) || IS_TAKEN.swap(true, Ordering::AcqRel) {
        return Fronts::default();
    }
    fronts.originals.sort_by_key(|found| found.function);
    fronts
}

/// One call of a function by the target.
#[derive(Clone, Copy, Debug)]
struct Call {
    function: Function,
    caller: Caller,
}

/// Until where an access goes that is refused.
#[derive(Clone, Copy, Debug)]
enum Extent {
    /// As far as the arguments said.
    Told,
    /// Until a terminator, so that the first element outside is the last to be told of. Elements have this many bytes.
    Terminated(u64),
}

/// An error, for the gate's stack.
enum Request {
    /// An access that must not be, and its first bad byte.
    Bad(Call, Access, Addr),
    /// Overlapping arguments.
    Overlap { call: Call, destination: u64, source: u64, bytes: u64 },
}

impl Call {
    #[inline]
    fn new(function: Function, entry_sp: u64, bp: u64) -> Self {
        Self { function, caller: Caller { entry_sp, bp } }
    }

    /// The call reads `bytes` bytes from `start`, as its arguments say.
    #[inline]
    fn reads(&self, start: u64, bytes: u64) {
        self.touches(AccessKind::Read, start, bytes, Extent::Told);
    }

    /// The call reads `bytes` bytes from `start` because no element before, of `unit` bytes each, ended it.
    #[inline]
    fn reads_until(&self, start: u64, bytes: u64, unit: u64) {
        self.touches(AccessKind::Read, start, bytes, Extent::Terminated(unit));
    }

    /// The call writes `bytes` bytes from `start`.
    #[inline]
    fn writes(&self, start: u64, bytes: u64) {
        self.touches(AccessKind::Write, start, bytes, Extent::Told);
    }

    #[inline(always)]
    fn touches(&self, kind: AccessKind, start: u64, bytes: u64, extent: Extent) {
        if bytes > SHORT_BYTES {
            self.touches_many(kind, start, bytes, extent);
        } else if !shadow_map::is_clean_short(Addr(start), bytes) {
            self.refuse(kind, start, bytes, bytes, extent);
        }
    }

    #[inline(never)]
    fn touches_many(&self, kind: AccessKind, start: u64, bytes: u64, extent: Extent) {
        let looked_at = if bytes > MOST_BYTES { HEAD_BYTES } else { bytes };
        if let Some(range) = AddrRange::new(Addr(start), Size(looked_at))
            && !shadow_map::is_clean(range)
        {
            self.refuse(kind, start, looked_at, bytes, extent);
        }
    }

    #[cold]
    #[inline(never)]
    fn refuse(&self, kind: AccessKind, start: u64, looked_at: u64, bytes: u64, extent: Extent) {
        let Some(range) = AddrRange::new(Addr(start), Size(looked_at)) else { return };
        // Another thread may have changed it since.
        let Some(bad) = shadow_map::find_bad(range) else { return };
        let size = match extent {
            Extent::Told => bytes,
            Extent::Terminated(unit) => (bad.0 - range.start().0) / unit * unit + unit,
        };
        let access = Access { kind, addr: range.start(), size: Size(size) };
        let request = Request::Bad(*self, access, bad);
        gate::report_front(&raw const request as u64);
    }

    /// The call copies between these; the C standard says that they must not overlap.
    #[inline]
    fn must_be_apart(&self, destination: (u64, u64), source: (u64, u64)) {
        let overlap = destination.0 < source.0.wrapping_add(source.1)
            && source.0 < destination.0.wrapping_add(destination.1);
        if overlap && destination.1 != 0 && source.1 != 0 {
            self.refuse_overlap(destination.0, source.0, destination.1.max(source.1));
        }
    }

    #[cold]
    #[inline(never)]
    fn refuse_overlap(&self, destination: u64, source: u64, bytes: u64) {
        if self.function == Function::Memmove && called_name::is_known_to_allow(self.caller) {
            return;
        }
        let request = Request::Overlap { call: *self, destination, source, bytes };
        gate::report_front(&raw const request as u64);
    }

    /// As the program named the function.
    fn named(self) -> Option<Function> {
        match self.function {
            Function::Memmove => called_name::find(self.caller),
            function => Some(function),
        }
    }

    fn report(self, kind: ErrorKind, function: Function, access: Option<Access>, at: Addr, detail: Detail) {
        let mut frames = [Pc(0); MAX_FRAMES];
        let described = parts::describe(at, Addr(self.caller.entry_sp));
        channel::report(&ErrorEvent {
            kind: if kind == ErrorKind::ParamOverlap {
                kind
            } else {
                slow_path::kind_at(described.place, at)
            },
            tid: ThreadId(process::tid()),
            function: Some(function),
            access,
            address: at,
            place: described.place,
            detail,
            exact_top: false,
            stack: stacks::capture_in(self.caller, &mut frames),
            allocated: described.allocated(),
            freed: described.freed(),
        });
    }
}

/// Reports the error whose request lies at `request`; runs on the gate's stack, under its lock.
pub fn serve(request: u64) {
    // SAFETY: only `Call`'s methods enter the gate, each with a request that outlives its call.
    match unsafe { &*(request as *const Request) } {
        Request::Bad(call, access, bad) => {
            if access.kind == AccessKind::Write {
                heap::damage_is_known(*bad, Addr(access.addr.0.saturating_add(access.size.0)));
            }
            let function = call.named().unwrap_or(call.function);
            call.report(ErrorKind::HeapBufferOverflow, function, Some(*access), *bad, Detail::None);
        }
        &Request::Overlap { call, destination, source, bytes } => {
            // Where it cannot be told which name was called, nothing is wrong.
            let Some(function) = call.named().filter(|&function| function != Function::Memmove) else {
                return;
            };
            let detail = Detail::Overlap { destination, source, size: bytes };
            call.report(ErrorKind::ParamOverlap, function, None, Addr(destination), detail);
        }
    }
}
