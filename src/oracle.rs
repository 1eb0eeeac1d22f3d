//! Whether an output is right: which elements are checked, what they must be, and how far off they may lie.
//!
//! The oracle is the op's own definition in f64 over lazily drawn inputs. Every element is checked for being finite (outputs
//! are poisoned with NaN first, so an unwritten one shows); so many are compared with the oracle that every 64 × 64 output tile
//! holds at least four, corners and edges included; small outputs whole; large outputs of linear ops also by Freivalds' check
//! (R. Freivalds, "Probabilistic machines can use less running time", 1977).
//!
//! Tolerance comes from one function with no per-kernel constant: e is the largest deviation of the same loop in the variant's
//! own arithmetic from f64, floored at one rounding of Σ|a·b|; allowed is 4e plus one rounding of the output type, plus what the
//! languages' promises for transcendental functions permit. Exact draws of ops whose sums stay exact must agree to the bit, integers and what
//! is made of factors that cancel in pairs always. Where an element costs as much as its row (attention), whole rows are compared: the first, the
//! last and one of every 64 of each head.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::draw::{Draw, Drawn, Fill, Seeded, mix};
use crate::error::{Error, Result};
use crate::op::{Arithmetic, DType, Op, Role};
use crate::plan::{Plan, Precision, Unit};

mod compare;

/// Edge of the tiles that each hold at least four checked elements.
const TILE: u64 = 64;
/// Outputs whose whole oracle costs at most this many multiply-adds are checked whole.
const WHOLE_MACS: u64 = 1 << 21;
/// Linear ops with more output elements than this are also checked by Freivalds.
const PROJECTED: u64 = 1 << 20;
/// Elements read from the device at a time.
const CHUNK: u64 = 1 << 20;
/// Checked elements kept over all expectations before the oldest are dropped.
const KEPT: usize = 1 << 22;

/// What a run of neighbouring output elements must be.
struct Run {
    /// Flat index of the first.
    start: u64,
    /// Their values.
    truth: Vec<f64>,
}

/// Columns of the one run that stands for a uniform output.
const UNIFORM: u64 = 8;

/// What one output must be.
pub struct Expectation {
    runs: Vec<Run>,
    elements: u64,
    columns: u64,
    checked: u64,
    tiles: u64,
    /// Largest deviation of the yardstick, floored; see the module's head.
    yardstick: f64,
    /// What transcendental functions may add.
    promised: f64,
    /// Agreement to the bit is demanded.
    exact: bool,
    /// The one value of all elements, where the op says so: then every element is compared.
    uniform: Option<f64>,
    output: DType,
    projection: Option<Projection>,
}

struct Projection {
    weights: Vec<f64>,
    sums: Vec<f64>,
    allowed: f64,
}

impl Expectation {
    /// Evaluates the oracle for one problem, as a kernel on `unit` is to be held against it.
    ///
    /// # Errors
    /// Those of [`Op::tensors`].
    pub fn of(op: &dyn Op, precision: Precision, unit: Unit, seeded: Seeded) -> Result<Self> {
        let tensors = op.tensors(precision)?;
        let output = tensors.iter().find(|t| t.role == Role::Output);
        let output = output.ok_or_else(|| Error::usage(format!("{} has no output tensor", op.name())))?;
        let (elements, columns) = (output.elements(), *output.shape.last().unwrap_or(&1));
        let inputs = Drawn::new(&tensors, seeded);
        let inputs = if op.whole_rows().is_some() { inputs.held(&tensors) } else { inputs };
        let (spans, tiles) = match (op.uniform(), op.whole_rows()) {
            (true, _) => (vec![(0, 0..columns.min(UNIFORM))], elements.div_ceil(TILE * TILE)),
            (_, Some(head)) if op.macs() > WHOLE_MACS => whole_rows(elements / columns, columns, head, seeded.seed),
            _ => spans(elements / columns, columns, op.macs(), seeded.seed),
        };
        let arithmetic = op.arithmetic(precision, unit);
        let (mut runs, mut deviation, mut checked, mut largest) = (Vec::with_capacity(spans.len()), 0f64, 0, 0f64);
        let evaluated = on_all_threads(&spans, |(row, cols)| {
            let truth = op.row(Arithmetic::F64, &inputs, *row, cols.clone());
            let yard = if arithmetic == Arithmetic::F64 { truth.clone() } else { op.row(arithmetic, &inputs, *row, cols.clone()) };
            let deviation = truth.iter().zip(&yard).fold(0f64, |worst, (t, y)| worst.max((t - y).abs()));
            (truth, deviation)
        });
        for ((row, cols), (truth, off)) in spans.iter().zip(evaluated) {
            deviation = deviation.max(off);
            largest = truth.iter().fold(largest, |worst, t| worst.max(t.abs()));
            checked += truth.len() as u64;
            runs.push(Run { start: row * columns + cols.start, truth });
        }
        // Σ|a·b| over a sample of the checked elements is enough for a floor.
        let step = spans.len().div_ceil(64).max(1);
        let sampled =
            spans.iter().step_by(step).flat_map(|(row, cols)| op.row(Arithmetic::Absolute, &inputs, *row, cols.start..cols.start + 1));
        let scale = sampled.fold(0f64, f64::max);
        let (floor, promised) = (0.5 * arithmetic.epsilon() * scale, op.promised(precision) * scale);
        let paired = tensors.iter().any(|tensor| matches!(tensor.fill, Fill::Pairs(_)));
        let exact = output.dtype.is_integer() || (paired || seeded.draw == Draw::Exact && op.exact()) && deviation == 0.0;
        if exact {
            // An exact sum is rounded once, when it is stored.
            runs.iter_mut().flat_map(|run| &mut run.truth).for_each(|truth| *truth = output.dtype.round(*truth));
        }
        let yardstick = deviation.max(floor);
        let allowed = 4.0 * yardstick + promised + output.dtype.epsilon() * largest;
        // Of a uniform output every element is compared anyway.
        let projection =
            (elements > PROJECTED && !op.uniform()).then(|| Projection::of(op, &inputs, columns, allowed, seeded.seed)).flatten();
        let uniform = op.uniform().then(|| runs[0].truth[0]);
        if uniform.is_some() {
            checked = elements;
            runs.clear();
        }
        runs.sort_by_key(|run| run.start);
        Ok(Expectation { runs, elements, columns, checked, tiles, yardstick, promised, exact, uniform, output: output.dtype, projection })
    }

    /// How far an element whose true value is `truth` may lie off.
    pub fn allowed(&self, truth: f64) -> f64 {
        if self.exact { 0.0 } else { 4.0 * self.yardstick + self.promised + self.output.epsilon() * truth.abs() }
    }
}

/// `work` of every item, in their order. Items cost much alike.
fn on_all_threads<I: Sync, T: Send>(items: &[I], work: impl Fn(&I) -> T + Sync) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = items.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let work = &work;
        let others: Vec<_> =
            items.chunks(share).skip(1).map(|items| scope.spawn(move || items.iter().map(work).collect::<Vec<T>>())).collect();
        let mut done: Vec<T> = items.iter().take(share).map(work).collect();
        for other in others {
            match other.join() {
                Ok(more) => done.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    })
}

impl Projection {
    fn of(op: &dyn Op, inputs: &Drawn, columns: u64, allowed: f64, seed: u32) -> Option<Self> {
        let sign = |j: u64| if mix(mix(seed ^ 0x5eed) ^ j as u32) & 1 == 0 { 1.0 } else { -1.0 };
        let sums = op.projected(inputs, &sign)?;
        let weights = (0..columns).map(sign).collect();
        // Errors of a row's elements can at worst add up.
        Some(Projection { allowed: allowed * columns as f64, weights, sums })
    }
}

/// Elements that are compared together: a row and some of its columns.
type Span = (u64, Range<u64>);

/// Which elements are compared, and how many tiles they cover.
fn spans(rows: u64, columns: u64, macs: u64, seed: u32) -> (Vec<Span>, u64) {
    let (height, width) = tile(rows, columns);
    let tiles = rows.div_ceil(height) * columns.div_ceil(width);
    if macs <= WHOLE_MACS && rows * columns <= WHOLE_MACS {
        let pieces = |row| (0..columns).step_by(CHUNK as usize).map(move |from| (row, from..(from + CHUNK).min(columns)));
        return ((0..rows).flat_map(pieces).collect(), tiles);
    }
    let mut state = mix(seed ^ 0x0ac1e);
    let mut below = |bound: u64| {
        state = mix(state.wrapping_add(0x9e37_79b9));
        (state as u64 * bound) >> 32
    };
    let mut elements = Vec::new();
    for top in (0..rows).step_by(height as usize) {
        for left in (0..columns).step_by(width as usize) {
            let (high, wide) = (height.min(rows - top), width.min(columns - left));
            // Four elements in different quarters of the tile, along its longer side, so that no two coincide.
            for quarter in 0..4 {
                let within =
                    |extent: u64, split: bool, draw: u64| if split { ((quarter * extent + draw) / 4).min(extent - 1) } else { draw };
                let (row, col) = (below(high), below(wide));
                elements.push((top + within(high, high >= wide, row), left + within(wide, high < wide, col)));
            }
        }
    }
    for row in [0, rows / 3, rows / 2, rows - 1] {
        elements.extend([0, columns / 2, columns - 1].map(|col| (row, col)));
    }
    elements.sort_unstable();
    elements.dedup();
    (elements.into_iter().map(|(row, col)| (row, col..col + 1)).collect(), tiles)
}

/// Whole rows that are compared, and how many tiles of 64 rows they stand for: of each head (so many rows) the first, the last, and one
/// of every 64.
fn whole_rows(rows: u64, columns: u64, head: u64, seed: u32) -> (Vec<Span>, u64) {
    let mut chosen = Vec::new();
    for first in (0..rows).step_by(head as usize) {
        chosen.extend([first, first + head - 1]);
        for top in (0..head).step_by(TILE as usize) {
            let high = TILE.min(head - top);
            chosen.push(first + top + ((mix(seed ^ mix((first + top) as u32)) as u64 * high) >> 32));
        }
    }
    chosen.sort_unstable();
    chosen.dedup();
    (chosen.into_iter().map(|row| (row, 0..columns)).collect(), rows / head * head.div_ceil(TILE))
}

/// Rows and columns of a tile: 64 × 64, or as many elements of an output that has one row only.
fn tile(rows: u64, columns: u64) -> (u64, u64) {
    match (rows, columns) {
        (1, _) => (1, TILE * TILE),
        (_, 1) => (TILE * TILE, 1),
        _ => (TILE, TILE),
    }
}

/// Expectations by problem, kept while memory allows.
#[derive(Default)]
pub struct Oracle {
    known: HashMap<(String, Precision, Arithmetic, Seeded), Arc<Expectation>>,
    kept: usize,
}

impl Oracle {
    /// What the output of this problem must be when `unit` computes it.
    ///
    /// # Errors
    /// Those of [`Expectation::of`].
    pub fn expect(&mut self, op: &dyn Op, precision: Precision, unit: Unit, seeded: Seeded) -> Result<Arc<Expectation>> {
        let key = (format!("{} {}", op.name(), op.problem()), precision, op.arithmetic(precision, unit), seeded);
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        let made = Arc::new(Expectation::of(op, precision, unit, seeded)?);
        let kept: usize = made.runs.iter().map(|run| run.truth.len()).sum();
        self.kept += kept;
        if self.kept > KEPT {
            self.known.clear();
            self.kept = kept;
        }
        self.known.insert(key, made.clone());
        Ok(made)
    }
}

/// `op/variant shape precision on backend`, for messages.
pub fn named(op: &dyn Op, plan: &Plan) -> String {
    format!("{}/{} {} {} ({:?})", plan.op, plan.variant, op.label(), plan.precision, plan.language)
}
