//! Code whose own runtime walks its frames: the collectors of Go, OCaml and V8 look return addresses up in tables made
//! by the compiler, where those of copies are not. Such code runs natively; C code in the same module does not.
//!
//! In: an image that was just mapped and relocated. Out: which of its functions are left alone.
//!
//! Source: Go's `cmd/link` (the note `.note.go.buildid`; no `.eh_frame` but for what C compilers made); OCaml's
//! `runtime/backtrace_nat.c` and `asmcomp/asmlink.ml` (`caml_code_segments`, pairs of addresses that end in a null); V8's
//! `src/builtins/x64/builtins-x64.cc` (`JSEntry`; of its generated functions only these have unwind entries).

use alloc::vec::Vec;

use memcheck_model::{Addr, AddrRange, Pc};
use memcheck_rewrite::{Extent, Segment};

use super::image::{self, Image, ProgramHeader};
use crate::sys::memory;

const GO_OWNER: &[u8] = b"Go\0\0";
/// `GO BUILDID`.
const GO_BUILD_ID: u32 = 4;
/// OCaml links that many units at most; more is no table.
const MOST_SEGMENTS: u64 = 1 << 16;

/// Whether a loaded module was linked by Go's linker.
pub fn is_go(bias: u64, headers: &[ProgramHeader]) -> bool {
    image::has_note(bias, headers, GO_OWNER, GO_BUILD_ID)
}

/// How functions begin by which JavaScript is entered from C++: `push %rbp; mov %rsp, %rbp; push $type`, with the `mov`
/// encoded as no compiler of C does.
const V8_ENTRY: [u8; 5] = [0x55, 0x48, 0x8b, 0xec, 0x6a];

/// Which functions are left alone.
pub enum OwnFrames {
    /// None but V8's.
    None,
    /// Those that have no unwind entry.
    Go,
    /// Those in these ranges.
    OCaml(Vec<AddrRange>),
}

impl OwnFrames {
    /// Those of a loaded module.
    pub fn find(image: &Image, headers: &[ProgramHeader]) -> Self {
        if is_go(image.bias, headers) {
            return Self::Go;
        }
        let Some(symbols) = image.symbols() else { return Self::None };
        let Some(segments) = symbols.find(b"caml_code_segments") else { return Self::None };
        let mut ranges: Vec<AddrRange> = (0..MOST_SEGMENTS)
            .map_while(|index| {
                let [start, end] = [0, 8].map(|word| memory::try_read(segments.start + index * 16 + word));
                start.filter(|&start| start != 0).zip(end)
            })
            .filter_map(|(start, end)| AddrRange::between(Addr(start), Addr(end)))
            .collect();
        // Between OCaml and C, and not listed with the units.
        let runtime = [b"caml_system__code_begin".as_slice(), b"caml_system__code_end"];
        if let [Some(start), Some(end)] = runtime.map(|name| symbols.find(name)) {
            ranges.extend(AddrRange::between(Addr(start.start), Addr(end.start)));
        }
        Self::OCaml(ranges)
    }

    /// Whether a function of this text is left alone; `has_unwind_entry` says whether its module tells how to unwind it.
    pub fn hold(
        &self,
        function: Extent,
        text: &[Segment<'_>],
        has_unwind_entry: impl Fn(Pc) -> bool,
    ) -> bool {
        match self {
            Self::None => {
                let code = text.iter().find_map(|segment| segment.find_from(function.start));
                code.is_some_and(|code| code.starts_with(&V8_ENTRY))
            }
            Self::Go => !has_unwind_entry(function.start),
            Self::OCaml(ranges) => ranges.iter().any(|range| range.contains(Addr(function.start.0))),
        }
    }

    /// What is said of the module, behind its name.
    pub fn message(&self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Go => Some("its Go code is not checked, as Go's runtime reads return addresses"),
            Self::OCaml(_) => {
                Some("its OCaml code is not checked, as OCaml's runtime reads return addresses")
            }
        }
    }
}
