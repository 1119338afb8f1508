//! The blocks that a program's own allocators give out, as it tells of them, and the pools that they come from.
//!
//! A *block* is from `MALLOCLIKE_BLOCK` or a piece of a pool; a *piece of a metapool* is memory that blocks are cut
//! from. Both are found by address:
//! ```text
//!   redzone │ block │ redzone        forbidden │ allowed │ forbidden
//! ```
//! Freed blocks are remembered until their memory is given out again, the last [`MOST_FREED`] of them.
//!
//! Invariants: no two live blocks begin at one address, nor two pieces of metapools; what a program tells of a block
//! that overlaps an older one counts, as the older one's memory was given out again.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    vec::Vec,
};

use memcheck_model::{Addr, AddrRange, Function, Size, StackId, ThreadId};

use crate::PoolFlags;

/// How many freed blocks are remembered: enough for any report to come soon after.
const MOST_FREED: usize = 1 << 16;
/// An address this close to a block belongs to it when nothing else is known of it: the least redzone of the heap.
const NEAR: u64 = 16;

/// Where the effects of requests are seen.
pub trait Memory {
    /// No byte of the range may be touched.
    fn forbid(&self, range: AddrRange);
    /// Every byte of the range may be touched.
    fn allow(&self, range: AddrRange);
}

/// Who did something, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The request.
    pub function: Function,
    /// Where it was made.
    pub stack: StackId,
    /// By which thread.
    pub tid: ThreadId,
}

/// A block that the program told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientBlock {
    /// Its bytes.
    pub range: AddrRange,
    /// Who gave it out.
    pub allocated: Origin,
    /// Who took it back, if it was.
    pub freed: Option<Origin>,
    redzone: Size,
    /// The pool that it is a piece of.
    pool: Option<Addr>,
}

impl ClientBlock {
    /// How far `addr` is from the block, if that is near: zero inside.
    fn find_distance(&self, addr: Addr) -> Option<u64> {
        let (start, end) = (self.range.start().0, self.range.end().0);
        let distance = if addr.0 < start { start - addr.0 } else { (addr.0 + 1).saturating_sub(end) };
        let reach = if self.freed.is_some() { 0 } else { self.redzone.0.max(NEAR) };
        (distance <= reach).then_some(distance)
    }
}

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// What is taken back was never given out.
    NoBlock,
    /// It was taken back already.
    AlreadyFreed(ClientBlock),
    /// There is no such pool.
    NoPool,
}

#[derive(Debug)]
struct Pool {
    redzone: Size,
    flags: PoolFlags,
    /// Where its pieces begin. Some may be no piece of it any more: given out again otherwise, or by `FREELIKE_BLOCK`.
    starts: BTreeSet<u64>,
}

/// All that is known.
#[derive(Debug, Default)]
pub struct Blocks {
    live: BTreeMap<u64, ClientBlock>,
    metapieces: BTreeMap<u64, ClientBlock>,
    freed: BTreeMap<u64, ClientBlock>,
    freed_order: VecDeque<u64>,
    pools: BTreeMap<u64, Pool>,
    names: Vec<Option<ClientBlock>>,
    /// Ranges whose errors are told or not, the latest word last.
    told: Vec<(AddrRange, bool)>,
    given: Given,
}

/// What `MALLOCLIKE_BLOCK` gave out and `FREELIKE_BLOCK` took back, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// Blocks given out.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those of the blocks that were taken back.
    pub taken_blocks: u64,
    /// Their bytes.
    pub taken_bytes: u64,
}

fn hull(range: AddrRange, redzone: Size) -> AddrRange {
    let start = Addr(range.start().0.saturating_sub(redzone.0));
    let end = Addr(range.end().0.saturating_add(redzone.0));
    AddrRange::between(start, end).unwrap_or(range)
}

impl Blocks {
    /// Nothing known.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            live: BTreeMap::new(),
            metapieces: BTreeMap::new(),
            freed: BTreeMap::new(),
            freed_order: VecDeque::new(),
            pools: BTreeMap::new(),
            names: Vec::new(),
            told: Vec::new(),
            given: Given { blocks: 0, bytes: 0, taken_blocks: 0, taken_bytes: 0 },
        }
    }

    /// What was given out and taken back, but for pieces of pools.
    #[must_use]
    pub fn given(&self) -> Given {
        self.given
    }

    /// What `addr` is inside or near of: the live block that holds it, or else the nearest of all.
    #[must_use]
    pub fn find(&self, addr: Addr) -> Option<ClientBlock> {
        let maps = [&self.live, &self.freed, &self.metapieces];
        let nearest = maps.into_iter().filter_map(|map| {
            let before = map.range(..=addr.0).next_back();
            let after = map.range(addr.0..).next();
            let near = before.into_iter().chain(after);
            near.filter_map(|(_, block)| Some((block.find_distance(addr)?, *block))).min_by_key(|near| near.0)
        });
        let named =
            self.names.iter().flatten().find(|block| block.range.contains(addr)).map(|block| (0, *block));
        // The first of equals: a live block before a freed one.
        named.into_iter().chain(nearest).min_by_key(|near| near.0).map(|(_, block)| block)
    }

    /// The live blocks, in the order of their addresses.
    pub fn live(&self) -> impl Iterator<Item = &ClientBlock> {
        self.live.values()
    }

    fn insert(&mut self, memory: &impl Memory, block: ClientBlock, is_metapiece: bool) {
        memory.forbid(hull(block.range, block.redzone));
        memory.allow(block.range);
        let reused =
            self.freed.range(block.range.start().0..block.range.end().0.max(block.range.start().0 + 1));
        let reused: Vec<u64> = reused.map(|(start, _)| *start).collect();
        for start in reused {
            self.freed.remove(&start);
        }
        let map = if is_metapiece { &mut self.metapieces } else { &mut self.live };
        map.insert(block.range.start().0, block);
    }

    /// Takes a block back that is in no map any more.
    fn retire(&mut self, memory: &impl Memory, block: ClientBlock, by: Origin) {
        memory.forbid(hull(block.range, block.redzone));
        let start = block.range.start().0;
        if self.freed.insert(start, ClientBlock { freed: Some(by), ..block }).is_none() {
            self.freed_order.push_back(start);
        }
        // Those that were given out again stand in the order still.
        while self.freed_order.len() > MOST_FREED {
            if let Some(oldest) = self.freed_order.pop_front() {
                self.freed.remove(&oldest);
            }
        }
    }

    /// `MALLOCLIKE_BLOCK`.
    pub fn allocate(&mut self, memory: &impl Memory, range: AddrRange, redzone: Size, by: Origin) {
        let block = ClientBlock { range, allocated: by, freed: None, redzone, pool: None };
        self.given.blocks += 1;
        self.given.bytes += range.size().0;
        self.insert(memory, block, false);
    }

    fn missing(&self, start: Addr) -> Mistake {
        let freed = self.freed.get(&start.0).filter(|block| block.freed.is_some());
        freed.map_or(Mistake::NoBlock, |block| Mistake::AlreadyFreed(*block))
    }

    /// `FREELIKE_BLOCK`.
    ///
    /// # Errors
    /// When no block begins there.
    pub fn free(&mut self, memory: &impl Memory, start: Addr, by: Origin) -> Result<(), Mistake> {
        let block = self.live.remove(&start.0).ok_or_else(|| self.missing(start))?;
        if block.pool.is_none() {
            self.given.taken_blocks += 1;
            self.given.taken_bytes += block.range.size().0;
        }
        self.retire(memory, block, by);
        Ok(())
    }

    /// `RESIZEINPLACE_BLOCK`.
    ///
    /// # Errors
    /// When no block begins there.
    pub fn resize(
        &mut self,
        memory: &impl Memory,
        start: Addr,
        size: Size,
        redzone: Size,
    ) -> Result<(), Mistake> {
        let block = self.live.get(&start.0).copied().ok_or_else(|| self.missing(start))?;
        if let Some(range) = AddrRange::new(start, size) {
            memory.forbid(hull(block.range, block.redzone));
            self.insert(memory, ClientBlock { range, redzone, ..block }, false);
        }
        Ok(())
    }

    /// `CREATE_BLOCK`: the number of the name.
    pub fn name(&mut self, range: AddrRange, by: Origin) -> u64 {
        let block = ClientBlock { range, allocated: by, freed: None, redzone: Size::ZERO, pool: None };
        let free = self.names.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.names.push(None);
            self.names.len() - 1
        });
        self.names[index] = Some(block);
        index as u64
    }

    /// `DISCARD`: whether there was such a name.
    pub fn forget_name(&mut self, index: u64) -> bool {
        let name = usize::try_from(index).ok().and_then(|index| self.names.get_mut(index));
        name.and_then(Option::take).is_some()
    }

    /// `ENABLE_ADDR_ERROR_REPORTING_IN_RANGE` and `DISABLE_…`.
    pub fn tell(&mut self, range: AddrRange, told: bool) {
        let covers = |older: AddrRange| range.start() <= older.start() && older.end() <= range.end();
        self.told.retain(|&(older, _)| !covers(older));
        self.told.push((range, told));
    }

    /// Whether bad accesses to `addr` are to be told.
    #[must_use]
    pub fn is_told(&self, addr: Addr) -> bool {
        self.told.iter().rev().find(|(range, _)| range.contains(addr)).is_none_or(|&(_, told)| told)
    }

    /// `CREATE_MEMPOOL`. A pool of that address is another one from now on.
    pub fn create_pool(&mut self, pool: Addr, redzone: Size, flags: PoolFlags) {
        self.pools.insert(pool.0, Pool { redzone, flags, starts: BTreeSet::new() });
    }

    /// `MEMPOOL_EXISTS`.
    #[must_use]
    pub fn has_pool(&self, pool: Addr) -> bool {
        self.pools.contains_key(&pool.0)
    }

    fn pool(&mut self, pool: Addr) -> Result<&mut Pool, Mistake> {
        self.pools.get_mut(&pool.0).ok_or(Mistake::NoPool)
    }

    fn pieces_of(&mut self, flags: PoolFlags) -> &mut BTreeMap<u64, ClientBlock> {
        if flags.is_metapool { &mut self.metapieces } else { &mut self.live }
    }

    /// The piece of the pool that begins there, which is one no more.
    fn take_piece(&mut self, pool: Addr, flags: PoolFlags, start: u64) -> Option<ClientBlock> {
        let pieces = self.pieces_of(flags);
        let is_its = pieces.get(&start).is_some_and(|piece| piece.pool == Some(pool));
        if is_its { pieces.remove(&start) } else { None }
    }

    /// `DESTROY_MEMPOOL`: its pieces are taken back.
    ///
    /// # Errors
    /// When there is no such pool.
    pub fn destroy_pool(&mut self, memory: &impl Memory, pool: Addr, by: Origin) -> Result<(), Mistake> {
        let Pool { flags, starts, .. } = self.pools.remove(&pool.0).ok_or(Mistake::NoPool)?;
        for start in starts {
            if let Some(piece) = self.take_piece(pool, flags, start) {
                self.retire(memory, piece, by);
            }
        }
        Ok(())
    }

    /// `MEMPOOL_ALLOC`.
    ///
    /// # Errors
    /// When there is no such pool.
    pub fn allocate_piece(
        &mut self,
        memory: &impl Memory,
        pool: Addr,
        range: AddrRange,
        by: Origin,
    ) -> Result<(), Mistake> {
        let Pool { redzone, flags, starts } = self.pool(pool)?;
        let (redzone, flags) = (*redzone, *flags);
        starts.insert(range.start().0);
        let piece = ClientBlock { range, allocated: by, freed: None, redzone, pool: Some(pool) };
        self.insert(memory, piece, flags.is_metapool);
        Ok(())
    }

    /// `MEMPOOL_FREE`.
    ///
    /// # Errors
    /// When there is no such pool, or none of its pieces begins there.
    pub fn free_piece(
        &mut self,
        memory: &impl Memory,
        pool: Addr,
        start: Addr,
        by: Origin,
    ) -> Result<(), Mistake> {
        let Pool { flags, starts, .. } = self.pool(pool)?;
        let flags = *flags;
        starts.remove(&start.0);
        let piece = self.take_piece(pool, flags, start.0).ok_or_else(|| self.missing(start))?;
        if flags.frees_blocks {
            let blocks: Vec<u64> = self
                .live
                .range(piece.range.start().0..piece.range.end().0)
                .map(|(start, _)| *start)
                .collect();
            for start in blocks {
                self.live.remove(&start);
            }
        }
        self.retire(memory, piece, by);
        Ok(())
    }

    /// `MEMPOOL_TRIM`: pieces outside `kept` are taken back, those that cross its ends are cut.
    ///
    /// # Errors
    /// When there is no such pool.
    pub fn trim_pool(
        &mut self,
        memory: &impl Memory,
        pool: Addr,
        kept: AddrRange,
        by: Origin,
    ) -> Result<(), Mistake> {
        let Pool { flags, starts, .. } = self.pool(pool)?;
        let (flags, starts) = (*flags, core::mem::take(starts));
        let mut kept_starts = BTreeSet::new();
        for start in starts {
            let Some(piece) = self.take_piece(pool, flags, start) else { continue };
            let from = piece.range.start().max(kept.start());
            let to = piece.range.end().min(kept.end());
            match AddrRange::between(from, to).filter(|range| !range.is_empty()) {
                Some(range) => {
                    if range != piece.range {
                        memory.forbid(piece.range);
                        memory.allow(range);
                    }
                    kept_starts.insert(range.start().0);
                    self.pieces_of(flags).insert(range.start().0, ClientBlock { range, ..piece });
                }
                None => self.retire(memory, piece, by),
            }
        }
        self.pool(pool)?.starts = kept_starts;
        Ok(())
    }

    /// `MOVE_MEMPOOL`.
    ///
    /// # Errors
    /// When there is no such pool.
    pub fn move_pool(&mut self, from: Addr, to: Addr) -> Result<(), Mistake> {
        let pool = self.pools.remove(&from.0).ok_or(Mistake::NoPool)?;
        for start in &pool.starts {
            let piece = self.pieces_of(pool.flags).get_mut(start);
            if let Some(piece) = piece.filter(|piece| piece.pool == Some(from)) {
                piece.pool = Some(to);
            }
        }
        self.pools.insert(to.0, pool);
        Ok(())
    }

    /// `MEMPOOL_CHANGE`. What is left behind is not forbidden: the pool says so itself where it wants that.
    ///
    /// # Errors
    /// When there is no such pool, or none of its pieces begins there.
    pub fn change_piece(&mut self, pool: Addr, from: Addr, range: AddrRange) -> Result<(), Mistake> {
        let Pool { flags, starts, .. } = self.pool(pool)?;
        let flags = *flags;
        starts.remove(&from.0);
        starts.insert(range.start().0);
        let piece = self.take_piece(pool, flags, from.0).ok_or_else(|| self.missing(from))?;
        self.pieces_of(flags).insert(range.start().0, ClientBlock { range, ..piece });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use core::cell::RefCell;

    /// Addresses 0 to 255, allowed or not.
    struct Bytes(RefCell<[bool; 256]>);

    impl Bytes {
        fn new() -> Self {
            Self(RefCell::new([true; 256]))
        }

        fn set(&self, range: AddrRange, allowed: bool) {
            self.0.borrow_mut()[range.start().0 as usize..range.end().0 as usize].fill(allowed);
        }

        fn allowed(&self, addr: u64) -> bool {
            self.0.borrow()[addr as usize]
        }
    }

    impl Memory for Bytes {
        fn forbid(&self, range: AddrRange) {
            self.set(range, false);
        }
        fn allow(&self, range: AddrRange) {
            self.set(range, true);
        }
    }

    fn range(start: u64, size: u64) -> AddrRange {
        AddrRange::new(Addr(start), Size(size)).unwrap()
    }

    fn by(function: Function) -> Origin {
        Origin { function, stack: StackId(1), tid: ThreadId(1) }
    }

    const GIVEN: Function = Function::MallocLike;
    const TAKEN: Function = Function::FreeLike;

    #[test]
    fn a_block_is_allowed_between_its_redzones_and_forbidden_once_it_is_freed() {
        let (memory, mut blocks) = (Bytes::new(), Blocks::new());
        blocks.allocate(&memory, range(64, 10), Size(8), by(GIVEN));
        assert!([63, 56, 74, 81].iter().all(|&addr| !memory.allowed(addr)));
        assert!([55, 64, 73, 82].iter().all(|&addr| memory.allowed(addr)));
        assert_eq!(blocks.find(Addr(75)).map(|block| block.range), Some(range(64, 10)));
        assert_eq!(blocks.free(&memory, Addr(64), by(TAKEN)), Ok(()));
        assert!(!memory.allowed(64) && blocks.find(Addr(70)).unwrap().freed.is_some());
        assert!(matches!(blocks.free(&memory, Addr(64), by(TAKEN)), Err(Mistake::AlreadyFreed(_))));
        assert_eq!(blocks.free(&memory, Addr(65), by(TAKEN)), Err(Mistake::NoBlock));
    }

    #[test]
    fn memory_that_is_given_out_again_is_no_freed_block_any_more() {
        let (memory, mut blocks) = (Bytes::new(), Blocks::new());
        blocks.allocate(&memory, range(64, 8), Size(0), by(GIVEN));
        blocks.free(&memory, Addr(64), by(TAKEN)).unwrap();
        blocks.allocate(&memory, range(60, 20), Size(0), by(GIVEN));
        assert_eq!(blocks.find(Addr(64)).and_then(|block| block.freed), None);
    }

    #[test]
    fn a_block_is_resized_in_place() {
        let (memory, mut blocks) = (Bytes::new(), Blocks::new());
        blocks.allocate(&memory, range(64, 16), Size(8), by(GIVEN));
        blocks.resize(&memory, Addr(64), Size(8), Size(8)).unwrap();
        assert!(memory.allowed(71) && !memory.allowed(72) && !memory.allowed(87));
        assert_eq!(blocks.live().map(|block| block.range.size().0).collect::<Vec<_>>(), [8]);
    }

    #[test]
    fn pieces_belong_to_their_pool() {
        let (memory, mut blocks) = (Bytes::new(), Blocks::new());
        let (pool, other) = (Addr(1), Addr(2));
        assert_eq!(blocks.allocate_piece(&memory, pool, range(64, 8), by(GIVEN)), Err(Mistake::NoPool));
        blocks.create_pool(pool, Size(4), PoolFlags::default());
        blocks.create_pool(other, Size(0), PoolFlags::default());
        assert!(blocks.has_pool(pool) && !blocks.has_pool(Addr(3)));
        blocks.allocate_piece(&memory, pool, range(64, 8), by(GIVEN)).unwrap();
        blocks.allocate_piece(&memory, other, range(80, 8), by(GIVEN)).unwrap();
        assert_eq!(blocks.free_piece(&memory, other, Addr(64), by(TAKEN)), Err(Mistake::NoBlock));
        blocks.move_pool(pool, Addr(9)).unwrap();
        blocks.destroy_pool(&memory, Addr(9), by(TAKEN)).unwrap();
        assert!(!memory.allowed(64) && memory.allowed(80));
        assert_eq!(blocks.destroy_pool(&memory, Addr(9), by(TAKEN)), Err(Mistake::NoPool));
    }

    #[test]
    fn trimming_takes_back_what_lies_outside_and_cuts_what_crosses() {
        let (memory, mut blocks) = (Bytes::new(), Blocks::new());
        let pool = Addr(1);
        blocks.create_pool(pool, Size(0), PoolFlags::default());
        for start in [0, 32, 64] {
            blocks.allocate_piece(&memory, pool, range(start, 16), by(GIVEN)).unwrap();
        }
        blocks.trim_pool(&memory, pool, range(40, 30), by(TAKEN)).unwrap();
        let left: Vec<AddrRange> = blocks.live().map(|block| block.range).collect();
        assert_eq!(left, [range(40, 8), range(64, 6)]);
        assert!(!memory.allowed(0) && !memory.allowed(39) && memory.allowed(40) && !memory.allowed(70));
    }

    #[test]
    fn a_changed_piece_has_its_new_address_and_keeps_its_origin() {
        let (memory, mut blocks) = (Bytes::new(), Blocks::new());
        let pool = Addr(1);
        blocks.create_pool(pool, Size(0), PoolFlags::default());
        blocks.allocate_piece(&memory, pool, range(64, 8), by(GIVEN)).unwrap();
        blocks.change_piece(pool, Addr(64), range(96, 24)).unwrap();
        assert_eq!(blocks.find(Addr(100)).map(|block| block.range), Some(range(96, 24)));
        assert_eq!(blocks.change_piece(pool, Addr(64), range(96, 24)), Err(Mistake::NoBlock));
    }

    #[test]
    fn freeing_a_piece_of_a_metapool_frees_the_blocks_in_it_when_it_says_so() {
        let (memory, mut blocks) = (Bytes::new(), Blocks::new());
        let pool = Addr(1);
        blocks.create_pool(pool, Size(0), PoolFlags { is_metapool: true, frees_blocks: true });
        blocks.allocate_piece(&memory, pool, range(64, 64), by(GIVEN)).unwrap();
        assert_eq!(blocks.live().count(), 0);
        blocks.allocate(&memory, range(64, 8), Size(0), by(GIVEN));
        blocks.free_piece(&memory, pool, Addr(64), by(TAKEN)).unwrap();
        assert_eq!(blocks.live().count(), 0);
    }

    #[test]
    fn the_latest_word_on_a_range_counts() {
        let mut blocks = Blocks::new();
        blocks.tell(range(64, 100), false);
        blocks.tell(range(80, 10), true);
        assert_eq!(
            [63, 64, 79, 80, 89, 90, 164].map(|at| blocks.is_told(Addr(at))),
            [true, false, false, true, true, false, true]
        );
        blocks.tell(range(64, 100), true);
        assert!(blocks.is_told(Addr(64)) && blocks.told.len() == 1);
    }

    #[test]
    fn names_are_numbered_and_forgotten() {
        let mut blocks = Blocks::new();
        assert_eq!(blocks.name(range(8, 8), by(Function::CreateBlock)), 0);
        assert_eq!(blocks.name(range(32, 8), by(Function::CreateBlock)), 1);
        assert!(blocks.forget_name(0) && !blocks.forget_name(0) && !blocks.forget_name(7));
        assert_eq!(blocks.name(range(64, 8), by(Function::CreateBlock)), 0);
    }
}
