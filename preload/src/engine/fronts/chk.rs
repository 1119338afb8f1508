//! Fronts of the functions that `_FORTIFY_SOURCE` has programs call: they are told how large the destination is.
//! What fits is the plain function's; what does not is left to the function itself, which ends the process.

use super::{
    MEMMOVE_CHK, MEMPCPY_CHK, MEMSET_CHK, STPCPY_CHK, STPNCPY_CHK, STRCAT_CHK, STRCPY_CHK, STRNCAT_CHK,
    STRNCPY_CHK, WCPCPY_CHK, WCPNCPY_CHK, WCSCAT_CHK, WCSCPY_CHK, WCSNCAT_CHK, WCSNCPY_CHK, WMEMCPY_CHK,
    WMEMMOVE_CHK, WMEMPCPY_CHK, WMEMSET_CHK, mem,
    text::{Narrow, Text, Wide},
    writing,
};

/// `name FRONT plain;`: three arguments, of which the third is a count, and the room.
macro_rules! counted {
    ($($name:ident $front:ident $plain:path;)*) => {$(
        pub extern "C" fn $name(a: u64, b: u64, count: u64, room: u64, sp: u64, bp: u64) -> u64 {
            if count > room {
                return $front.call4(a, b, count, room);
            }
            $plain(a, b, count, sp, bp)
        }
    )*};
}

counted! {
    memmove MEMMOVE_CHK mem::memmove;
    mempcpy MEMPCPY_CHK mem::mempcpy;
    memset MEMSET_CHK mem::memset;
    wmemset WMEMSET_CHK mem::wmemset;
    wmemcpy WMEMCPY_CHK mem::wmemcpy;
    wmemmove WMEMMOVE_CHK mem::wmemmove;
    wmempcpy WMEMPCPY_CHK mem::wmempcpy;
    strncpy STRNCPY_CHK writing::strncpy;
    stpncpy STPNCPY_CHK writing::stpncpy;
    wcsncpy WCSNCPY_CHK writing::wcsncpy;
    wcpncpy WCPNCPY_CHK writing::wcpncpy;
}

/// `name FRONT text plain;`: a string and the room for it.
macro_rules! strings {
    ($($name:ident $front:ident $text:ident $plain:path;)*) => {$(
        pub extern "C" fn $name(destination: u64, source: u64, room: u64, sp: u64, bp: u64) -> u64 {
            if $text::len(source) >= room {
                return $front.call3(destination, source, room);
            }
            $plain(destination, source, sp, bp)
        }
    )*};
}

strings! {
    strcpy STRCPY_CHK Narrow writing::strcpy;
    stpcpy STPCPY_CHK Narrow writing::stpcpy;
    wcscpy WCSCPY_CHK Wide writing::wcscpy;
    wcpcpy WCPCPY_CHK Wide writing::wcpcpy;
}

/// `name FRONT part PART_FRONT text plain plain_part;`: a string, or a part of one, to append, and the room for all.
macro_rules! appends {
    ($($name:ident $front:ident $part:ident $part_front:ident $text:ident $plain:path, $plain_part:path;)*) => {$(
        pub extern "C" fn $name(destination: u64, source: u64, room: u64, sp: u64, bp: u64) -> u64 {
            if $text::len(destination) + $text::len(source) >= room {
                return $front.call3(destination, source, room);
            }
            $plain(destination, source, sp, bp)
        }

        pub extern "C" fn $part(
            destination: u64,
            source: u64,
            most: u64,
            room: u64,
            sp: u64,
            bp: u64,
        ) -> u64 {
            if $text::len(destination) + $text::len_within(source, most) >= room {
                return $part_front.call4(destination, source, most, room);
            }
            $plain_part(destination, source, most, sp, bp)
        }
    )*};
}

appends! {
    strcat STRCAT_CHK strncat STRNCAT_CHK Narrow writing::strcat, writing::strncat;
    wcscat WCSCAT_CHK wcsncat WCSNCAT_CHK Wide writing::wcscat, writing::wcsncat;
}
