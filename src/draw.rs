//! Input data: element i of tensor t is an integer function of (seed, t, i), converted exactly.
//!
//! The same bits come out on every backend: [`element`] here, `shaders/draw.wgsl` and `kernels/draw.cu` on the devices. A
//! *dense* draw is the sum of four 22-bit hashes, near-normal with σ 0.577, rounded once to the storage type; an *exact* draw
//! has multiples of 1/64 (of 8 bits: 1/8) in [−1, 1], whose short sums are exact in f32, so that structure can be checked to the bit. Attention's queries
//! and keys have a fill of their own ([`Rows`]), because softmax hides nearly everything about scores that are all alike; the lines that a
//! chase of loads goes through have another ([`Cycle`]), and so have factors of weights, which are positive ([`scale`]), and those of sums that must
//! stay small ([`Pairs`]). Words are hashes ([`word`]), integers small ([`small`]). The hash is Chris Wellons's `lowbias32` (nullprogram.com/blog/2018/07/31).

use serde::{Deserialize, Serialize};

use crate::op::{DType, Kept, Real, TensorSpec, Tensors};

mod cycle;
mod pairs;

pub use cycle::Cycle;
pub use pairs::Pairs;

/// Which distribution the drawn tensors have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Draw {
    /// Near-normal, zero mean, σ 0.577, in [−2, 2).
    Dense,
    /// Multiples of 1/64 in [−1, 1].
    Exact,
}

/// Where a tensor's elements come from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Fill {
    /// From the draw.
    Draw,
    /// From the draw, in rows that know of each other.
    Rows(Rows),
    /// From the draw, positive: see [`scale`].
    Scale,
    /// Each names another element, in one cycle: the same under every draw and seed.
    Cycle(Cycle),
    /// Factors whose products cancel in pairs, under either draw.
    Pairs(Pairs),
    /// These values, each exact in the storage type.
    Values(Vec<f64>),
}

/// A tensor of queries or keys. Under a dense draw its elements are those of [`element`], times `scale`. Under an exact draw every row
/// names a key: it holds that key's signature, ±`scale`² by a hash of key and column, so that a query and the key it names have a dot
/// product that no other key comes near. Where `step` is 2, rows of odd number hold zeros: such a query sees all keys alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Rows {
    /// Elements of a row.
    pub columns: u32,
    /// Rows of a head.
    pub rows: u32,
    /// Key that a head's first row names; the next row names the next key.
    pub first: u32,
    /// Keys of a head, after which their numbers start anew.
    pub keys: u32,
    /// log₂ of `scale`.
    pub shift: u32,
    /// 2 where only rows of even number name a key, else 1.
    pub step: u32,
}

impl Fill {
    /// As kernels take it, in order; all zeros stand for a plain draw, no columns but a step for scales (1) and pairs (2), and no keys for a
    /// cycle.
    pub fn words(&self) -> [u32; 6] {
        match self {
            Fill::Rows(r) => [r.columns, r.rows, r.first, r.keys, r.shift, r.step],
            Fill::Cycle(c) => [c.line, c.lines, 0, 0, c.half(), 0],
            Fill::Scale => [0, 0, 0, 0, 0, 1],
            Fill::Pairs(p) => [0, p.depth, p.apart, 0, p.opposed as u32, 2],
            Fill::Draw | Fill::Values(_) => [0; 6],
        }
    }
}

impl Rows {
    /// Element `index` before rounding to the storage type; exact in f32.
    #[inline]
    pub fn element(&self, draw: Draw, keys: &[u32; 4], index: u64) -> f32 {
        let scale = (1u32 << self.shift) as f32;
        if draw == Draw::Dense {
            return element(draw, keys, index) * scale;
        }
        let (row, column) = (index / self.columns as u64, (index % self.columns as u64) as u32);
        if self.step == 2 && row % 2 == 1 {
            return 0.0;
        }
        let key = ((row % self.rows as u64) as u32 + self.first) % self.keys;
        let hash = mix(key.wrapping_mul(self.columns).wrapping_add(column) ^ SIGNATURE);
        if hash >> 31 == 0 { scale * scale } else { -scale * scale }
    }
}

/// Tells signatures from other hashes.
const SIGNATURE: u32 = 0x2c1b_3c6d;

/// A draw and its seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Seeded {
    /// Distribution.
    pub draw: Draw,
    /// Seed; equal seeds give equal bits for ever.
    pub seed: u32,
}

/// `lowbias32`: a bijection of u32 with full avalanche.
#[inline]
pub const fn mix(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// The four keys of a tensor: hash j of element i is `mix(low(i) + keys[j] + high(i) · 0x9e3779b9)`.
pub const fn keys(seed: u32, tensor: u32) -> [u32; 4] {
    let base = mix(seed ^ mix(tensor.wrapping_add(0x51ed_270b)));
    [mix(base ^ 1), mix(base ^ 2), mix(base ^ 3), mix(base ^ 4)]
}

/// Element `index` before rounding to the storage type; exact in f32.
#[inline]
pub fn element(draw: Draw, keys: &[u32; 4], index: u64) -> f32 {
    let at = place(index);
    match draw {
        Draw::Dense => {
            let sum = keys.iter().map(|&key| (mix(at.wrapping_add(key)) >> 10) as i32).sum::<i32>();
            (sum - (1 << 23)) as f32 * (1.0 / (1 << 22) as f32)
        }
        Draw::Exact => {
            let step = ((mix(at.wrapping_add(keys[0])) >> 16) * 129) >> 16;
            (step as i32 - 64) as f32 * (1.0 / 64.0)
        }
    }
}

/// What stands for an index in hashes.
#[inline]
const fn place(index: u64) -> u32 {
    (index as u32).wrapping_add(((index >> 32) as u32).wrapping_mul(0x9e37_79b9))
}

/// Word `index`: all its bits are drawn, under either draw.
#[inline]
pub const fn word(keys: &[u32; 4], index: u64) -> u32 {
    mix(place(index).wrapping_add(keys[0]))
}

/// Integer `index` of 8 or 32 bits, in [−16, 16), under either draw.
#[inline]
pub const fn small(keys: &[u32; 4], index: u64) -> i32 {
    (word(keys, index) >> 27) as i32 - 16
}

/// Element `index` of 8 bits under an exact draw: multiples of 1/8 in [−1, 1].
#[inline]
pub fn eighths(keys: &[u32; 4], index: u64) -> f32 {
    ((((word(keys, index) >> 16) * 17) >> 16) as i32 - 8) as f32 * (1.0 / 8.0)
}

/// Scale `index` before rounding to the storage type, in [1/64, 1/32): a multiple of 2⁻²² under a dense draw; 1/64 or 1/32 under an exact one.
#[inline]
pub fn scale(draw: Draw, keys: &[u32; 4], index: u64) -> f32 {
    let hash = word(keys, index);
    let units = if draw == Draw::Exact { 1 << (16 + (hash >> 31)) } else { (1 << 16) + (hash >> 16) };
    units as f32 * (1.0 / (1 << 22) as f32)
}

/// Lazily drawn inputs for the oracle.
#[derive(Debug, Clone)]
pub struct Drawn {
    draw: Draw,
    tensors: Vec<(DType, Fill, [u32; 4])>,
    /// Tensors drawn whole, where that was asked for.
    held: Vec<Vec<f32>>,
    /// What rows of a definition share.
    kept: Kept,
}

/// Elements that are drawn whole at most, over all tensors.
const HELD: u64 = 1 << 26;

impl Drawn {
    /// The inputs of these tensors under this draw. Tensor numbers are binding positions.
    pub fn new(tensors: &[TensorSpec], seeded: Seeded) -> Self {
        let tensors = tensors.iter().enumerate().map(|(t, spec)| (spec.dtype, spec.fill.clone(), keys(seeded.seed, t as u32)));
        Drawn { draw: seeded.draw, tensors: tensors.collect(), held: Vec::new(), kept: Kept::default() }
    }

    /// Draws the inputs whole where they are few enough: worth it where every element is asked for many times.
    pub fn held(mut self, tensors: &[TensorSpec]) -> Self {
        let input = |spec: &TensorSpec| spec.role.is_input() && spec.dtype != DType::U32 && !matches!(spec.fill, Fill::Values(_));
        if tensors.iter().filter(|spec| input(spec)).map(TensorSpec::elements).sum::<u64>() <= HELD {
            // In f32, as which every draw is exact before it is stored.
            let whole = |(t, spec)| match input(spec) {
                true => (0..spec.elements()).map(|i| self.value(t, i) as f32).collect(),
                false => Vec::new(),
            };
            self.held = tensors.iter().enumerate().map(whole).collect();
        }
        self
    }

    /// Element `index` of tensor `tensor` as stored.
    #[inline]
    pub fn value(&self, tensor: usize, index: u64) -> f64 {
        if let Some(&held) = self.held.get(tensor).and_then(|held| held.get(index as usize)) {
            return held as f64;
        }
        let (dtype, fill, keys) = &self.tensors[tensor];
        if *dtype == DType::U32 {
            return word(keys, index) as f64;
        }
        let drawn = match fill {
            Fill::Values(values) => return values[index as usize],
            _ if dtype.is_integer() => return small(keys, index) as f64,
            Fill::Draw if *dtype == DType::F8 && self.draw == Draw::Exact => eighths(keys, index),
            Fill::Draw => element(self.draw, keys, index),
            Fill::Scale => scale(self.draw, keys, index),
            Fill::Pairs(pairs) => pairs.element(keys, index),
            Fill::Rows(rows) => rows.element(self.draw, keys, index),
            Fill::Cycle(cycle) => cycle.element(index),
        };
        match dtype {
            DType::F16 => half::f16::from_f32(drawn).to_f64(),
            DType::BF16 => half::bf16::from_f32(drawn).to_f64(),
            DType::F8 => dtype.round(drawn as f64),
            DType::F32 | DType::F64 | DType::U32 | DType::I8 | DType::I32 => drawn as f64,
        }
    }
}

impl Tensors for Drawn {
    #[inline]
    fn at<R: Real>(&self, tensor: usize, index: u64) -> R {
        R::from_f64(self.value(tensor, index))
    }

    #[inline]
    fn word(&self, tensor: usize, index: u64) -> u32 {
        word(&self.tensors[tensor].2, index)
    }

    fn shared<R: Real>(&self, part: u64, make: impl FnOnce() -> Vec<R>) -> std::sync::Arc<Vec<R>> {
        self.kept.of(part, make)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dense_draws_have_zero_mean_and_the_declared_sigma() {
        let keys = keys(7, 1);
        let n = 1 << 20;
        let (mut sum, mut square) = (0.0, 0.0);
        for i in 0..n {
            let x = element(Draw::Dense, &keys, i) as f64;
            assert!((-2.0..2.0).contains(&x));
            sum += x;
            square += x * x;
        }
        let mean = sum / n as f64;
        let sigma = (square / n as f64 - mean * mean).sqrt();
        assert!(mean.abs() < 3e-3, "mean {mean}");
        assert!((sigma - 1.0 / 3f64.sqrt()).abs() < 3e-3, "sigma {sigma}");
    }

    #[test]
    fn exact_draws_are_multiples_of_a_64th_within_one() {
        let keys = keys(7, 0);
        let drawn: Vec<f32> = (0..10_000).map(|i| element(Draw::Exact, &keys, i)).collect();
        assert!(drawn.iter().all(|x| x.abs() <= 1.0 && (x * 64.0).fract() == 0.0));
        assert!(drawn.contains(&1.0) && drawn.contains(&-1.0) && drawn.contains(&0.0));
    }

    #[test]
    fn integers_are_spread_evenly_over_five_bits() {
        let keys = keys(7, 1);
        let mut counts = [0u32; 32];
        (0..32_000).for_each(|i| counts[(small(&keys, i) + 16) as usize] += 1);
        // 1000 each, with a standard deviation of 31.
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    #[test]
    fn scales_are_positive_spread_over_an_octave_and_powers_of_two_where_exact() {
        let keys = keys(7, 2);
        let dense: Vec<f32> = (0..10_000).map(|i| scale(Draw::Dense, &keys, i)).collect();
        assert!(dense.iter().all(|x| (1.0 / 64.0..1.0 / 32.0).contains(x) && (x * 4_194_304.0).fract() == 0.0));
        let mean = dense.iter().sum::<f32>() / 10_000.0;
        assert!((mean * 64.0 - 1.5).abs() < 0.01, "mean {mean}");
        let exact: Vec<f32> = (0..100).map(|i| scale(Draw::Exact, &keys, i)).collect();
        assert!(
            exact.iter().all(|&x| x == 1.0 / 64.0 || x == 1.0 / 32.0) && exact.contains(&(1.0 / 64.0)) && exact.contains(&(1.0 / 32.0))
        );
    }

    #[test]
    fn a_selecting_query_has_a_large_product_with_the_key_it_names_and_a_small_one_with_every_other() {
        let keys_ = Rows { columns: 64, rows: 1024, first: 0, keys: 1024, shift: 0, step: 1 };
        let queries = Rows { rows: 512, first: 512, shift: 3, step: 2, ..keys_ };
        let at = |rows: &Rows, row: u64, column: u64| rows.element(Draw::Exact, &[0; 4], row * 64 + column) as f64;
        let score = |query: u64, key: u64| (0..64).map(|c| at(&queries, query, c) * at(&keys_, key, c)).sum::<f64>() / 8.0;
        // Row 514 is row 2 of the second head.
        for (query, named) in [(0, 512), (10, 522), (514, 514)] {
            assert_eq!(score(query, named), 512.0);
            let next = (0..1024).filter(|&key| key != named).map(|key| score(query, key)).fold(f64::MIN, f64::max);
            assert!(512.0 - next >= 40.0, "query {query}: the next key scores {next}");
        }
        assert!((0..1024).all(|key| score(7, key) == 0.0), "a query of odd number sees all keys alike");
        let dense = |rows: &Rows| rows.element(Draw::Dense, &keys(1, 0), 5);
        assert_eq!(dense(&queries), 8.0 * dense(&keys_));
    }

    #[test]
    fn the_bits_of_a_draw_never_change() {
        let bits: Vec<u32> = (0..4).map(|i| element(Draw::Dense, &keys(1, 0), i).to_bits()).collect();
        assert_eq!(bits, PINNED, "changing the draw invalidates every recorded seed");
    }

    const PINNED: [u32; 4] = [1059118148, 3206185536, 1066460608, 981704704];
}
