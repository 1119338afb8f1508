//! Where return addresses stand for others that `callers` hid: jumps in the unused end of a module's last page of
//! text, one for each call that hides its own, and the first for those that are left without.
//!
//! ```text
//!  end of text   jmp back stub   shared: what it stands for only the thread knows
//!                jmp back stub   stands for returns[0], from the call that asked first
//!                …               to the end of the page, at most MOST
//! ```
//! Invariant: what a landing stands for never changes, so that unwind rules for it may be kept.

use alloc::vec::Vec;

use memcheck_model::{Addr, Pc};
use memcheck_rewrite::ENTRY_JUMP_BYTES;

use super::{code_filter, image::Image};

/// Few modules call the functions in question from more places.
const MOST: u64 = 64;

/// The landings of a module.
pub struct Landings {
    first: Addr,
    count: u64,
    /// The original return addresses that landings stand for, from the second on.
    returns: Vec<Pc>,
}

impl Landings {
    /// The room that a module has for them, if it has any.
    pub fn find_room(image: &Image) -> Option<Self> {
        let rest = image.rest_of_text()?;
        code_filter::note(rest);
        let count = (rest.size().0 / ENTRY_JUMP_BYTES).min(MOST);
        (count > 0).then_some(Self { first: rest.start(), count, returns: Vec::new() })
    }

    fn at(&self, index: u64) -> Addr {
        Addr(self.first.0 + index * ENTRY_JUMP_BYTES)
    }

    /// Where the jumps are to be written.
    pub fn places(&self) -> impl Iterator<Item = Addr> {
        (0..self.count).map(|index| self.at(index))
    }

    /// Whether `at` is one of them.
    pub fn contains(&self, at: Addr) -> bool {
        self.places().any(|place| place == at)
    }

    /// The landing that stands for `original`.
    pub fn find_or_take(&mut self, original: Pc) -> Addr {
        let known = self.returns.iter().position(|&other| other == original);
        if let Some(index) = known {
            return self.at(index as u64 + 1);
        }
        if self.returns.len() as u64 + 1 == self.count {
            return self.first;
        }
        self.returns.push(original);
        self.at(self.returns.len() as u64)
    }

    /// What the landing at `at` stands for.
    pub fn find_return(&self, at: Addr) -> Option<Pc> {
        let distance = at.0.checked_sub(self.first.0)?;
        let index = (distance / ENTRY_JUMP_BYTES).checked_sub(1)?;
        self.returns.get(index as usize).copied().filter(|_| distance.is_multiple_of(ENTRY_JUMP_BYTES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_has_its_own_landing_while_there_is_room() {
        let mut landings = Landings { first: Addr(0x1ff0), count: 3, returns: Vec::new() };
        assert_eq!(landings.find_or_take(Pc(1)), Addr(0x1ff5));
        assert_eq!(landings.find_or_take(Pc(2)), Addr(0x1ffa));
        assert_eq!(landings.find_or_take(Pc(1)), Addr(0x1ff5));
        assert_eq!(landings.find_or_take(Pc(3)), Addr(0x1ff0));
        let returns = [0x1ff0, 0x1ff5, 0x1ff6, 0x1ffa, 0x1fff].map(|at| landings.find_return(Addr(at)));
        assert_eq!(returns, [None, Some(Pc(1)), None, Some(Pc(2)), None]);
        assert!(landings.contains(Addr(0x1ff0)) && !landings.contains(Addr(0x1ff1)));
    }
}
