//! Any registers and any memory as a system call that is about to be made.
//!
//! Oracle: what is told of lies in watched memory, begins where it may be touched unless its first byte is the bad one,
//! and the bad byte is the first that must not be touched; where all may be touched nothing is told.

use memcheck_model::{Addr, AddrRange};
use memcheck_syscalls::{CALLS, Finding, Granule, Known, Memory, Request, check, find_call};

use crate::input::Input;

const HEAP: u64 = 0x1_0000;
const HEAP_BYTES: u64 = 0x1000;
const STACK: u64 = 0x8_0000;

/// A heap of a page, then unwatched memory of a page.
struct Bytes<'a> {
    content: &'a [u8],
    /// A bit for each granule of the heap: clear when no byte of it may be touched.
    open: u64,
    /// How many bytes of the last granule of each run may be touched.
    tail: u8,
}

impl Bytes<'_> {
    fn offset(at: u64) -> Option<u64> {
        let heap = at.checked_sub(HEAP).filter(|&offset| offset < HEAP_BYTES);
        heap.or_else(|| {
            at.checked_sub(STACK).filter(|&offset| offset < HEAP_BYTES).map(|offset| offset + HEAP_BYTES)
        })
    }

    fn byte(&self, at: u64) -> u8 {
        let offset = Self::offset(at).unwrap_or(0) as usize;
        self.content.get(offset % self.content.len().max(1)).copied().unwrap_or(0)
    }

    /// How many bytes of the granule may be touched. The pattern comes again each 64 granules.
    fn leading(&self, granule: u64) -> u8 {
        let is_open = |index: u64| self.open >> (index % 64) & 1 != 0;
        let index = (granule - HEAP) / 8;
        match (is_open(index), is_open(index + 1)) {
            (false, _) => 0,
            (true, true) => 8,
            (true, false) => self.tail,
        }
    }

    fn may_be_touched(&self, at: u64) -> bool {
        !self.is_watched(Addr(at)) || at % 8 < u64::from(self.leading(at & !7))
    }

    fn find<const N: usize>(&self, at: Addr) -> Option<[u8; N]> {
        let mut found = [0; N];
        for (index, byte) in (0..).zip(&mut found) {
            let place = at.0.checked_add(index)?;
            Self::offset(place).filter(|_| self.may_be_touched(place))?;
            *byte = self.byte(place);
        }
        Some(found)
    }
}

impl Memory for Bytes<'_> {
    fn is_watched(&self, addr: Addr) -> bool {
        (HEAP..HEAP + HEAP_BYTES).contains(&addr.0)
    }

    fn find_bad(&self, range: AddrRange) -> Option<Addr> {
        assert!(self.is_watched(range.start()), "{range:?}");
        let end = range.end().0.min(HEAP + HEAP_BYTES);
        (range.start().0..end).find(|&at| !self.may_be_touched(at)).map(Addr)
    }

    fn granule(&self, start: Addr) -> Granule {
        assert!(start.is_aligned(8));
        let leading = if self.is_watched(start) { self.leading(start.0) } else { 8 };
        Granule { leading, bytes: [0, 1, 2, 3, 4, 5, 6, 7].map(|at| self.byte(start.0 + at)) }
    }

    fn find_word(&self, at: Addr) -> Option<u64> {
        self.find(at).map(u64::from_le_bytes)
    }

    fn find_int(&self, at: Addr) -> Option<u32> {
        self.find(at).map(u32::from_le_bytes)
    }

    fn count_semaphores(&self, id: u32) -> u64 {
        id.into()
    }
}

/// An argument, as a choice and a number: an address in the page that is watched, in the other, or the number.
fn argument(input: &mut Input<'_>) -> u64 {
    match input.u8() % 8 {
        0..=2 => HEAP + u64::from(input.u16()) % HEAP_BYTES,
        3 => STACK + u64::from(input.u16()) % HEAP_BYTES,
        4 | 5 => u64::from(input.u8()),
        6 => u64::from(input.u16()),
        _ => input.u64(),
    }
}

/// A number, six arguments, what may be touched, and the bytes of the memory.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let number = u64::from(input.u16() % 512);
    let arguments = [(); 6].map(|()| argument(&mut input));
    let (open, tail) = (input.u64(), 1 + input.u8() % 8);
    let memory = Bytes { content: input.0, open, tail };
    let request = Request { number, arguments };
    let mut told = 0;
    let known = check(&request, &memory, &mut |finding: &Finding| {
        told += 1;
        let (start, bad) = (finding.range.start(), finding.bad);
        assert!(memory.is_watched(start) && finding.range.contains(bad), "{request:?} {finding:?}");
        assert!(!memory.may_be_touched(bad.0), "{request:?} {finding:?}");
        assert!((start.0..bad.0).all(|at| memory.may_be_touched(at)), "{request:?} {finding:?}");
        assert!(!finding.parameter.as_str().is_empty(), "{request:?} {finding:?}");
    });
    assert!(known == Known::No || find_call(number).is_some());
    assert!(told < 5000, "{request:?}");
    check(&request, &Bytes { open: u64::MAX, tail: 8, ..memory }, &mut |finding| {
        panic!("{request:?}: {finding:?}, and all may be touched");
    });
}

/// Each call with pointers to the heap, and with small numbers behind.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let memory: Vec<u8> = (0..64u64).flat_map(|at| (HEAP + at * 24 % 0x300).to_le_bytes()).collect();
    let open = 0xffff_f0ff_00ff_ffffu64.to_le_bytes();
    let seed =
        |number: u16, arguments: &[u8]| [&number.to_le_bytes(), arguments, &open, &[3], &memory].concat();
    let pointers = [0, 16, 0, 0, 48, 0, 0, 0, 1, 0, 64, 0, 0, 0, 2, 0, 8, 0];
    let sizes = [4, 3, 0, 16, 0, 4, 200, 0, 24, 0, 4, 90, 0, 0, 1];
    CALLS.iter().flat_map(|call| [seed(call.number, &pointers), seed(call.number, &sizes)]).collect()
}
