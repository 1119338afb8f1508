//! Fronts of functions that only read, and tell by their result how far: lengths and searches.
//!
//! Each body has the arguments of its function, then its caller's stack pointer at the entry and frame pointer.

use memcheck_model::Function;

use super::{
    Call, MEMCHR, MEMRCHR, RAWMEMCHR, STRCASESTR, STRCHR, STRCHRNUL, STRCSPN, STRDUP, STRNDUP, STRPBRK,
    STRRCHR, STRSPN, STRSTR, WCSCHR, WCSRCHR, WMEMCHR, scan,
    text::{Narrow, Text, Wide, bytes},
};

impl Call {
    /// The whole string with its terminator is read.
    #[inline]
    pub fn reads_string<T: Text>(&self, string: u64, len: u64) {
        self.reads_until(string, bytes::<T>(len.saturating_add(1)), T::UNIT);
    }

    /// Elements up to the one at `end`, that one too, are read.
    #[inline]
    fn reads_through<T: Text>(&self, start: u64, end: u64) {
        self.reads_until(start, end.wrapping_sub(start).wrapping_add(T::UNIT), T::UNIT);
    }

    /// Up to `most` elements are read, and `len` of them were no terminator.
    #[inline]
    pub fn reads_within<T: Text>(&self, string: u64, len: u64, most: u64) {
        self.reads_until(string, bytes::<T>(if len < most { len + 1 } else { most }), T::UNIT);
    }

    /// A search through a string ended at `found`, or, when that is null, at its terminator.
    #[inline]
    fn searches<T: Text>(&self, string: u64, found: u64) {
        if found == 0 {
            self.reads_string::<T>(string, T::len(string));
        } else {
            self.reads_through::<T>(string, found);
        }
    }
}

#[inline]
fn length<T: Text>(call: Call, string: u64) -> u64 {
    let len = T::len(string);
    call.reads_string::<T>(string, len);
    len
}

#[inline]
fn length_within<T: Text>(call: Call, string: u64, most: u64) -> u64 {
    let len = T::len_within(string, most);
    call.reads_within::<T>(string, len, most);
    len
}

pub extern "C" fn strlen(string: u64, sp: u64, bp: u64) -> u64 {
    length::<Narrow>(Call::new(Function::Strlen, sp, bp), string)
}

pub extern "C" fn wcslen(string: u64, sp: u64, bp: u64) -> u64 {
    length::<Wide>(Call::new(Function::Wcslen, sp, bp), string)
}

pub extern "C" fn strnlen(string: u64, most: u64, sp: u64, bp: u64) -> u64 {
    length_within::<Narrow>(Call::new(Function::Strnlen, sp, bp), string, most)
}

pub extern "C" fn wcsnlen(string: u64, most: u64, sp: u64, bp: u64) -> u64 {
    length_within::<Wide>(Call::new(Function::Wcsnlen, sp, bp), string, most)
}

pub extern "C" fn strchr(string: u64, wanted: u64, sp: u64, bp: u64) -> u64 {
    let call = Call::new(Function::Strchr, sp, bp);
    if scan::has_block(string) {
        let [zeros, matches] = scan::find_in_block(string, wanted as u8);
        if zeros | matches != 0 {
            let len = (zeros | matches).trailing_zeros();
            call.reads_until(string, u64::from(len) + 1, 1);
            return if matches >> len & 1 != 0 { string + u64::from(len) } else { 0 };
        }
    }
    let found = STRCHR.call2(string, wanted);
    call.searches::<Narrow>(string, found);
    found
}

pub extern "C" fn wcschr(string: u64, wanted: u64, sp: u64, bp: u64) -> u64 {
    let found = WCSCHR.call2(string, wanted);
    Call::new(Function::Wcschr, sp, bp).searches::<Wide>(string, found);
    found
}

pub extern "C" fn strchrnul(string: u64, wanted: u64, sp: u64, bp: u64) -> u64 {
    let found = STRCHRNUL.call2(string, wanted);
    Call::new(Function::Strchrnul, sp, bp).reads_through::<Narrow>(string, found);
    found
}

pub extern "C" fn rawmemchr(start: u64, wanted: u64, sp: u64, bp: u64) -> u64 {
    let found = RAWMEMCHR.call2(start, wanted);
    Call::new(Function::Rawmemchr, sp, bp).reads_through::<Narrow>(start, found);
    found
}

/// The last match is known only at the terminator.
pub extern "C" fn strrchr(string: u64, wanted: u64, sp: u64, bp: u64) -> u64 {
    let found = STRRCHR.call2(string, wanted);
    let rest = if found == 0 { string } else { found };
    let len = rest.wrapping_sub(string) + Narrow::len(rest);
    Call::new(Function::Strrchr, sp, bp).reads_string::<Narrow>(string, len);
    found
}

pub extern "C" fn wcsrchr(string: u64, wanted: u64, sp: u64, bp: u64) -> u64 {
    let found = WCSRCHR.call2(string, wanted);
    let rest = if found == 0 { string } else { found };
    let len = rest.wrapping_sub(string) / Wide::UNIT + Wide::len(rest);
    Call::new(Function::Wcsrchr, sp, bp).reads_string::<Wide>(string, len);
    found
}

/// Reads "as if sequentially" and no further than the match (C11 7.24.5.1).
pub extern "C" fn memchr(start: u64, wanted: u64, most: u64, sp: u64, bp: u64) -> u64 {
    let call = Call::new(Function::Memchr, sp, bp);
    if most != 0 && scan::has_block(start) {
        let [_, matches] = scan::find_in_block(start, wanted as u8);
        let len = u64::from(matches.trailing_zeros());
        if matches != 0 && len < most {
            call.reads_until(start, len + 1, 1);
            return start + len;
        }
    }
    let found = MEMCHR.call3(start, wanted, most);
    if found == 0 {
        call.reads(start, most);
    } else {
        call.reads_through::<Narrow>(start, found);
    }
    found
}

pub extern "C" fn wmemchr(start: u64, wanted: u64, most: u64, sp: u64, bp: u64) -> u64 {
    let found = WMEMCHR.call3(start, wanted, most);
    let call = Call::new(Function::Wmemchr, sp, bp);
    if found == 0 {
        call.reads(start, bytes::<Wide>(most));
    } else {
        call.reads_through::<Wide>(start, found);
    }
    found
}

/// Reads from the end back to the match.
pub extern "C" fn memrchr(start: u64, wanted: u64, most: u64, sp: u64, bp: u64) -> u64 {
    let found = MEMRCHR.call3(start, wanted, most);
    let first = if found == 0 { start } else { found };
    Call::new(Function::Memrchr, sp, bp).reads(first, start.wrapping_add(most).wrapping_sub(first));
    found
}

pub extern "C" fn strspn(string: u64, set: u64, sp: u64, bp: u64) -> u64 {
    let len = STRSPN.call2(string, set);
    let call = Call::new(Function::Strspn, sp, bp);
    call.reads_string::<Narrow>(string, len);
    call.reads_string::<Narrow>(set, Narrow::len(set));
    len
}

pub extern "C" fn strcspn(string: u64, set: u64, sp: u64, bp: u64) -> u64 {
    let len = STRCSPN.call2(string, set);
    let call = Call::new(Function::Strcspn, sp, bp);
    call.reads_string::<Narrow>(string, len);
    call.reads_string::<Narrow>(set, Narrow::len(set));
    len
}

pub extern "C" fn strpbrk(string: u64, set: u64, sp: u64, bp: u64) -> u64 {
    let found = STRPBRK.call2(string, set);
    let call = Call::new(Function::Strpbrk, sp, bp);
    call.searches::<Narrow>(string, found);
    call.reads_string::<Narrow>(set, Narrow::len(set));
    found
}

pub extern "C" fn strstr(string: u64, part: u64, sp: u64, bp: u64) -> u64 {
    let found = STRSTR.call2(string, part);
    search_part(Call::new(Function::Strstr, sp, bp), string, part, found);
    found
}

pub extern "C" fn strcasestr(string: u64, part: u64, sp: u64, bp: u64) -> u64 {
    let found = STRCASESTR.call2(string, part);
    search_part(Call::new(Function::Strcasestr, sp, bp), string, part, found);
    found
}

pub extern "C" fn strdup(string: u64, sp: u64, bp: u64) -> u64 {
    length::<Narrow>(Call::new(Function::Strdup, sp, bp), string);
    STRDUP.call1(string)
}

pub extern "C" fn strndup(string: u64, most: u64, sp: u64, bp: u64) -> u64 {
    length_within::<Narrow>(Call::new(Function::Strndup, sp, bp), string, most);
    STRNDUP.call2(string, most)
}

#[inline]
fn search_part(call: Call, string: u64, part: u64, found: u64) {
    let part_len = Narrow::len(part);
    call.reads_string::<Narrow>(part, part_len);
    if found == 0 {
        call.reads_string::<Narrow>(string, Narrow::len(string));
    } else {
        call.reads(string, found.wrapping_sub(string).wrapping_add(part_len));
    }
}
