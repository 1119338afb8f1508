//! From the words of a request to what it asks.
//!
//! The words are the request's number and up to five arguments (`_zzq_args` of valgrind.h). Numbers of other tools
//! (Callgrind's, Helgrind's) and of later versions are no request: their default stands.

use memcheck_model::{Addr, AddrRange, SearchScope, Size};

/// The requests of the core, and of Memcheck (`VG_USERREQ_TOOL_BASE('M', 'C')`).
mod number {
    pub const RUNNING_ON_VALGRIND: u64 = 0x1001;
    pub const DISCARD_TRANSLATIONS: u64 = 0x1002;
    pub const CLIENT_CALL0: u64 = 0x1101;
    pub const CLIENT_CALL3: u64 = 0x1104;
    pub const COUNT_ERRORS: u64 = 0x1201;
    pub const GDB_MONITOR_COMMAND: u64 = 0x1202;
    pub const MALLOCLIKE_BLOCK: u64 = 0x1301;
    pub const FREELIKE_BLOCK: u64 = 0x1302;
    pub const CREATE_MEMPOOL: u64 = 0x1303;
    pub const DESTROY_MEMPOOL: u64 = 0x1304;
    pub const MEMPOOL_ALLOC: u64 = 0x1305;
    pub const MEMPOOL_FREE: u64 = 0x1306;
    pub const MEMPOOL_TRIM: u64 = 0x1307;
    pub const MOVE_MEMPOOL: u64 = 0x1308;
    pub const MEMPOOL_CHANGE: u64 = 0x1309;
    pub const MEMPOOL_EXISTS: u64 = 0x130a;
    pub const RESIZEINPLACE_BLOCK: u64 = 0x130b;
    pub const PRINTF: u64 = 0x1401;
    pub const PRINTF_BACKTRACE: u64 = 0x1402;
    pub const PRINTF_VALIST_BY_REF: u64 = 0x1403;
    pub const PRINTF_BACKTRACE_VALIST_BY_REF: u64 = 0x1404;
    pub const CHANGE_ERR_DISABLEMENT: u64 = 0x1801;
    const MEMCHECK: u64 = 0x4d43_0000;
    pub const MAKE_MEM_NOACCESS: u64 = MEMCHECK;
    pub const MAKE_MEM_UNDEFINED: u64 = MEMCHECK + 1;
    pub const MAKE_MEM_DEFINED: u64 = MEMCHECK + 2;
    pub const DISCARD: u64 = MEMCHECK + 3;
    pub const CHECK_MEM_IS_ADDRESSABLE: u64 = MEMCHECK + 4;
    pub const CHECK_MEM_IS_DEFINED: u64 = MEMCHECK + 5;
    pub const DO_LEAK_CHECK: u64 = MEMCHECK + 6;
    pub const COUNT_LEAKS: u64 = MEMCHECK + 7;
    pub const GET_VBITS: u64 = MEMCHECK + 8;
    pub const SET_VBITS: u64 = MEMCHECK + 9;
    pub const CREATE_BLOCK: u64 = MEMCHECK + 10;
    pub const MAKE_MEM_DEFINED_IF_ADDRESSABLE: u64 = MEMCHECK + 11;
    pub const COUNT_LEAK_BLOCKS: u64 = MEMCHECK + 12;
    pub const ENABLE_ADDR_ERROR_REPORTING_IN_RANGE: u64 = MEMCHECK + 13;
    pub const DISABLE_ADDR_ERROR_REPORTING_IN_RANGE: u64 = MEMCHECK + 14;
}

/// What `VALGRIND_CREATE_MEMPOOL_EXT` says of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolFlags {
    /// Its pieces are what `MALLOCLIKE` blocks are cut from.
    pub is_metapool: bool,
    /// Freeing a piece frees the blocks in it.
    pub frees_blocks: bool,
}

/// How memory is to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// `VALGRIND_CHECK_MEM_IS_ADDRESSABLE`.
    Addressable,
    /// `VALGRIND_CHECK_MEM_IS_DEFINED` and `VALGRIND_CHECK_VALUE_IS_DEFINED`.
    Defined,
}

/// What is asked. Addresses and ranges are the program's word and may be anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are named as the headers name the arguments")]
pub enum Request {
    /// `RUNNING_ON_VALGRIND`.
    RunningOnValgrind,
    /// How many errors were found.
    CountErrors,
    /// Calls of this function with this thread's number and `count` arguments, outside the checked copy.
    Call { function: u64, arguments: [u64; 3] },
    /// Puts out a text by `printf`'s rules, with the stack or without.
    Print { format: Addr, arguments: Addr, with_stack: bool },
    /// Errors of this thread are told less (or again).
    DisableErrors { by: i64 },
    /// Bad accesses to this are told, or not; the result is one.
    TellRange { range: AddrRange, told: bool },
    /// No byte of this may be touched.
    Forbid(AddrRange),
    /// Every byte of this may be touched.
    Allow(AddrRange),
    /// Looks at memory; the result is the first bad address, or zero.
    Check { range: AddrRange, how: Check },
    /// Reads validity bits into memory at `to`.
    ReadValidity { range: AddrRange, to: Addr },
    /// Sets them. Nothing to be done.
    WriteValidity,
    /// Names a range.
    NameBlock(AddrRange),
    /// Forgets the name with this number.
    ForgetName(u64),
    /// The program's allocator gave out a block.
    Allocated { block: AddrRange, redzone: Size },
    /// It resized one.
    Resized { start: Addr, size: Size, redzone: Size },
    /// It took one back.
    Freed { start: Addr },
    /// There is a pool.
    CreatePool { pool: Addr, redzone: Size, flags: PoolFlags },
    /// There is no such pool any more.
    DestroyPool { pool: Addr },
    /// A piece of a pool was given out.
    PoolAllocated { pool: Addr, piece: AddrRange },
    /// It was taken back.
    PoolFreed { pool: Addr, start: Addr },
    /// What of the pool lies outside this range was taken back.
    TrimPool { pool: Addr, kept: AddrRange },
    /// A pool has another address.
    MovePool { from: Addr, to: Addr },
    /// A piece was moved and resized.
    PoolChanged { pool: Addr, from: Addr, piece: AddrRange },
    /// Whether there is such a pool.
    PoolExists { pool: Addr },
    /// Looks for leaks now.
    SearchLeaks(SearchScope),
    /// Stores the sums of the last search at four addresses: lost, possibly lost, reachable, suppressed.
    CountLeaks { to: [Addr; 4], blocks: bool },
    /// Something that asks for nothing here, with the result that says it was done.
    Nothing { result: u64 },
}

impl Request {
    /// What the six words of a request ask. `None` for what is no request of these, or leads beyond the end of memory.
    #[must_use]
    pub fn find_in(words: [u64; 6]) -> Option<Self> {
        use number as n;
        let [number, a, b, c, d, _] = words;
        let range = |start, size| AddrRange::new(Addr(start), Size(size));
        // valgrind.h takes -1 for "done" from the requests that change memory.
        let done = 1u64.wrapping_neg();
        Some(match number {
            n::RUNNING_ON_VALGRIND => Self::RunningOnValgrind,
            // Code that changes is followed by nobody here; there is no gdbserver.
            n::DISCARD_TRANSLATIONS => Self::Nothing { result: 0 },
            n::GDB_MONITOR_COMMAND => Self::Nothing { result: 1 },
            n::CLIENT_CALL0..=n::CLIENT_CALL3 => Self::Call { function: a, arguments: [b, c, d] },
            n::COUNT_ERRORS => Self::CountErrors,
            n::MALLOCLIKE_BLOCK => Self::Allocated { block: range(a, b)?, redzone: Size(c) },
            n::RESIZEINPLACE_BLOCK => Self::Resized { start: Addr(a), size: Size(c), redzone: Size(d) },
            n::FREELIKE_BLOCK => Self::Freed { start: Addr(a) },
            n::CREATE_MEMPOOL => Self::CreatePool {
                pool: Addr(a),
                redzone: Size(b),
                flags: PoolFlags { frees_blocks: d & 1 != 0, is_metapool: d & 2 != 0 },
            },
            n::DESTROY_MEMPOOL => Self::DestroyPool { pool: Addr(a) },
            n::MEMPOOL_ALLOC => Self::PoolAllocated { pool: Addr(a), piece: range(b, c)? },
            n::MEMPOOL_FREE => Self::PoolFreed { pool: Addr(a), start: Addr(b) },
            n::MEMPOOL_TRIM => Self::TrimPool { pool: Addr(a), kept: range(b, c)? },
            n::MOVE_MEMPOOL => Self::MovePool { from: Addr(a), to: Addr(b) },
            n::MEMPOOL_CHANGE => Self::PoolChanged { pool: Addr(a), from: Addr(b), piece: range(c, d)? },
            n::MEMPOOL_EXISTS => Self::PoolExists { pool: Addr(a) },
            // A va_list is an array: by value and by reference are the same (psABI 3.5.7).
            n::PRINTF | n::PRINTF_VALIST_BY_REF => {
                Self::Print { format: Addr(a), arguments: Addr(b), with_stack: false }
            }
            n::PRINTF_BACKTRACE | n::PRINTF_BACKTRACE_VALIST_BY_REF => {
                Self::Print { format: Addr(a), arguments: Addr(b), with_stack: true }
            }
            n::CHANGE_ERR_DISABLEMENT => Self::DisableErrors { by: a.cast_signed() },
            n::ENABLE_ADDR_ERROR_REPORTING_IN_RANGE => Self::TellRange { range: range(a, b)?, told: true },
            n::DISABLE_ADDR_ERROR_REPORTING_IN_RANGE => Self::TellRange { range: range(a, b)?, told: false },
            n::MAKE_MEM_NOACCESS => Self::Forbid(range(a, b)?),
            n::MAKE_MEM_UNDEFINED | n::MAKE_MEM_DEFINED => Self::Allow(range(a, b)?),
            n::MAKE_MEM_DEFINED_IF_ADDRESSABLE => Self::Nothing { result: done },
            n::CREATE_BLOCK => Self::NameBlock(range(a, b)?),
            n::DISCARD => Self::ForgetName(b),
            n::CHECK_MEM_IS_ADDRESSABLE => Self::Check { range: range(a, b)?, how: Check::Addressable },
            n::CHECK_MEM_IS_DEFINED => Self::Check { range: range(a, b)?, how: Check::Defined },
            n::DO_LEAK_CHECK => Self::SearchLeaks(match (a, b) {
                (0, 1) => SearchScope::Increased,
                (0, 2) => SearchScope::Changed,
                (0, _) => SearchScope::All,
                _ => SearchScope::Sums,
            }),
            n::COUNT_LEAKS => Self::CountLeaks { to: [a, b, c, d].map(Addr), blocks: false },
            n::COUNT_LEAK_BLOCKS => Self::CountLeaks { to: [a, b, c, d].map(Addr), blocks: true },
            n::GET_VBITS => Self::ReadValidity { range: range(a, c)?, to: Addr(b) },
            n::SET_VBITS => Self::WriteValidity,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_headers_are_understood() {
        let find = |words| Request::find_in(words);
        assert_eq!(find([0x1001, 0, 0, 0, 0, 0]), Some(Request::RunningOnValgrind));
        let block = AddrRange::new(Addr(64), Size(10)).unwrap();
        assert_eq!(find([0x1301, 64, 10, 8, 1, 0]), Some(Request::Allocated { block, redzone: Size(8) }));
        let flags = PoolFlags { is_metapool: true, frees_blocks: true };
        assert_eq!(
            find([0x1303, 1, 16, 0, 3, 0]),
            Some(Request::CreatePool { pool: Addr(1), redzone: Size(16), flags })
        );
        assert_eq!(find([0x4d43_0000, 64, 10, 0, 0, 0]), Some(Request::Forbid(block)));
        assert_eq!(
            find([0x4d43_000e, 64, 10, 0, 0, 0]),
            Some(Request::TellRange { range: block, told: false })
        );
    }

    #[test]
    fn requests_of_other_tools_and_impossible_ranges_are_left_alone() {
        assert_eq!(Request::find_in([0x4854_0000, 1, 2, 3, 4, 5]), None);
        assert_eq!(Request::find_in([0x4d43_0000, u64::MAX, 2, 0, 0, 0]), None);
        assert_eq!(Request::find_in([0, 0, 0, 0, 0, 0]), None);
    }
}
