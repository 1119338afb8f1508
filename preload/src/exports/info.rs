//! What glibc tells of its heap, told of ours, and the knobs that we have no use for.

use super::{EINVAL, native};
use crate::heap;

/// glibc's `struct mallinfo2`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Mallinfo2 {
    arena: u64,
    ordblks: u64,
    smblks: u64,
    hblks: u64,
    hblkhd: u64,
    usmblks: u64,
    fsmblks: u64,
    uordblks: u64,
    fordblks: u64,
    keepcost: u64,
}

/// glibc's `struct mallinfo`, whose numbers wrap around.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Mallinfo([i32; 10]);

/// The bytes in use; free bytes are not told.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn mallinfo2() -> Mallinfo2 {
    let (bytes, _) = heap::in_use();
    Mallinfo2 { arena: bytes, uordblks: bytes, ..Mallinfo2::default() }
}

/// As `mallinfo2`, cut to `int`.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn mallinfo() -> Mallinfo {
    let (bytes, _) = heap::in_use();
    let mut fields = [0; 10];
    fields[0] = bytes as i32;
    fields[7] = bytes as i32;
    Mallinfo(fields)
}

/// The size that was asked for: what lies behind is not the caller's, whatever glibc would say.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn malloc_usable_size(block: u64) -> u64 {
    if block == 0 {
        return 0;
    }
    heap::get().map_or_else(
        || native::usable_size(block),
        |heap| heap::usable_size(heap, memcheck_model::Addr(block)),
    )
}

/// Nothing was given back.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn malloc_trim(_: u64) -> i32 {
    0
}

/// Accepted, as glibc accepts what it does not know.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn mallopt(_: i32, _: i32) -> i32 {
    1
}

/// A decimal number in `text`, the rest of which stays as it is.
fn decimal(mut value: u64, text: &mut [u8; 20]) -> &[u8] {
    let mut at = text.len();
    loop {
        at -= 1;
        text[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return &text[at..];
        }
    }
}

/// Prints the bytes in use to standard error, as glibc prints its arenas.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn malloc_stats() {
    let (bytes, blocks) = heap::in_use();
    for (label, value) in [(b"in use bytes     = ", bytes), (b"in use blocks    = ", blocks)] {
        let mut digits = [0; 20];
        for part in [label.as_slice(), decimal(value, &mut digits), b"\n"] {
            crate::sys::file::write_to_standard_error(part);
        }
    }
}

/// Writes an XML summary to a stream.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn malloc_info(options: i32, stream: u64) -> i32 {
    if options != 0 {
        native::set_errno(EINVAL);
        return -1;
    }
    let (bytes, blocks) = heap::in_use();
    let mut text = [0u8; 160];
    let mut len = 0;
    let (mut count_digits, mut size_digits) = ([0; 20], [0; 20]);
    for part in [
        b"<malloc version=\"1\">\n<total type=\"in-use\" count=\"".as_slice(),
        decimal(blocks, &mut count_digits),
        b"\" size=\"",
        decimal(bytes, &mut size_digits),
        b"\"/>\n</malloc>\n\0",
    ] {
        text[len..len + part.len()].copy_from_slice(part);
        len += part.len();
    }
    if native::put_text(&text[..len], stream) { 0 } else { -1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_full() {
        assert_eq!(decimal(0, &mut [0; 20]), b"0");
        assert_eq!(decimal(1090, &mut [0; 20]), b"1090");
        assert_eq!(decimal(u64::MAX, &mut [0; 20]), b"18446744073709551615");
    }
}
