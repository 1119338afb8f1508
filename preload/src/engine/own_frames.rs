//! Code whose own runtime walks its frames: the collectors of Go, OCaml and V8 look return addresses up in tables made
//! by the compiler, where those of copies are not. Such code runs natively; C code in the same module does not.
//!
//! In: a module that was just mapped. Out: which of its functions are left alone.
//!
//! - In what Go's linker made only what C compilers made has unwind entries (`cmd/link`).
//! - OCaml's compiler puts a pair of symbols around the code of each unit and of its runtime's assembly, and has them
//!   exported (`asmcomp/emit.mlp`, `runtime/amd64.S`): `camlUnit__code_begin`, since OCaml 5.3 `camlUnit.code_begin`.
//! - Of V8's generated functions only those have unwind entries by which JavaScript is entered from C++ (`JSEntry` in
//!   `src/builtins/x64/builtins-x64.cc`).

use alloc::vec::Vec;

use memcheck_model::{Addr, AddrRange, Pc};
use memcheck_rewrite::{Extent, Segment};

/// How V8's entries begin: `push %rbp; mov %rsp, %rbp; push $type`, with the `mov` encoded as no compiler of C does.
const V8_ENTRY: [u8; 5] = [0x55, 0x48, 0x8b, 0xec, 0x6a];

/// The symbols around OCaml's units.
#[derive(Default)]
pub struct Units {
    starts: Vec<(&'static [u8], Addr)>,
    ends: Vec<(&'static [u8], Addr)>,
}

impl Units {
    /// How the names of all of them begin.
    pub const PREFIX: &[u8] = b"caml";

    /// Takes note of a symbol, if it is one of them.
    pub fn note(&mut self, name: &'static [u8], at: Pc) {
        let Some(unit) = name.strip_prefix(Self::PREFIX) else { return };
        if let Some(unit) = unit.strip_suffix(b"code_begin") {
            self.starts.push((unit, Addr(at.0)));
        } else if let Some(unit) = unit.strip_suffix(b"code_end") {
            self.ends.push((unit, Addr(at.0)));
        }
    }

    /// What lies between the two symbols of each, by address.
    fn ranges(mut self) -> Vec<AddrRange> {
        self.ends.sort_unstable();
        let end_of = |unit: &[u8]| {
            let place = self.ends.binary_search_by_key(&unit, |&(other, _)| other).ok()?;
            Some(self.ends[place].1)
        };
        let range = |&(unit, start): &(&[u8], Addr)| AddrRange::between(start, end_of(unit)?);
        let mut ranges: Vec<AddrRange> = self.starts.iter().filter_map(range).collect();
        ranges.sort_unstable_by_key(|range| range.start());
        ranges
    }
}

/// Which functions of a module are left alone, besides V8's.
pub enum OwnFrames {
    /// None.
    None,
    /// Those that have no unwind entry.
    Go,
    /// Those in these ranges, which are sorted.
    OCaml(Vec<AddrRange>),
}

impl OwnFrames {
    /// Those of a module.
    pub fn new(is_go: bool, units: Units) -> Self {
        let ranges = units.ranges();
        match (is_go, ranges.is_empty()) {
            (true, _) => Self::Go,
            (false, true) => Self::None,
            (false, false) => Self::OCaml(ranges),
        }
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
            Self::OCaml(ranges) => {
                let at = Addr(function.start.0);
                let after = ranges.partition_point(|range| range.start() <= at);
                after > 0 && ranges[after - 1].contains(at)
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_lie_between_their_symbols() {
        let mut units = Units::default();
        let names: [&[u8]; 6] = [
            b"camlB__code_begin",
            b"camlA__code_end",
            b"caml_system__code_begin",
            b"camlA__code_begin",
            b"caml_system__code_end",
            b"caml_alloc",
        ];
        for (place, name) in names.into_iter().enumerate() {
            units.note(name, Pc([64, 32, 80, 16, 96, 48][place]));
        }
        let range = |start, end| AddrRange::between(Addr(start), Addr(end)).unwrap();
        // B has no end.
        assert_eq!(units.ranges(), [range(16, 32), range(80, 96)]);
    }
}
