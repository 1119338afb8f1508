//! Fronts of functions that copy strings: their length is found first, then what is read and written is checked,
//! then it is copied.

use memcheck_model::Function;

use super::{
    Call, MEMMOVE, MEMSET,
    mem::move_short,
    text::{Narrow, Text, Wide, bytes},
};

/// Copies a string with its terminator; gives its length.
#[inline]
fn copy_string<T: Text>(call: Call, destination: u64, source: u64) -> u64 {
    let len = T::len(source);
    let size = bytes::<T>(len + 1);
    call.reads_string::<T>(source, len);
    call.writes(destination, size);
    call.must_be_apart((destination, size), (source, size));
    if !move_short(destination, source, size) {
        MEMMOVE.call3(destination, source, size);
    }
    len
}

/// Copies `most` elements of a string, zeros after its end; gives its length, of at most `most`.
#[inline]
fn copy_part<T: Text>(call: Call, destination: u64, source: u64, most: u64) -> u64 {
    let len = T::len_within(source, most);
    let (copied, size) = (bytes::<T>(len), bytes::<T>(most));
    call.reads_within::<T>(source, len, most);
    call.writes(destination, size);
    call.must_be_apart((destination, size), (source, bytes::<T>(most.min(len.saturating_add(1)))));
    MEMMOVE.call3(destination, source, copied);
    if copied < size {
        MEMSET.call3(destination.wrapping_add(copied), 0, size - copied);
    }
    len
}

/// Appends the string at `source`, `len` elements of at most `most` that were looked at.
#[inline]
fn append<T: Text>(call: Call, destination: u64, source: u64, len: u64, most: u64) {
    let kept = T::len(destination);
    call.reads_string::<T>(destination, kept);
    call.reads_within::<T>(source, len, most);
    let end = destination.wrapping_add(bytes::<T>(kept));
    let copied = bytes::<T>(len);
    call.writes(end, copied.saturating_add(T::UNIT));
    let whole = bytes::<T>(kept + len + 1);
    call.must_be_apart((destination, whole), (source, bytes::<T>(most.min(len.saturating_add(1)))));
    MEMMOVE.call3(end, source, copied);
    MEMSET.call3(end.wrapping_add(copied), 0, T::UNIT);
}

/// The functions of one kind of string.
macro_rules! functions {
    ($text:ident: $copy:ident $Copy:ident, $copy_to_end:ident $CopyToEnd:ident, $part:ident $Part:ident,
     $part_to_end:ident $PartToEnd:ident, $append:ident $Append:ident, $append_part:ident $AppendPart:ident) => {
        pub extern "C" fn $copy(destination: u64, source: u64, sp: u64, bp: u64) -> u64 {
            copy_string::<$text>(Call::new(Function::$Copy, sp, bp), destination, source);
            destination
        }

        pub extern "C" fn $copy_to_end(destination: u64, source: u64, sp: u64, bp: u64) -> u64 {
            let call = Call::new(Function::$CopyToEnd, sp, bp);
            let len = copy_string::<$text>(call, destination, source);
            destination.wrapping_add(bytes::<$text>(len))
        }

        pub extern "C" fn $part(destination: u64, source: u64, most: u64, sp: u64, bp: u64) -> u64 {
            copy_part::<$text>(Call::new(Function::$Part, sp, bp), destination, source, most);
            destination
        }

        pub extern "C" fn $part_to_end(destination: u64, source: u64, most: u64, sp: u64, bp: u64) -> u64 {
            let call = Call::new(Function::$PartToEnd, sp, bp);
            let len = copy_part::<$text>(call, destination, source, most);
            destination.wrapping_add(bytes::<$text>(len))
        }

        pub extern "C" fn $append(destination: u64, source: u64, sp: u64, bp: u64) -> u64 {
            let len = $text::len(source);
            append::<$text>(Call::new(Function::$Append, sp, bp), destination, source, len, u64::MAX);
            destination
        }

        pub extern "C" fn $append_part(destination: u64, source: u64, most: u64, sp: u64, bp: u64) -> u64 {
            let len = $text::len_within(source, most);
            append::<$text>(Call::new(Function::$AppendPart, sp, bp), destination, source, len, most);
            destination
        }
    };
}

functions! {
    Narrow: strcpy Strcpy, stpcpy Stpcpy, strncpy Strncpy, stpncpy Stpncpy, strcat Strcat, strncat Strncat
}
functions! {
    Wide: wcscpy Wcscpy, wcpcpy Wcpcpy, wcsncpy Wcsncpy, wcpncpy Wcpncpy, wcscat Wcscat, wcsncat Wcsncat
}
