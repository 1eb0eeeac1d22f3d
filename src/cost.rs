//! What a placed row costs: memory, latency, throughput, how well it uses the machine, energy, and money; and whether it keeps to limits.
//!
//! All of it is derived from what a record holds, so that a file recorded before can be asked too. What is not known stays absent.

use crate::explain::Elements;
use crate::op::stream::Kind;
use crate::op::{self, samples};
use crate::plan::Precision;
use crate::record::{Cache, Energy};
use crate::roofline::Roof;
use crate::units::digits;
use crate::view::{CeilingView, Cost, Row, View};

/// What costs are counted with, and what they are held against.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Asked {
    /// Price of the machine for an hour, in any currency.
    pub price: Option<f64>,
    /// The longest that one problem may take; in ns.
    pub max_latency: Option<Limit>,
    /// The most memory that one problem may take; in bytes.
    pub max_memory: Option<Limit>,
    /// The most energy that one problem may take; in J.
    pub max_energy: Option<Limit>,
    /// Peaks from elsewhere, to be held beside the measured ones.
    pub nominal: Nominal,
}

/// Peaks that nobody measured here: a vendor's figures.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Nominal {
    /// FLOP/s of a precision; without one, of all that have none of their own.
    pub compute: Vec<(Option<Precision>, f64)>,
    /// Byte/s of memory.
    pub byte_per_s: Option<f64>,
}

impl Nominal {
    /// FLOP/s for a precision, where one was given.
    pub fn flop_per_s(&self, precision: Precision) -> Option<f64> {
        let of = |wanted| self.compute.iter().find(|(precision, _)| *precision == wanted).map(|(_, rate)| *rate);
        of(Some(precision)).or_else(|| of(None))
    }
}

impl Asked {
    /// Whether rows are held against anything.
    pub fn limits(&self) -> bool {
        self.max_latency.is_some() || self.max_memory.is_some() || self.max_energy.is_some()
    }
}

/// A limit in the unit that it was given in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// How many of its unit.
    pub amount: f64,
    /// The unit's name.
    pub unit: &'static str,
    /// The unit in ns, bytes or J.
    pub scale: f64,
}

impl Limit {
    /// `22.9 ms > 10 ms`, where so many ns, bytes or J are too many.
    fn exceeded(&self, by: f64) -> Option<String> {
        let Limit { amount, unit, scale } = self;
        (by > amount * scale).then(|| format!("{} {unit} > {amount} {unit}", digits(by / scale)))
    }
}

/// The two ceilings that utilisation is counted by.
pub struct Peaks(Roof);

impl Peaks {
    /// Those of a view.
    pub fn of(view: &View) -> Peaks {
        Peaks(Roof::new(&view.header, view.ceilings.clone(), Vec::new()))
    }

    /// Arithmetic of a row's precision, by its fastest unit.
    pub fn compute(&self, row: &Row) -> Option<&CeilingView> {
        self.0.compute(row.precision, None)
    }

    /// Reading from memory beyond all caches.
    pub fn memory(&self) -> Option<&CeilingView> {
        self.0.bandwidth("dram", Kind::Read)
    }
}

/// Gives every row of a view its cost.
pub fn fill(view: &mut View, asked: &Asked) {
    let peaks = Peaks::of(view);
    for row in &mut view.rows {
        row.cost = Some(cost(row, &peaks, asked));
    }
}

/// The cost of one row.
pub fn cost(row: &Row, peaks: &Peaks, asked: &Asked) -> Cost {
    // Neither an op nor a field of a newer program can be counted here.
    let op = op::find(&row.op).and_then(|entry| (entry.parse)(&row.problem)).ok();
    let elements = op.as_ref().and_then(|op| Some(Elements::of(&**op, &op.tensors(row.precision).ok()?)));
    let latency = row.time_ns.map(|time| time.median).filter(|ns| ns.is_finite() && *ns > 0.0);
    let share = |rate: Option<f64>, ceiling: Option<&CeilingView>| Some(rate? / ceiling?.value).filter(|share| share.is_finite());
    let over = |rate: Option<f64>, peak: Option<f64>| Some(rate? / peak?);
    let per_s = latency.map(|ns| 1e9 / ns);
    let cold_byte_per_s = row.byte_per_s.filter(|_| row.cache == Cache::Cold);
    let joules = row.energy.as_ref().filter(|_| latency.is_some());
    let mut cost = Cost {
        params: elements.map(|e| e.params),
        activations: elements.map(|e| e.activations),
        peak_bytes: row.peak_bytes,
        latency_ns: latency,
        problems_per_s: per_s,
        samples_per_s: op.as_ref().and_then(|op| samples(&**op)).and_then(|samples| Some(samples as f64 * per_s?)),
        mfu: share(row.flop_per_s, peaks.compute(row)),
        mbu: share(cold_byte_per_s, peaks.memory()),
        mfu_nominal: over(row.flop_per_s, asked.nominal.flop_per_s(row.precision)),
        mbu_nominal: over(cold_byte_per_s, asked.nominal.byte_per_s),
        energy_j: joules.map(Energy::joules),
        energy_above_idle_j: joules.map(Energy::joules_above_idle),
        flop_per_j: joules.filter(|_| row.macs > 0).map(|energy| 2.0 * row.macs as f64 / energy.joules()),
        price_per_million: asked.price.and_then(|price| Some(price / HOUR_NS * latency? * 1e6)),
        fits: None,
        why: Vec::new(),
    };
    judge(&mut cost, asked);
    cost
}

const HOUR_NS: f64 = 3600e9;

/// Says whether a row keeps to the limits. One that it breaks decides; else one that cannot be checked leaves it open.
fn judge(cost: &mut Cost, asked: &Asked) {
    let latency = (asked.max_latency, cost.latency_ns, "no verified time");
    let memory = (asked.max_memory, cost.peak_bytes.map(|bytes| bytes as f64), "memory not measured");
    let energy = (asked.max_energy, cost.energy_j, "energy not measured");
    let (mut broken, mut open) = (Vec::new(), Vec::new());
    for (limit, value, unknown) in [latency, memory, energy] {
        match (limit, value) {
            (Some(limit), Some(value)) => broken.extend(limit.exceeded(value)),
            (Some(_), None) => open.push(unknown.to_string()),
            (None, _) => {}
        }
    }
    cost.fits = match (asked.limits(), broken.is_empty(), open.is_empty()) {
        (true, false, _) => Some(false),
        (true, true, true) => Some(true),
        _ => None,
    };
    cost.why = if broken.is_empty() { open } else { broken };
}
