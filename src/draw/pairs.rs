//! Factors of products whose sums stay small, for units that keep few bits of a sum.

use serde::Serialize;

use super::{eighths, word};

/// A factor of a matrix product that is added to the same sums again and again, where these must stay exact in few bits. Elements are
/// multiples of 1/8 in [−1, 1]. Along k they come in pairs: both of a pair are equal in one factor and opposed in the other, so that their
/// products cancel. The first pair alone is free, and small: 0 or 1/8 in one factor, −1/8, 0 or 1/8 in the other. So a sum
/// over k is −2, −1, 0, 1 or 2 times 1/64, while its terms are of any size up to 1; and none is left out unseen but both of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Pairs {
    /// Extent of k, a power of two of at least 32.
    pub depth: u32,
    /// Elements from one step of k to the next.
    pub apart: u32,
    /// Whether the second of a pair is the first with its sign changed, and the small ones have signs.
    pub opposed: bool,
}

impl Pairs {
    /// Bits of k in which the two of a pair differ: they lie in different halves of k, lanes of a warp and bytes of a
    /// register, so that a kernel that takes one of those for another parts them.
    const PARTNER: u32 = 21;

    /// Element `index`, exact in every type that holds multiples of 1/8.
    #[inline]
    pub fn element(&self, keys: &[u32; 4], index: u64) -> f32 {
        let k = (index / self.apart as u64) as u32 & (self.depth - 1);
        let first = k.min(k ^ Self::PARTNER);
        if first == 0 {
            let hash = word(keys, index) >> 16;
            let eighth = if self.opposed { ((hash * 3) >> 16) as i32 - 1 } else { (hash >> 15) as i32 };
            return eighth as f32 * (1.0 / 8.0);
        }
        let x = eighths(keys, index - ((k - first) * self.apart) as u64);
        if self.opposed && k != first { -x } else { x }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::keys;

    const A: Pairs = Pairs { depth: 32, apart: 1, opposed: false };
    const B: Pairs = Pairs { depth: 32, apart: 256, opposed: true };

    #[test]
    fn terms_are_of_any_size_and_their_sums_two_sixty_fourths_at_most() {
        for seed in 0..20 {
            let (of_a, of_b) = (keys(seed, 0), keys(seed, 1));
            let (mut seen, mut largest) = ([0; 5], 0f32);
            for (i, j) in (0..64).flat_map(|i| (0..256).map(move |j| (i, j))) {
                let terms: Vec<f32> = (0..32).map(|k| A.element(&of_a, i * 32 + k) * B.element(&of_b, k * 256 + j)).collect();
                assert!(terms.iter().all(|x| x.abs() <= 1.0 && (x * 64.0).fract() == 0.0));
                seen[(terms.iter().sum::<f32>() * 64.0 + 2.0) as usize] += 1;
                largest = terms.iter().fold(largest, |largest, x| largest.max(x.abs()));
            }
            assert!(seen.iter().all(|&count| count > 200) && largest == 1.0, "{seen:?} {largest}");
        }
    }

    #[test]
    fn elements_of_pairs_are_spread_evenly() {
        let keys = keys(5, 0);
        let mut counts = [0u32; 17];
        (0..34_000).filter(|k| k % 32 != 0 && k % 32 != 21).for_each(|i| counts[(A.element(&keys, i) * 8.0 + 8.0) as usize] += 1);
        // 1875 each; those of a pair are equal, hence a standard deviation of 59.
        assert!(counts.iter().all(|count| (1600..2150).contains(count)), "{counts:?}");
    }
}
