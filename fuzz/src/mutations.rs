//! Inputs made of other inputs, the same ones each time: what a fuzzer does first, without its coverage.

/// An endless sequence of changed seeds.
#[derive(Debug)]
pub struct Mutations<'a> {
    seeds: &'a [Vec<u8>],
    state: u64,
}

/// Values at the edges of what numbers can be.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    i32::MAX as u64,
    u32::MAX as u64,
    i64::MAX as u64,
    u64::MAX,
    u64::MAX - 7,
];

impl<'a> Mutations<'a> {
    /// Of these seeds; another number gives other changes.
    #[must_use]
    pub fn new(seeds: &'a [Vec<u8>], number: u64) -> Self {
        Self { seeds, state: number.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15) | 1 }
    }

    /// A number below `limit`, or zero. Marsaglia, "Xorshift RNGs", with a multiplication behind.
    fn below(&mut self, limit: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let number = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16;
        (number as usize).checked_rem(limit).unwrap_or(0)
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len());
        let most = (bytes.len() - at).min(32);
        match self.below(9) {
            0 | 1 if most > 0 => bytes[at] ^= 1 << self.below(8),
            2 if most > 0 => bytes[at] = self.below(256) as u8,
            3 | 4 => {
                let edge = EDGES[self.below(EDGES.len())].to_le_bytes();
                let width = (1 << self.below(4)).min(most);
                bytes[at..at + width].copy_from_slice(&edge[..width]);
            }
            5 => drop(bytes.drain(at..at + self.below(most + 1))),
            6 => {
                let copied = bytes[at..at + self.below(most + 1)].to_vec();
                let to = self.below(bytes.len() + 1);
                bytes.splice(to..to, copied);
            }
            7 => {
                let other = &self.seeds[self.below(self.seeds.len())];
                let from = self.below(other.len());
                let len = self.below((other.len() - from).min(64) + 1);
                bytes.splice(at..(at + len).min(bytes.len()), other[from..from + len].iter().copied());
            }
            _ => {
                // Rarely, or most inputs would be short.
                if self.below(8) == 0 {
                    bytes.truncate(at);
                }
            }
        }
    }
}

impl Iterator for Mutations<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut bytes = self.seeds.get(self.below(self.seeds.len()))?.clone();
        for _ in 0..=self.below(6) {
            self.change(&mut bytes);
        }
        Some(bytes)
    }
}
