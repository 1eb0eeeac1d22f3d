//! Medians, percentiles and their 95 % intervals, from order statistics alone.
//!
//! Times are skewed and sometimes have two modes, so nothing here assumes a distribution. The interval of a quantile runs
//! between two order statistics whose ranks follow from the binomial distribution; between ranks it is interpolated as by
//! Nyblom (1992, "Note on interpolated order statistics", Statistics & Probability Letters 14), which for the median is the rule
//! of Hettmansperger and Sheather (1986). That keeps the coverage near 95 % from six samples on, and costs a few selections.

/// A number and its 95 % interval, in the unit of the samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The quantile itself.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

impl Estimate {
    /// Half the interval's width over the value: what the stopping rule compares with 0.01. Infinite for a value of 0.
    pub fn half_width(&self) -> f64 {
        if self.value > 0.0 { (self.high - self.low) / (2.0 * self.value) } else { f64::INFINITY }
    }

    /// The farther end's distance over the value. Infinite for a value of 0.
    pub fn uncertainty(&self) -> f64 {
        if self.value > 0.0 { (self.high - self.value).max(self.value - self.low) / self.value } else { f64::INFINITY }
    }

    /// `work` per unit of this time; the ends change places. Multiply by 1e9 for a rate per second from ns.
    pub(crate) fn rate(&self, work: f64) -> Self {
        Estimate { value: work / self.value, low: work / self.high, high: work / self.low }
    }

    /// Every number multiplied by a positive factor.
    pub(crate) fn scaled(&self, by: f64) -> Self {
        Estimate { value: self.value * by, low: self.low * by, high: self.high * by }
    }
}

/// The median; `None` without samples.
pub fn median(samples: &[u64]) -> Option<f64> {
    quantile(samples, 0.5)
}

/// The `q`-quantile, 0 ≤ q ≤ 1, interpolated linearly between order statistics (type 7 of Hyndman and Fan 1996).
pub fn quantile(samples: &[u64], q: f64) -> Option<f64> {
    let mut values = floats(samples);
    let last = values.len().checked_sub(1)?;
    Some(at(&mut values, q.clamp(0.0, 1.0) * last as f64))
}

/// The median and its 95 % interval; `None` without samples. Below six samples the interval is their whole range, which
/// covers the true median with probability 1 − 2^(1−n) only: 0.94 for five, 0.75 for three, 0 for one.
pub fn median_interval(samples: &[u64]) -> Option<Estimate> {
    estimate(&mut floats(samples), 0.5)
}

/// The `q`-quantile and its 95 % interval; `None` without samples. An end that no order statistic can give with 97.5 % (the
/// lower end of a 10th percentile below 36 samples) is the smallest or largest sample.
pub fn quantile_interval(samples: &[u64], q: f64) -> Option<Estimate> {
    estimate(&mut floats(samples), q)
}

/// Median absolute deviation from the median, unscaled (σ ≈ 1.4826 × this for normal samples).
pub fn deviation(samples: &[u64]) -> Option<f64> {
    let centre = median(samples)?;
    let mut values: Vec<f64> = samples.iter().map(|&x| (x as f64 - centre).abs()).collect();
    let last = values.len() - 1;
    Some(at(&mut values, 0.5 * last as f64))
}

/// Samples kept in order while they arrive, for a stopping rule that looks after each of them: a push moves what is larger
/// (half a microsecond at 5,000 samples), an interval only reads ranks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ordered(Vec<u64>);

impl Ordered {
    /// Adds a sample.
    pub fn push(&mut self, sample: u64) {
        self.0.insert(self.0.partition_point(|&x| x <= sample), sample);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As [`quantile_interval`].
    pub fn interval(&self, q: f64) -> Option<Estimate> {
        interval(self.0.len(), q, |rank| between(rank, &self.0))
    }
}

/// [`quantile_interval`] over finite floats, whose order it changes.
pub(crate) fn estimate(values: &mut [f64], q: f64) -> Option<Estimate> {
    interval(values.len(), q, |rank| at(values, rank))
}

/// The `q`-quantile of `n` samples and its interval, from a reader of fractional ranks.
fn interval(n: usize, q: f64, mut at: impl FnMut(f64) -> f64) -> Option<Estimate> {
    let last = n.checked_sub(1)? as f64;
    let (low, high) = (lower_rank(n, q), last - lower_rank(n, 1.0 - q));
    let value = at(q * last);
    // With very few samples the interpolated ranks may pass the value itself by a hair; the interval always holds it.
    Some(Estimate { value, low: at(low).min(value), high: at(high).max(value) })
}

/// The median of finite floats; `None` without any.
pub(crate) fn median_of(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    let last = values.len().checked_sub(1)?;
    Some(at(&mut values, 0.5 * last as f64))
}

fn floats(samples: &[u64]) -> Vec<f64> {
    samples.iter().map(|&x| x as f64).collect()
}

/// The order statistic of sorted samples at a fractional, zero-based rank.
fn between(rank: f64, sorted: &[u64]) -> f64 {
    let whole = (rank.max(0.0) as usize).min(sorted.len() - 1);
    let (here, next) = (sorted[whole] as f64, sorted[(whole + 1).min(sorted.len() - 1)] as f64);
    here + (rank - whole as f64) * (next - here)
}

/// The same over samples in any order, which it changes.
fn at(values: &mut [f64], rank: f64) -> f64 {
    let whole = (rank.max(0.0) as usize).min(values.len() - 1);
    let (_, &mut here, above) = values.select_nth_unstable_by(whole, f64::total_cmp);
    let part = rank - whole as f64;
    if part <= 0.0 || above.is_empty() {
        return here;
    }
    let next = above.iter().copied().fold(f64::INFINITY, f64::min);
    here + part * (next - here)
}

/// Probability that either end of an interval misses.
const MISS: f64 = 0.025;
/// Its normal quantile.
const Z: f64 = 1.959_964;
/// Samples up to which the binomial sum is exact; 0.1^250 is still far above the smallest f64.
const EXACT: usize = 250;

/// Zero-based fractional rank of the order statistic that exceeds the true `p`-quantile with probability [`MISS`].
fn lower_rank(n: usize, p: f64) -> f64 {
    if n > EXACT { normal_rank(n, p) } else { binomial_rank(n, p) }
}

fn binomial_rank(n: usize, p: f64) -> f64 {
    let (mut pmf, mut below, mut k) = ((1.0 - p).powi(n as i32), 0.0, 0usize);
    // The k-th smallest sample exceeds the quantile when fewer than k samples lie under it.
    while below + pmf <= MISS && k < n {
        below += pmf;
        pmf *= (n - k) as f64 / (k + 1) as f64 * p / (1.0 - p);
        k += 1;
    }
    if k == 0 || k == n {
        return k.saturating_sub(1) as f64;
    }
    let share = (MISS - below) / pmf;
    let odds = k as f64 * (1.0 - p) * (1.0 - share) / ((n - k) as f64 * p);
    (k - 1) as f64 + share / (share + odds)
}

/// The same from the normal limit with its first skewness term (Cornish and Fisher 1938).
fn normal_rank(n: usize, p: f64) -> f64 {
    let n = n as f64;
    let skew = (Z * Z - 1.0) * (1.0 - 2.0 * p) / 6.0;
    (n * p - Z * (n * p * (1.0 - p)).sqrt() + skew - 0.5).max(0.0)
}

/// The power of x that y grows with: the slope of the least-squares line through the logarithms of both. Absent for fewer than two
/// points, and where all have one x.
pub fn exponent(points: &[(f64, f64)]) -> Option<f64> {
    let logs: Vec<(f64, f64)> = points.iter().map(|&(x, y)| (x.ln(), y.ln())).collect();
    let mean = |of: fn(&(f64, f64)) -> f64| logs.iter().map(of).sum::<f64>() / logs.len() as f64;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let (xy, xx) = logs.iter().fold((0.0, 0.0), |(xy, xx), p| (xy + (p.0 - x) * (p.1 - y), xx + (p.0 - x) * (p.0 - x)));
    Some(xy / xx).filter(|slope| slope.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::mix;

    /// Uniform in (0, 1), from a counter.
    struct Source(u32);

    impl Source {
        fn uniform(&mut self) -> f64 {
            self.0 = self.0.wrapping_add(1);
            (mix(self.0) as f64 + 0.5) / 4_294_967_296.0
        }
        fn normal(&mut self) -> f64 {
            let (r, angle) = (self.uniform(), self.uniform());
            (-2.0 * r.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
        }
    }

    /// Share of 4,000 trials of `n` samples whose interval of the `q`-quantile holds `truth`.
    fn coverage(n: usize, q: f64, truth: f64, mut draw: impl FnMut(&mut Source) -> f64) -> f64 {
        let mut source = Source(17);
        let trials = 4000;
        let held = (0..trials).filter(|_| {
            let samples: Vec<u64> = (0..n).map(|_| draw(&mut source) as u64).collect();
            let e = quantile_interval(&samples, q).unwrap();
            e.low <= truth && truth <= e.high
        });
        held.count() as f64 / trials as f64
    }

    fn assert_covers(share: f64, what: &str) {
        assert!((0.93..=0.97).contains(&share), "{what}: the interval holds the truth in {share:.4} of the trials");
    }

    #[test]
    fn the_interval_of_the_median_covers_it_for_normal_samples() {
        for n in [6, 10, 11, 19, 20, 33, 100, 400] {
            assert_covers(coverage(n, 0.5, 1e6, |s| 1e6 + 2e4 * s.normal()), &format!("normal, {n} samples"));
        }
    }

    #[test]
    fn the_interval_of_the_median_covers_it_for_heavy_tails() {
        for n in [6, 10, 20, 50, 300] {
            // Log-normal with σ 1, and a Pareto tail of index 1.5 whose variance is infinite; medians e^0 and 2^(1/1.5).
            assert_covers(coverage(n, 0.5, 1e6, |s| 1e6 * s.normal().exp()), &format!("log-normal, {n} samples"));
            let pareto = 1e6 * 2f64.powf(1.0 / 1.5);
            assert_covers(coverage(n, 0.5, pareto, |s| 1e6 * s.uniform().powf(-1.0 / 1.5)), &format!("pareto, {n} samples"));
        }
    }

    #[test]
    fn the_interval_of_the_median_covers_it_for_two_modes() {
        // 60 % at 1.0 and 40 % at 1.3, each uniform over ±5 %: the median is the 5/6 point of the lower mode.
        let truth = 1e6 * (0.95 + 0.1 * 5.0 / 6.0);
        for n in [10, 20, 50, 300] {
            let draw = |s: &mut Source| {
                let centre = if s.uniform() < 0.6 { 1.0 } else { 1.3 };
                1e6 * (centre - 0.05 + 0.1 * s.uniform())
            };
            assert_covers(coverage(n, 0.5, truth, draw), &format!("bimodal, {n} samples"));
        }
    }

    #[test]
    fn the_interval_of_a_tenth_percentile_covers_it_from_36_samples_on() {
        for n in [36, 60, 120, 400] {
            let normal = 1e6 - 1.281_551_6 * 2e4;
            assert_covers(coverage(n, 0.1, normal, |s| 1e6 + 2e4 * s.normal()), &format!("normal, {n} samples"));
            let shifted = 1e6 + 1e5 * -(0.9f64.ln());
            assert_covers(coverage(n, 0.1, shifted, |s| 1e6 - 1e5 * s.uniform().ln()), &format!("exponential, {n} samples"));
        }
    }

    #[test]
    fn the_normal_limit_meets_the_exact_ranks_where_it_takes_over() {
        for p in [0.1, 0.5, 0.9] {
            let (exact, limit) = (binomial_rank(EXACT, p), normal_rank(EXACT, p));
            assert!((exact - limit).abs() < 0.15, "p {p}: exact rank {exact}, normal {limit}");
        }
    }

    #[test]
    fn quantiles_and_deviation_of_a_short_list_are_the_textbook_ones() {
        let samples = [50, 10, 40, 20, 30];
        assert_eq!(median(&samples), Some(30.0));
        assert_eq!(quantile(&samples, 0.1), Some(14.0));
        assert_eq!(quantile(&samples, 1.0), Some(50.0));
        assert_eq!(median(&[1, 2]), Some(1.5));
        assert_eq!(deviation(&samples), Some(10.0));
        assert_eq!(median(&[]), None);
        assert_eq!(median_interval(&[]), None);
    }

    #[test]
    fn below_six_samples_the_interval_is_their_range() {
        let e = median_interval(&[7, 3, 5, 4, 9]).unwrap();
        assert_eq!((e.value, e.low, e.high), (5.0, 3.0, 9.0));
        let one = median_interval(&[8]).unwrap();
        assert_eq!((one.value, one.low, one.high), (8.0, 8.0, 8.0));
    }

    #[test]
    fn ten_samples_take_the_published_interpolated_ranks() {
        // Hettmansperger and Sheather: n = 10, d = 2, coverages 0.9785 and 0.8906, so λ = 8·0.3244 / (2 + 6·0.3244).
        let samples: Vec<u64> = (1..=10).map(|x| x * 1000).collect();
        let e = median_interval(&samples).unwrap();
        assert_eq!(e.value, 5500.0);
        assert!((e.low - 2657.6).abs() < 1.0 && (e.high - 8342.4).abs() < 1.0, "{e:?}");
    }

    #[test]
    fn samples_kept_in_order_give_the_same_interval_at_every_length() {
        let (mut ordered, mut samples, mut source) = (Ordered::default(), Vec::new(), Source(5));
        assert!(ordered.is_empty() && ordered.interval(0.5).is_none());
        for n in 1..=600 {
            let sample = (1e4 * source.uniform()) as u64;
            ordered.push(sample);
            samples.push(sample);
            assert_eq!(ordered.len(), n);
            for q in [0.1, 0.5] {
                assert_eq!(ordered.interval(q), quantile_interval(&samples, q), "{n} samples, q {q}");
            }
        }
    }

    #[test]
    fn equal_samples_have_no_width_and_zeros_never_look_settled() {
        let e = median_interval(&[100; 12]).unwrap();
        assert_eq!((e.half_width(), e.uncertainty()), (0.0, 0.0));
        assert_eq!(median_interval(&[0; 12]).unwrap().half_width(), f64::INFINITY);
    }

    #[test]
    fn an_exponent_is_that_of_a_power_law_and_nothing_else_has_one() {
        let square: Vec<(f64, f64)> = [1.0, 2.0, 8.0].map(|x: f64| (x, 3.0 * x * x)).into();
        assert!(exponent(&square).is_some_and(|e| (e - 2.0).abs() < 1e-12));
        assert_eq!(
            (exponent(&[]), exponent(&[(1.0, 2.0)]), exponent(&[(1.0, 2.0), (1.0, 3.0)]), exponent(&[(1.0, 0.0), (2.0, 1.0)])),
            (None, None, None, None)
        );
    }
}
