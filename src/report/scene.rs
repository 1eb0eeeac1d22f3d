//! What a roofline chart shows, before any pixel: points, roofs, the ridge and the axes. Terminal and picture share it.
//!
//! Only finite positive values inside the axes' limits get in; a point that is not drawable is listed with its reason.

use std::collections::BTreeMap;

use super::{doubted, is_reference, keys, verified};
use crate::plan::{Precision, Unit};
use crate::record::{CeilingKind, State};
use crate::units::{ByteRate, FlopRate, OpRate};
use crate::view::{CeilingView, Row, View};

/// FLOP/byte that an axis can reach.
pub(super) const X_LIMITS: (f64, f64) = (1e-4, 1e6);
/// FLOP/s that an axis can reach.
pub(super) const Y_LIMITS: (f64, f64) = (1e6, 1e18);

/// Something that is not in the picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Id of the row, or name of the ceiling.
    pub id: String,
    /// Why it cannot be drawn.
    pub why: String,
}

/// A logarithmic axis; bounds are 1, 2 or 5 times a power of ten, inside its limits, and at least a decade apart; or powers of two.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Axis {
    pub min: f64,
    pub max: f64,
    /// Whether its steps are octaves: sizes that are doubled have a tick each.
    pub octaves: bool,
}

/// A placed row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Point {
    /// Index in the view.
    pub row: usize,
    pub key: String,
    /// Compulsory intensity.
    pub x: f64,
    /// FLOP/s.
    pub y: f64,
    /// FLOP/s at the ends of the time's interval.
    pub ends: Option<(f64, f64)>,
    /// Intensity by moved bytes, where it is lower.
    pub moved: Option<f64>,
    pub doubted: bool,
    /// A vendor's library, none of ours.
    pub reference: bool,
}

/// A roof: FLOP/s or integer operations a second, or byte/s where it is a slope.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Roof {
    pub name: String,
    pub slope: bool,
    /// Of compute: no kernel is judged by one of probes alone.
    pub precision: Option<Precision>,
    pub value: f64,
    pub low: f64,
    pub high: f64,
    pub doubted: bool,
    /// The one line of its level or unit that is drawn strong.
    pub main: bool,
    /// `dram`, `l2`, …; the precision for compute.
    pub group: String,
    /// `triad`, …; the unit for compute.
    pub member: String,
}

impl Roof {
    /// The value with its unit.
    pub fn text(&self) -> String {
        match (self.slope, self.precision.is_some_and(Precision::is_integer)) {
            (true, _) => ByteRate(self.value).to_string(),
            (_, true) => OpRate(self.value).to_string(),
            _ => FlopRate(self.value).to_string(),
        }
    }
}

/// All of it.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    pub x: Axis,
    pub y: Axis,
    pub points: Vec<Point>,
    /// The ramp: index in the view's, intensity, FLOP/s, whether it is doubted.
    pub ramp: Vec<Step>,
    /// Fastest first: compute, then bandwidth.
    pub roofs: Vec<Roof>,
    /// Where the main DRAM slope meets the main compute roof: indices of both, FLOP/byte, FLOP/s.
    pub ridge: Option<Ridge>,
    pub left_out: Vec<LeftOut>,
    pub roofs_left_out: Vec<LeftOut>,
}

/// A point of the ramp.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Step {
    /// Index in the view's ramp.
    pub row: usize,
    pub x: f64,
    pub y: f64,
    pub doubted: bool,
}

/// A ridge point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ridge {
    pub x: f64,
    pub y: f64,
}

fn usable(value: f64, (low, high): (f64, f64)) -> bool {
    value.is_finite() && value >= low && value <= high
}

/// Position of a row, or why it has none.
pub(super) fn drawable(row: &Row) -> Result<(f64, f64), String> {
    if row.state == State::Wrong {
        return Err("its output is wrong".into());
    }
    if !verified(row) {
        return Err(format!("it ended as {}", super::state_word(row.state)));
    }
    let Some(rate) = row.flop_per_s else { return Err("it has no rate".into()) };
    if !usable(row.intensity, X_LIMITS) {
        return Err(format!("its intensity of {:e} FLOP/byte lies outside 1e-4 to 1e6", row.intensity));
    }
    if !usable(rate, Y_LIMITS) {
        return Err(format!("its rate of {rate:e} FLOP/s lies outside 1e6 to 1e18"));
    }
    Ok((row.intensity, rate))
}

fn point(index: usize, row: &Row, key: String, (x, y): (f64, f64)) -> Point {
    let ends = row.time_ns.map(|t| (y * t.median / t.high, y * t.median / t.low));
    let ends = ends.filter(|&(low, high)| usable(low, Y_LIMITS) && usable(high, Y_LIMITS) && low <= y && y <= high);
    let moved = Some(row.intensity_moved).filter(|&m| m.is_finite() && m > 0.0 && m < 0.97 * x);
    Point { row: index, key, x, y, ends, moved, doubted: doubted(row), reference: is_reference(row) }
}

fn roof(ceiling: &CeilingView) -> Result<Roof, String> {
    let slope = match ceiling.kind {
        CeilingKind::Compute if ceiling.unit == Some(Unit::Exp) => return Err("exponentials are no FLOPs".into()),
        CeilingKind::Compute => false,
        CeilingKind::Bandwidth if ceiling.level.as_deref() == Some("shared") => {
            return Err("no kernel says what it asks of shared memory".into());
        }
        CeilingKind::Bandwidth if ceiling.level.as_deref() == Some("pcie") => {
            return Err("no kernel is fed over the link to the host".into());
        }
        CeilingKind::Bandwidth => true,
        CeilingKind::Latency => return Err("a latency is not a roof".into()),
    };
    // Any slope worth drawing crosses the axes' limits somewhere.
    let limits = if slope { (Y_LIMITS.0 / X_LIMITS.1, Y_LIMITS.1 / X_LIMITS.0) } else { Y_LIMITS };
    if !usable(ceiling.value, limits) {
        return Err(format!("its value of {:e} lies outside {:e} to {:e}", ceiling.value, limits.0, limits.1));
    }
    let interval = [ceiling.low, ceiling.high].map(|v| if usable(v, limits) { v } else { ceiling.value });
    let (group, member) = if slope {
        (ceiling.level.clone().unwrap_or_default(), ceiling.direction.clone().unwrap_or_default())
    } else {
        (ceiling.precision.map_or(String::new(), |p| p.to_string()), ceiling.unit.map_or(String::new(), |u| u.to_string()))
    };
    Ok(Roof {
        name: ceiling.name.clone(),
        slope,
        precision: ceiling.precision,
        value: ceiling.value,
        low: interval[0].min(ceiling.value),
        high: interval[1].max(ceiling.value),
        doubted: ceiling.state == State::Suspect,
        main: false,
        group,
        member,
    })
}

/// Rank of a direction in a level: the lower, the better it stands for the level. `None` is not drawn while there is another.
fn rank(roof: &Roof) -> usize {
    ["triad", "copy", "read"].iter().position(|d| *d == roof.member).unwrap_or(3)
}

/// Marks one roof of each group as main and drops the lines that would only crowd: of a cache, all but the main one; of
/// DRAM, the pure write, which no kernel does.
fn choose(roofs: Vec<Roof>) -> Vec<Roof> {
    let mut best: BTreeMap<(bool, String), (usize, f64)> = BTreeMap::new();
    for roof in &roofs {
        let mine = if roof.slope { (rank(roof), -roof.value) } else { (0, -roof.value) };
        let entry = best.entry((roof.slope, roof.group.clone())).or_insert(mine);
        if mine < *entry {
            *entry = mine;
        }
    }
    let mut kept: Vec<Roof> = roofs
        .into_iter()
        .filter_map(|mut roof| {
            let (best_rank, best_value) = best[&(roof.slope, roof.group.clone())];
            let mine = if roof.slope { rank(&roof) } else { 0 };
            roof.main = mine == best_rank && -roof.value == best_value;
            let crowd = roof.slope && !roof.main && (roof.group != "dram" || rank(&roof) == 3);
            (!crowd).then_some(roof)
        })
        .collect();
    kept.sort_by(|a, b| (a.slope, b.value, &a.name).partial_cmp(&(b.slope, a.value, &b.name)).expect("values are finite"));
    kept
}

/// The precision that most points have, or f32.
fn main_precision(view: &View, points: &[Point]) -> Precision {
    let count = |p: Precision| points.iter().filter(|point| view.rows[point.row].precision == p).count();
    let most = Precision::ALL.into_iter().rev().max_by_key(|&p| count(p));
    most.filter(|&p| count(p) > 0).unwrap_or(Precision::F32)
}

fn ridge(roofs: &[Roof], precision: Precision) -> Option<Ridge> {
    let compute = roofs.iter().find(|r| !r.slope && r.main && r.group == precision.name());
    let compute = compute.or_else(|| roofs.iter().find(|r| !r.slope && !r.precision.is_some_and(Precision::is_of_probes)))?;
    let dram = roofs.iter().find(|r| r.slope && r.main && r.group == "dram")?;
    let x = compute.value / dram.value;
    usable(x, X_LIMITS).then_some(Ridge { x, y: compute.value })
}

impl Scene {
    /// What a view's chart shows.
    pub fn of(view: &View) -> Self {
        let mut left_out = Vec::new();
        let mut points = Vec::new();
        for (index, (row, key)) in view.rows.iter().zip(keys(view)).enumerate() {
            match (drawable(row), key) {
                (Ok(place), Some(key)) => points.push(point(index, row, key, place)),
                (Err(why), _) => left_out.push(LeftOut { id: row.id.clone(), why }),
                (Ok(_), None) => unreachable!("a drawable row has a key"),
            }
        }
        let mut roofs = Vec::new();
        let mut roofs_left_out = Vec::new();
        for ceiling in &view.ceilings {
            match roof(ceiling) {
                Ok(roof) => roofs.push(roof),
                Err(why) => roofs_left_out.push(LeftOut { id: ceiling.name.clone(), why }),
            }
        }
        let roofs = choose(roofs);
        let ridge = ridge(&roofs, main_precision(view, &points));
        let step = |(row, point): (usize, &Row)| drawable(point).ok().map(|(x, y)| Step { row, x, y, doubted: doubted(point) });
        let ramp: Vec<Step> = view.ramp.iter().enumerate().filter_map(step).collect();
        let (x, y) = axes(&points, &ramp, &roofs, ridge);
        let mut scene = Scene { x, y, points, ramp, roofs, ridge, left_out, roofs_left_out };
        let (seen, unseen) = scene.roofs.iter().cloned().partition(|roof| scene.ends(roof, roof.value).is_some());
        scene.roofs = seen;
        let outside = |roof: Roof| LeftOut { id: roof.name, why: "it lies outside the axes".into() };
        scene.roofs_left_out.extend(Vec::into_iter(unseen).map(outside));
        scene
    }

    /// Whether there is anything to draw.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty() && self.roofs.is_empty()
    }

    /// Roofs by what carries one text: each compute roof, and each memory level with its strong line first.
    pub fn roof_groups(&self) -> Vec<Vec<usize>> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (index, roof) in self.roofs.iter().enumerate() {
            let of_level = |g: &&mut Vec<usize>| roof.slope && self.roofs[g[0]].slope && self.roofs[g[0]].group == roof.group;
            match groups.iter_mut().find(of_level) {
                Some(group) => group.push(index),
                None => groups.push(vec![index]),
            }
        }
        groups.iter_mut().for_each(|g| g.sort_by_key(|&i| !self.roofs[i].main));
        groups
    }

    /// FLOP/s of the highest compute roof, where slopes end.
    fn top(&self) -> Option<f64> {
        self.roofs.iter().filter(|r| !r.slope).map(|r| r.value).reduce(f64::max)
    }

    /// The two ends of a roof inside the axes, if any of it is.
    pub fn ends(&self, roof: &Roof, value: f64) -> Option<[(f64, f64); 2]> {
        let (left, right) = if roof.slope {
            let top = self.top().unwrap_or(self.y.max).min(self.y.max);
            (self.x.min.max(self.y.min / value), self.x.max.min(top / value))
        } else {
            let fastest = self.roofs.iter().filter(|r| r.slope).map(|r| r.value).reduce(f64::max);
            (fastest.map_or(self.x.min, |slope| self.x.min.max(value / slope)), self.x.max)
        };
        let at = |x: f64| if roof.slope { (x, (value * x).clamp(self.y.min, self.y.max)) } else { (x, value) };
        let inside = roof.slope || (value >= self.y.min && value <= self.y.max);
        (left < right && inside).then(|| [at(left), at(right)])
    }
}

fn axes(points: &[Point], ramp: &[Step], roofs: &[Roof], ridge: Option<Ridge>) -> (Axis, Axis) {
    let least = points.iter().map(|p| p.x).reduce(f64::min);
    // A whisker may widen the axis by a decade and a half; one that goes further is cut at the edge.
    let moved = points.iter().filter_map(|p| p.moved).map(|m| m.max(least.unwrap_or(m) / 30.0));
    let room = ridge.map(|r| [r.x / 12.0, r.x * 12.0]).into_iter().flatten();
    // Room to the left of where the fastest cache meets the top roof, so that its line can be seen and named.
    let top = roofs.iter().filter(|r| !r.slope).map(|r| r.value).reduce(f64::max);
    let fastest = roofs.iter().filter(|r| r.slope).map(|r| r.value).reduce(f64::max);
    let corner = top.zip(fastest).zip(ridge).map(|((top, fastest), ridge)| (top / fastest / 3.0).max(ridge.x / 100.0));
    let wide = points.iter().flat_map(|p| [p.x / 1.5, p.x * 1.5]).chain(ramp.iter().map(|step| step.x));
    let x = Axis::covering(wide.chain(moved.map(|m| m / 1.3)).chain(room).chain(corner), (0.1, 100.0), X_LIMITS);
    let tall = points.iter().flat_map(|p| [p.y / 1.5, p.y * 1.3]).chain(ramp.iter().map(|step| step.y));
    let flat = roofs.iter().filter(|r| !r.slope).flat_map(|r| [r.low / 20.0, r.high * 1.7]);
    let slope = roofs.iter().filter(|r| r.slope && r.main).map(|r| r.value * x.min * 2.0);
    let slope = slope.reduce(f64::min).into_iter();
    let y = Axis::covering(tall.chain(flat).chain(slope), (1e9, 1e12), Y_LIMITS);
    (x, y)
}

/// 10 to an integer power, the nearest double.
fn decade(exponent: i32) -> f64 {
    format!("1e{exponent}").parse().unwrap_or(f64::NAN)
}

/// 1, 2 and 5 times every power of ten in `limits`, both ends included.
fn stops(limits: (f64, f64)) -> Vec<f64> {
    let (first, last) = (limits.0.log10().round() as i32, limits.1.log10().round() as i32);
    (first..=last).flat_map(|e| [1.0, 2.0, 5.0].map(|step| step * decade(e))).filter(|&s| s <= limits.1).collect()
}

impl Axis {
    /// The smallest axis over the usable ones of `values`, or `default` where there are none.
    pub fn covering(values: impl Iterator<Item = f64>, default: (f64, f64), limits: (f64, f64)) -> Self {
        let ends = values.filter(|v| v.is_finite() && *v > 0.0).map(|v| v.clamp(limits.0, limits.1));
        let ends = ends.fold(None, |ends: Option<(f64, f64)>, v| Some(ends.map_or((v, v), |(a, b)| (a.min(v), b.max(v)))));
        let (low, high) = ends.unwrap_or(default);
        let stops = stops(limits);
        let mut first = stops.iter().rposition(|&s| s <= low).unwrap_or(0);
        let mut last = stops.iter().position(|&s| s >= high).unwrap_or(stops.len() - 1);
        // Any six stops in a row hold two powers of ten, so every axis has at least two labels.
        while last - first < 5 {
            (first, last) = (first.saturating_sub(1), (last + 1).min(stops.len() - 1));
        }
        Axis { min: stops[first], max: stops[last], octaves: false }
    }

    /// As `covering`, from a power of two to another.
    pub fn over_octaves(values: impl Iterator<Item = f64>, default: (f64, f64), limits: (f64, f64)) -> Self {
        let Axis { min, max, .. } = Self::covering(values, default, limits);
        Axis { min: min.log2().floor().exp2(), max: max.log2().ceil().exp2(), octaves: true }
    }

    /// Powers of ten, and 2 and 5 times them, inside the axis, or its octaves: explicit, because a plotting library's own choice can hang.
    pub fn ticks(&self) -> (Vec<f64>, Vec<f64>) {
        if self.octaves {
            let (first, last) = (self.min.log2().round() as i32, self.max.log2().round() as i32);
            return ((first..=last).map(|power| f64::from(power).exp2()).collect(), Vec::new());
        }
        let all = stops((1e-4, 1e18)).into_iter().filter(|s| *s >= self.min && *s <= self.max);
        all.partition(|s| (s.log10() - s.log10().round()).abs() < 1e-9)
    }

    /// 0 at `min`, 1 at `max`.
    pub fn share(&self, value: f64) -> f64 {
        (value / self.min).log10() / (self.max / self.min).log10()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_stay_in_their_limits_and_span_a_decade_for_any_values() {
        let cases: [&[f64]; 7] = [&[], &[f64::NAN], &[1e-300, 1e300], &[0.0, -1.0], &[3.0, 3.0], &[f64::INFINITY], &[1e-4, 1e-4]];
        for values in cases {
            let axis = Axis::covering(values.iter().copied(), (0.1, 100.0), X_LIMITS);
            assert!(axis.min >= 1e-4 && axis.max <= 1e6 && axis.max / axis.min >= 10.0, "{values:?}: {axis:?}");
            let (bold, light) = axis.ticks();
            assert!(bold.len() >= 2 && bold.len() + light.len() < 40, "{values:?}: {bold:?} {light:?}");
        }
    }
}
