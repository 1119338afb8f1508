//! The client requests of the target: the account of its own allocators' blocks, and what each request does.
//!
//! In: requests as the engine's hook meets them. Out: shadow, error events, and the result.
//!
//! Invariant: the target's own stack is never forbidden: frames come and go there without a word.

mod native;

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use memcheck_heap::ChunkState;
use memcheck_model::{
    Access, AccessKind, Addr, AddrRange, Block, BlockState, Detail, ErrorEvent, ErrorKind, Function,
    MAX_FRAMES, Pc, StackId, ThreadId,
};
use memcheck_requests::{Blocks, Check, ClientBlock, Given, Memory, Mistake, Origin, Request};
use memcheck_stack::Registers;
use memcheck_wire::Counter;

use crate::{
    account::Account,
    channel,
    engine::{self, gate, install, shadow_map, syscalls},
    glib, heap, leaks,
    lifecycle::{end::Departure, parts},
    stacks,
    sys::process,
    thread,
};

static ACCOUNT: Account<Blocks> = Account::new(Blocks::new());

/// Whether the target told of any block, pool or name. Most never do.
static IS_USED: AtomicBool = AtomicBool::new(false);
/// The lowest and the highest address outside the heap that were forbidden.
static FORBIDDEN: [AtomicU64; 2] = [AtomicU64::new(u64::MAX), AtomicU64::new(0)];
/// Larger ranges outside the heap are reservations: their shadow alone would exhaust the memory.
const LARGEST_FORBIDDEN: u64 = 8 << 30;
/// How many pages are looked at to see whether a range is mapped.
const MOST_PAGES: u64 = 4096;
const PAGE: u64 = 4096;

/// The calling thread is about to fork.
pub fn before_fork() {
    ACCOUNT.lock();
}

/// It has forked, in either process.
pub fn after_fork() {
    ACCOUNT.unlock();
}

/// What a block of the target's own is, for an address that it forbade.
pub fn find(addr: Addr) -> Option<ClientBlock> {
    if !IS_USED.load(Ordering::Relaxed) {
        return None;
    }
    ACCOUNT.with(|blocks| blocks.find(addr))
}

/// Whether the target wants to be told of a bad access to `addr`.
pub fn is_told(addr: Addr) -> bool {
    !IS_USED.load(Ordering::Relaxed) || ACCOUNT.with(|blocks| blocks.is_told(addr))
}

/// The blocks that live, in the order of their addresses; `None` when there are none, or no memory for the list.
pub fn live() -> Option<Vec<ClientBlock>> {
    if !IS_USED.load(Ordering::Relaxed) {
        return None;
    }
    ACCOUNT.with(|blocks| {
        let mut list = Vec::new();
        list.try_reserve_exact(blocks.live().count()).ok()?;
        list.extend(blocks.live());
        (!list.is_empty()).then_some(list)
    })
}

/// What the target's own allocators gave out and took back.
pub fn given() -> Given {
    if IS_USED.load(Ordering::Relaxed) { ACCOUNT.with(|blocks| blocks.given()) } else { Given::default() }
}

/// A block of the target's own, as reports show it.
pub fn block(client: &ClientBlock) -> Block {
    Block {
        start: client.range.start(),
        size: client.range.size(),
        state: if client.freed.is_some() { BlockState::Freed } else { BlockState::Live },
        allocated_by: client.allocated.function,
        freed_by: client.freed.map(|origin| origin.function),
        alloc_tid: client.allocated.tid,
        free_tid: client.freed.map_or(ThreadId(0), |origin| origin.tid),
    }
}

/// The target unmaps memory, or maps something else there: what it said of the old is void.
pub fn memory_is_new(start: u64, size: u64) {
    let [low, high] = [0, 1].map(|index| FORBIDDEN[index].load(Ordering::Relaxed));
    let (from, to) = (start.max(low), start.saturating_add(size).min(high));
    if let Some(range) = AddrRange::between(Addr(from), Addr(to)) {
        outside_heap(range, shadow_map::allow);
    }
}

/// Calls `act` with the parts of `range` that the heap does not own.
fn outside_heap(range: AddrRange, act: impl Fn(AddrRange)) {
    let heap = heap::find().map_or(AddrRange::default(), |heap| heap.layout().range());
    let (start, end) = (range.start(), range.end());
    let before = AddrRange::between(start, end.min(heap.start()));
    let after = AddrRange::between(start.max(heap.end()), end);
    before.into_iter().chain(after).filter(|part| !part.is_empty()).for_each(act);
}

/// The shadow, for a thread with this stack pointer.
struct Shadow {
    rsp: u64,
}

impl Memory for Shadow {
    fn forbid(&self, range: AddrRange) {
        if range.is_empty() || stacks::is_own(range, self.rsp) {
            return;
        }
        let heap = heap::find().map_or(AddrRange::default(), |heap| heap.layout().range());
        if !heap.overlaps(range) {
            if range.size().0 > LARGEST_FORBIDDEN {
                return;
            }
            FORBIDDEN[0].fetch_min(range.start().0, Ordering::Relaxed);
            FORBIDDEN[1].fetch_max(range.end().0, Ordering::Relaxed);
            syscalls::watch_everything();
        }
        shadow_map::forbid(range);
    }

    fn allow(&self, range: AddrRange) {
        if let Some(Some(chunk)) = heap::describe(range.start())
            && AddrRange::new(chunk.start, chunk.size)
                .is_none_or(|inside| range.start() < inside.start() || inside.end() < range.end())
        {
            // What is written beyond the block with the program's blessing is no damage.
            heap::damage_is_known(range.start(), range.end());
        }
        shadow_map::allow(range);
    }
}

/// Where a request is made.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// The thread's registers; the instruction may lie in a copy.
    pub registers: Registers,
    /// The same for a leak search.
    pub departure: Departure,
}

impl Site {
    fn by(&self, function: Function) -> Origin {
        let stack = stacks::capture_instruction_id(self.registers);
        Origin { function, stack, tid: thread::id() }
    }

    fn shadow(&self) -> Shadow {
        Shadow { rsp: self.registers.sp }
    }
}

/// Does what is asked, and gives the request's result; `None` leaves it at its default.
pub fn act(site: &Site, request: Request) -> Option<u64> {
    let done = Some(u64::MAX);
    let memory = site.shadow();
    match request {
        Request::RunningOnValgrind => {
            let asks = || stacks::original_instruction(site.registers.pc);
            Some((channel::connect().running_on_valgrind || glib::is_told(asks())).into())
        }
        Request::CountErrors => Some(channel::error_count()),
        Request::Call { function, arguments } => Some(native::call(function, arguments)),
        Request::Print { format, arguments, with_stack } => {
            Some(native::print(site, format.0, arguments.0, with_stack))
        }
        Request::DisableErrors { by } => {
            let level = &thread::current().errors_disabled;
            level.set(level.get().saturating_add_signed(by as i32));
            None
        }
        Request::Forbid(range) => {
            memory.forbid(range);
            done
        }
        Request::Allow(range) => {
            memory.allow(range);
            done
        }
        Request::Check { range, how } => Some(check(site, range, how)),
        Request::ReadValidity { range, to } => Some(read_validity(range, to)),
        Request::WriteValidity => Some(1),
        Request::Nothing { result } => Some(result),
        Request::SearchLeaks(how) => {
            if !channel::is_vfork_child() {
                engine::forget_spill();
                let pc = stacks::original_instruction(site.departure.pc);
                let red_zone = if install::is_leaf(pc) { site.departure.red_zone } else { 0 };
                leaks::search_on_request(&Departure { red_zone, ..site.departure }, how);
            }
            None
        }
        Request::CountLeaks { to, blocks } => {
            count_leaks(to, blocks);
            None
        }
        about_blocks => keep_account(site, &memory, about_blocks),
    }
}

/// Stores what the last search found, as the launcher counted it: lost (also indirectly), possibly lost, reachable,
/// suppressed.
fn count_leaks(to: [Addr; 4], blocks: bool) {
    use Counter as C;
    let counters = if blocks {
        [C::LostBlocks, C::PossibleBlocks, C::ReachableBlocks, C::SuppressedBlocks]
    } else {
        [C::LostBytes, C::PossibleBytes, C::ReachableBytes, C::SuppressedBytes]
    };
    for (to, counter) in to.into_iter().zip(counters) {
        let sum = channel::counter(counter).load(Ordering::Relaxed);
        if to != Addr::NULL {
            // SAFETY: the target asked for the sums to be written there.
            unsafe { (to.0 as *mut u64).write_unaligned(sum) };
        }
    }
}

/// The requests about blocks and pools.
fn keep_account(site: &Site, memory: &Shadow, request: Request) -> Option<u64> {
    use Function as F;
    IS_USED.store(true, Ordering::Relaxed);
    let (function, about) = match request {
        Request::TellRange { range, told } => {
            ACCOUNT.with(|blocks| blocks.tell(range, told));
            return Some(1);
        }
        Request::NameBlock(range) => {
            let by = site.by(F::CreateBlock);
            return Some(ACCOUNT.with(|blocks| blocks.name(range, by)));
        }
        Request::ForgetName(index) => {
            return Some(u64::from(!ACCOUNT.with(|blocks| blocks.forget_name(index))));
        }
        Request::PoolExists { pool } => return Some(ACCOUNT.with(|blocks| blocks.has_pool(pool)).into()),
        Request::CreatePool { pool, redzone, flags } => {
            ACCOUNT.with(|blocks| blocks.create_pool(pool, redzone, flags));
            return None;
        }
        Request::Allocated { block, redzone } => {
            if block.start() != Addr::NULL {
                let by = site.by(F::MallocLike);
                ACCOUNT.with(|blocks| blocks.allocate(memory, block, redzone, by));
            }
            return None;
        }
        Request::Resized { start, .. } => (F::ResizeInPlace, start),
        Request::Freed { start } => (F::FreeLike, start),
        Request::DestroyPool { pool } => (F::DestroyMempool, pool),
        Request::PoolAllocated { pool, .. } => (F::MempoolAlloc, pool),
        Request::PoolFreed { start, .. } => (F::MempoolFree, start),
        Request::TrimPool { pool, .. } => (F::MempoolTrim, pool),
        Request::MovePool { from, .. } => (F::MoveMempool, from),
        Request::PoolChanged { from, .. } => (F::MempoolChange, from),
        _ => return None,
    };
    let by = site.by(function);
    let result = ACCOUNT.with(|blocks| match request {
        Request::Resized { start, size, redzone } => blocks.resize(memory, start, size, redzone),
        Request::Freed { start } if start == Addr::NULL => Ok(()),
        Request::Freed { start } => blocks.free(memory, start, by),
        Request::DestroyPool { pool } => blocks.destroy_pool(memory, pool, by),
        Request::PoolAllocated { pool, piece } => blocks.allocate_piece(memory, pool, piece, by),
        Request::PoolFreed { pool, start } => blocks.free_piece(memory, pool, start, by),
        Request::TrimPool { pool, kept } => blocks.trim_pool(memory, pool, kept, by),
        Request::MovePool { from, to } => blocks.move_pool(from, to),
        Request::PoolChanged { pool, from, piece } => blocks.change_piece(pool, from, piece),
        _ => Ok(()),
    });
    if let Err(mistake) = result {
        let (kind, address) = match (mistake, request) {
            (Mistake::NoPool, Request::PoolFreed { pool, .. } | Request::PoolChanged { pool, .. }) => {
                (ErrorKind::BadMempool, pool)
            }
            (Mistake::NoPool, _) => (ErrorKind::BadMempool, about),
            (Mistake::NoBlock, Request::Freed { start }) if is_of_heap(start) => {
                (ErrorKind::AllocDeallocMismatch, about)
            }
            (Mistake::NoBlock, _) => (ErrorKind::BadFree, about),
            (Mistake::AlreadyFreed(_), _) => (ErrorKind::DoubleFree, about),
        };
        report(&Wrong { site, kind, function, address, access: None, mistake: Some(mistake) });
    }
    None
}

/// Whether a live block of the heap's begins there.
fn is_of_heap(start: Addr) -> bool {
    let chunk = heap::describe(start).flatten();
    chunk.is_some_and(|chunk| chunk.start == start && chunk.state == ChunkState::Live)
}

/// The first byte of the range that must not be touched.
fn find_bad(range: AddrRange) -> Option<Addr> {
    if range.is_empty() {
        return None;
    }
    shadow_map::find_bad(range).or_else(|| {
        let pages = (range.start().0 / PAGE..range.end().0.div_ceil(PAGE)).take(MOST_PAGES as usize);
        let unmapped = pages.map(|page| page * PAGE).find(|&page| !process::is_mapped(page));
        unmapped.map(|page| Addr(page.max(range.start().0)))
    })
}

fn check(site: &Site, range: AddrRange, how: Check) -> u64 {
    let Some(bad) = find_bad(range) else { return 0 };
    let function = match how {
        Check::Addressable => Function::CheckAddressable,
        Check::Defined => Function::CheckDefined,
    };
    let access = Access { kind: AccessKind::Read, addr: range.start(), size: range.size() };
    report(&Wrong {
        site,
        kind: ErrorKind::ClientCheck,
        function,
        address: bad,
        access: Some(access),
        mistake: None,
    });
    bad.0
}

/// `VALGRIND_GET_VBITS`: 1 when it was done, 3 when some of either range must not be touched.
fn read_validity(range: AddrRange, to: Addr) -> u64 {
    let Some(into) = AddrRange::new(to, range.size()) else { return 3 };
    if find_bad(range).is_some() || find_bad(into).is_some() {
        return 3;
    }
    // SAFETY: the target's own memory, which it said to write to, and which is mapped.
    unsafe { core::ptr::write_bytes(to.0 as *mut u8, 0, range.size().0 as usize) };
    1
}

/// An error in a request.
struct Wrong<'a> {
    site: &'a Site,
    kind: ErrorKind,
    function: Function,
    address: Addr,
    access: Option<Access>,
    mistake: Option<Mistake>,
}

#[cold]
fn report(wrong: &Wrong<'_>) {
    if !channel::is_vfork_child() {
        // The target's stack may be small.
        gate::REPORT.run(tell, wrong);
    }
}

extern "C" fn tell(wrong: &Wrong<'_>) {
    let registers = wrong.site.registers;
    let described = match wrong.mistake {
        Some(Mistake::AlreadyFreed(client)) => parts::Described::client(&client),
        _ => parts::describe(wrong.address, Addr(registers.sp)),
    };
    let mut frames = [Pc(0); MAX_FRAMES];
    channel::report(&ErrorEvent {
        kind: wrong.kind,
        tid: ThreadId(process::tid()),
        function: Some(wrong.function),
        access: wrong.access,
        address: wrong.address,
        place: described.place,
        detail: Detail::None,
        exact_top: true,
        stack: stacks::capture_interrupted_in(registers, &mut frames),
        allocated: described.allocated(),
        freed: described.freed(),
    });
}

/// Where a block of the target's own was given out and taken back.
pub fn stacks_of(client: &ClientBlock) -> [StackId; 2] {
    [client.allocated.stack, client.freed.map_or(StackId::NONE, |origin| origin.stack)]
}
