//! Lines that a chase of loads goes through, one after the other.

use serde::Serialize;

/// A tensor of lines, each of which names the next of one cycle through all of them, so that it can be followed by loads that wait for each
/// other. Lines have ranks: the one of rank r lies at a place that is a hash of r, and names the one of rank r + 1. So where a
/// walk of any length ends is known without walking it. Element c of a line names element c of the next: its bits exceed those of 1 by how
/// many bytes that one lies behind element 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Cycle {
    /// Elements of a line.
    pub line: u32,
    /// Lines: a power of two.
    pub lines: u32,
}

impl Cycle {
    /// The bits of 1, which names element 0.
    pub const ONE: u32 = 0x3f80_0000;
    /// Odd factors of the hash, those of [`super::mix`], and their inverses modulo 2³².
    const FACTORS: [u32; 2] = [0x7feb_352d, 0x846c_a68b];
    const INVERSES: [u32; 2] = [0x1d69_e2a5, 0x4302_1123];

    /// Half of a place's bits, rounded up: a shift by so many is undone by itself.
    #[inline]
    pub(crate) fn half(&self) -> u32 {
        self.lines.ilog2().div_ceil(2)
    }

    /// Where the line of a rank lies; that of rank 0 is the first.
    #[inline]
    pub fn place(&self, rank: u32) -> u32 {
        let (mask, half) = (self.lines - 1, self.half());
        Self::FACTORS.iter().fold(rank, |at, &factor| {
            let at = at.wrapping_mul(factor) & mask;
            at ^ (at >> half)
        })
    }

    /// The rank of a line.
    #[inline]
    pub fn rank(&self, place: u32) -> u32 {
        let (mask, half) = (self.lines - 1, self.half());
        Self::INVERSES.iter().rev().fold(place, |at, &inverse| (at ^ (at >> half)).wrapping_mul(inverse) & mask)
    }

    /// The element that element 0 of a line names.
    #[inline]
    pub fn next(&self, place: u32) -> u32 {
        self.place(self.rank(place).wrapping_add(1)) * self.line
    }

    /// The number that names an element.
    #[inline]
    pub fn named(element: u32) -> f32 {
        f32::from_bits(Self::ONE + 4 * element)
    }

    /// Element `index`.
    #[inline]
    pub fn element(&self, index: u64) -> f32 {
        let index = index as u32;
        Self::named(self.next(index / self.line) + index % self.line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_from_line_to_line_passes_each_once_and_is_where_its_rank_says() {
        for lines in [2u32, 4, 16, 32, 1 << 9, 1 << 14] {
            let cycle = Cycle { line: 32, lines };
            let (mut at, mut seen) = (0u64, vec![false; lines as usize]);
            for rank in 0..lines {
                let place = at as u32 / 32;
                assert_eq!((cycle.place(rank), cycle.rank(place), at % 32), (place, rank, 0));
                assert!(!std::mem::replace(&mut seen[place as usize], true), "line {place} of {lines} comes twice");
                assert_eq!(cycle.element(at + 5).to_bits(), cycle.element(at).to_bits() + 20);
                at = (cycle.element(at).to_bits() - Cycle::ONE) as u64 / 4;
            }
            assert_eq!(at, 0, "it ends where it began");
        }
    }

    #[test]
    fn steps_of_a_cycle_cannot_be_guessed_from_those_before() {
        let cycle = Cycle { line: 1, lines: 1 << 16 };
        let step = |rank: u32| cycle.place(rank + 1).wrapping_sub(cycle.place(rank));
        let all = (1u32 << 16) - 2;
        let repeated = (0..all).filter(|&rank| step(rank) == step(rank + 1)).count();
        let near = (0..all).filter(|&rank| (step(rank) as i32).unsigned_abs() <= 64).count();
        // By chance 1 and 128 of them.
        assert!(repeated <= 64 && near <= 512, "{repeated} repeated, {near} near");
    }
}
